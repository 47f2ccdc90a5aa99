"""Half precision in portable mode: ONNX Runtime rounds where the layers do, at every level of its
optimizer (docs/onnx.md, "Half precision")."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import onnxruntime as ort
import pytest
import pytfmbs
import torch
from onnx.reference import ReferenceEvaluator
from onnx_models import TORCH_WARNINGS, Float32Ends, assert_same, checked, export
from torch import Tensor, nn

pytestmark = TORCH_WARNINGS

LEVELS = tuple(ort.GraphOptimizationLevel.__members__.values())
WIDTH = 64


def session(proto: Any, level: Any) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def in_every_level(proto: Any, x: Tensor) -> list[np.ndarray]:
    found = []
    for level in LEVELS:
        made = session(proto, level)
        found.append(made.run(None, {made.get_inputs()[0].name: x.numpy()})[0])
    return found


class Scaled(nn.Module):
    """An operator that ONNX Runtime has no float16 kernel for, and whose result is rounded."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0.375  # a float16, as torch multiplies by the float32


def layer(activation: str, size: float, dtype: torch.dtype = torch.float16) -> nn.Module:
    """size: the scale of its results."""
    options: Any = {"activation": activation, "weight_quantizer": "twn", "dtype": dtype}
    made = pytfmbs.TFMBSLinear(WIDTH, WIDTH, bias=False, **options)
    with torch.no_grad():
        made.weight.copy_(torch.randn(WIDTH, WIDTH) * size)
    return made


def every_half() -> Tensor:
    """Each number of float16, the normal ones also in rows of their own size."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    halves = bits.view(torch.float16).view(-1, WIDTH)
    shuffled = halves.flatten()[torch.randperm(2**16)].view(-1, WIDTH)
    normal = torch.where(shuffled.isfinite(), shuffled, 0)
    return torch.cat([halves, shuffled, normal, normal * 2**-10])


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("size", [2.0**-22, 1.0, 8000.0])  # to subnormals, and to infinities
@torch.no_grad()
def test_float16_is_rounded_at_both_ends_of_a_layer(activation: str, size: float) -> None:
    torch.manual_seed(0)
    first, last = layer(activation, size), layer(activation, 1.0)
    model = nn.Sequential(Scaled(), first, Scaled(), last, nn.ReLU()).eval()
    x = every_half()
    between = first(model[0](x))
    assert (between == 0).any() or size >= 1
    assert (between.abs() < 2**-14).any() or size > 1
    assert between.isinf().any() or size <= 1
    proto = checked(export(model, x))
    for found in in_every_level(proto, x):
        assert_same(found, model, x)


@torch.no_grad()
def test_float16_in_onnxs_evaluator_and_after_autocast() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(layer("int8", 1.0), nn.ReLU(), layer("int8", 1.0)).eval()
    x = torch.randn(32, WIDTH).half()
    proto = checked(export(model, x))
    assert_same(
        ReferenceEvaluator(proto).run(None, {proto.graph.input[0].name: x.numpy()})[0], model, x
    )


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@torch.no_grad()
def test_bfloat16_layers_in_a_row(activation: str) -> None:
    torch.manual_seed(2)
    first, last = (layer(activation, 1.0, torch.bfloat16) for _ in range(2))
    model = Float32Ends(nn.Sequential(first, last).eval(), torch.bfloat16).eval()
    x = torch.cat([torch.randn(64, WIDTH) * 10.0**e for e in (-30, -3, 0, 30)])
    for found in in_every_level(checked(export(model, x)), x):
        assert_same(found, model, x)


def test_bfloat16_operators_between_layers_are_refused_by_onnx_runtime() -> None:
    """It has no kernels for them: an error that names one, and no other numbers."""
    layers = (layer("int8", 1.0, torch.bfloat16) for _ in range(2))
    between = nn.Sequential(*layers).insert(1, Scaled()).eval()
    proto = checked(export(Float32Ends(between, torch.bfloat16).eval(), torch.randn(2, WIDTH)))
    for level in LEVELS:
        with pytest.raises(Exception, match=r"NOT_IMPLEMENTED.*Mul"):
            session(proto, level)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
def test_the_compiler_finds_float16_layers_again(activation: str) -> None:
    from pytfmbs.compiler import import_onnx

    one = pytfmbs.TFMBSLinear(5, 4, dtype=torch.float16, activation=activation, name="half.one")
    two = pytfmbs.TFMBSLinear(4, 4, dtype=torch.float16, activation=activation, name="half.two")
    model = nn.Sequential(one, two, two, nn.ReLU(), one.__class__(4, 3, dtype=torch.float16)).eval()
    text = import_onnx(checked(export(model, torch.randn(2, 5).half()))).text
    assert text.count("tfmbs.gemv") == 4
    assert "arith.maximumf" not in text.partition("tfmbs.gemv")[0]  # no Max before the first
