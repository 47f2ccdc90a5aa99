"""Packed layers as ONNX, and compiled: the layer's numbers; group scales are refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import pytfmbs
import torch
from cases import ACTIVATIONS, generator, tensor
from pytfmbs import TFMBSLinear, TFMBSPackedLinear
from torch import nn

pytest.importorskip("onnx")

import pytfmbs.onnx as tfmbs_onnx
from onnx_models import TORCH_WARNINGS, assert_same, checked, evaluate, export, run
from pytfmbs.compiler import Toolchain, compile_module, to_mlir

pytestmark = TORCH_WARNINGS


def packed(outputs: int, inputs: int, name: str, each: bool = True, **options: object) -> nn.Module:
    rng = generator(outputs, inputs)
    trits = torch.from_numpy(rng.integers(-1, 2, (outputs, inputs)))
    scale = torch.from_numpy(rng.random(outputs if each else 1)).float() + 0.1
    bias = tensor(rng, (outputs,), torch.float32)
    return TFMBSPackedLinear.from_trits(trits, scale, bias, name=name, **options)


@pytest.mark.parametrize("mode", ["portable", "custom"])
@pytest.mark.parametrize("how", ["own", "torch", "program"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("each", [False, True])
def test_exported_packed_layers_give_their_bits(
    mode: str, how: str, activation: str, each: bool
) -> None:
    model = nn.Sequential(
        packed(17, 43, "onnx-a", each, activation=activation),
        nn.ReLU(),
        packed(5, 17, "onnx-b", each, activation=activation, packing="packed_base3"),
    )
    x = tensor(generator(1), (3, 43), torch.float32)
    x[1, 2] = float("nan")
    proto = checked(export(model, x, how, mode=mode))
    assert_same(run(proto, x) if mode == "portable" else evaluate(proto, x), model, x)
    # The trits alone: no float weight, no panels.
    assert not any(
        list(t.dims) in ([17, 43], [43, 17]) and t.data_type == 1 for t in proto.graph.initializer
    )


def test_the_hint_is_the_trainable_layers_but_for_the_quantizer() -> None:
    layer = TFMBSLinear(43, 17, name="onnx-hint", weight_quantizer="absmean", activation="int8")
    x = torch.randn(2, 43)
    before = checked(export(layer.eval(), x))
    after = checked(export(pytfmbs.freeze(layer), x))
    said = []
    for proto in (before, after):
        props = [{p.key: p.value for p in node.metadata_props} for node in proto.graph.node]
        said.append([
            {k: v for k, v in prop.items() if k.startswith("pytfmbs.") and "quantizer" not in k}
            for prop in props
        ])  # fmt: skip
    assert said[0] == said[1]


def test_a_nan_scale_is_exported() -> None:
    scale = torch.tensor([1.0, float("nan"), 2.0])
    layer = TFMBSPackedLinear.from_trits(torch.ones(3, 4), scale)
    x = torch.randn(2, 4)
    assert_same(run(checked(export(layer, x)), x), layer, x)


@pytest.mark.parametrize("how", ["own", "program"])
def test_group_scales_are_refused_by_name(how: str) -> None:
    layer = TFMBSPackedLinear.from_trits(
        torch.ones(3, 64), torch.ones(3, 2), group_size=32, name="onnx-groups"
    )
    with pytest.raises(
        tfmbs_onnx.ExportError, match="'onnx-groups' has a scale for each 32 inputs"
    ):
        export(layer, torch.randn(2, 64), how)


def test_group_scales_can_be_requantized_as_the_error_says() -> None:
    layer = TFMBSPackedLinear.from_trits(torch.ones(3, 64), torch.ones(3, 2), group_size=32)
    plain = nn.Linear(64, 3, bias=False)
    plain.weight = nn.Parameter(layer.dequantized_weight())
    made = TFMBSPackedLinear.from_linear(plain)
    x = torch.randn(2, 64)
    assert_same(run(checked(export(made, x)), x), made, x)


def test_compiled_packed_layers_give_eagers_numbers(dialect_tools: Toolchain) -> None:
    model = nn.Sequential(
        packed(17, 43, "mlir-a"), nn.ReLU(), packed(5, 17, "mlir-b", False)
    ).eval()
    x = tensor(generator(2), (3, 43), torch.float32)
    module = compile_module(to_mlir(model, x), opt_level=0)
    with torch.no_grad():
        np.testing.assert_array_equal(np.asarray(module(x.numpy())), model(x).numpy())
