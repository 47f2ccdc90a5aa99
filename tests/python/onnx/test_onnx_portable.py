"""Models exported in portable mode against the PyTorch models that they were: bit for bit in ONNX
Runtime; and the pattern of nodes that a layer becomes (docs/onnx.md)."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pytest
import pytfmbs
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

pytest.importorskip("onnx")

from onnx import numpy_helper
from onnx_models import QUANTIZERS, TORCH_WARNINGS, Float32Ends, assert_same, checked, export, run
from pytfmbs.onnx import metadata

pytestmark = TORCH_WARNINGS


@cases.campaign(40)
@given(
    lead=st.lists(st.integers(1, 4), max_size=3),
    depth=st.integers(1, 70),
    outputs=st.integers(1, 40),
    dtype=st.sampled_from(cases.DTYPES),
    quantizer=st.sampled_from(QUANTIZERS),
    activation=st.sampled_from(cases.ACTIVATIONS),
    bias=st.booleans(),
    training=st.booleans(),
    how=st.sampled_from(("own", "torch", "program")),
    spoiled=st.sampled_from((None, float("nan"), float("inf"), float("-inf"))),
    nan_weight=st.booleans(),
    magnitude=st.sampled_from((1e-12, 1e-3, 1.0, 1e4)),
    seed=st.integers(0, 10**6),
)
def test_portable_gives_the_models_bits(
    lead: list[int],
    depth: int,
    outputs: int,
    dtype: torch.dtype,
    quantizer: Any,
    activation: str,
    bias: bool,
    training: bool,
    how: str,
    spoiled: float | None,
    nan_weight: bool,
    magnitude: float,
    seed: int,
) -> None:
    rng = cases.generator(seed)
    layer = pytfmbs.TFMBSLinear(
        depth,
        outputs,
        bias=bias,
        dtype=dtype,
        weight_quantizer=quantizer,
        activation=activation,
    )
    with torch.no_grad():
        layer.weight.copy_(cases.tensor(rng, (outputs, depth), dtype))
        if nan_weight:
            layer.weight[rng.integers(outputs), rng.integers(depth)] = float("nan")
    model: nn.Module = layer if dtype != torch.bfloat16 else Float32Ends(layer, dtype)
    model.train(training)
    outer = torch.float32 if dtype == torch.bfloat16 else dtype
    x = cases.sparse(rng, cases.tensor(rng, (*lead, depth), outer) * magnitude, 0.2)
    if spoiled is not None:
        x.view(-1)[rng.integers(x.numel())] = spoiled
    proto = checked(export(model, x, how))
    assert {node.domain for node in proto.graph.node} == {""}
    assert_same(run(proto, x), model, x)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("how", ["own", "torch", "program"])
def test_batch_dimensions_vary_at_run_time(activation: str, how: str) -> None:
    layer = pytfmbs.TFMBSLinear(33, 7, activation=activation, weight_quantizer="absmean").eval()
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    rng = cases.generator(1)
    program = export(
        layer, cases.tensor(rng, (2, 3, 33), torch.float32), how, dynamic_shapes=(dims,)
    )
    proto = checked(program)
    for lead in ((1, 1), (5, 1), (1, 64), (7, 9), (0, 3)):
        x = cases.tensor(rng, (*lead, 33), torch.float32)
        assert_same(run(proto, x), layer, x)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("depth", [1023, 4096, 40_000])
def test_product_is_exact_where_sums_are_largest(activation: str, depth: int) -> None:
    layer = pytfmbs.TFMBSLinear(depth, 5, bias=False, activation=activation).eval()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[1].fill_(-1.0)
        layer.weight[2, ::2] = -1.0
    x = torch.ones(3, depth)
    x[1] = -1.0
    x[2, ::2] = -1.0
    found = run(checked(export(layer, x)), x)
    assert_same(found, layer, x)
    assert found[0, 0] == depth  # every product 1, or 127 · 1/127


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_int8_rounds_as_the_layer_does(dtype: torch.dtype) -> None:
    """Activations next to the ties of their rows, where the order of the operations decides."""
    rng = cases.generator(10)
    largest = torch.from_numpy(rng.random((32, 1)) + 0.01).to(dtype)
    steps = torch.arange(-127, 127, dtype=dtype) + 0.5
    x = torch.cat([largest, largest * steps / 127], dim=1)
    layer = pytfmbs.TFMBSLinear(255, 60, dtype=dtype, activation="int8").eval()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.integers(-1, 2, (60, 255))))
    assert_same(run(checked(export(layer, x)), x), layer, x)


TERNARY = ["IsNaN", "Cast", "ReduceMax", "Cast", "Where", "Sign", "Cast"]
INT8 = [
    *("IsNaN", "IsInf", "Or", "Cast", "ReduceMax", "Cast", "Where"),
    *("Abs", "ReduceMax", "Max", "Div", "Div", "Mul", "Round", "Clip", "Cast"),
]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("activation", "quantizer", "bias", "chains"),
    [
        ("ternary", "sign", True, (TERNARY, ["Where", "Cast", "Mul", "Add"])),
        ("ternary", "twn", False, (TERNARY, ["Where", "Cast", "Mul"])),
        ("int8", "sign", True, (INT8, ["Where", "Cast", "Mul", "Add"])),
        ("int8", "twn", True, (INT8, ["Mul", "Where", "Cast", "Mul", "Add"])),
    ],
)
def test_portable_pattern(
    activation: str, quantizer: str, bias: bool, chains: tuple[list[str], ...], optimize: bool
) -> None:
    layer = pytfmbs.TFMBSLinear(
        11, 6, bias, name="shape", activation=activation, weight_quantizer=quantizer
    ).eval()
    proto = checked(export(layer, torch.randn(2, 11), optimize=optimize))
    nodes = list(proto.graph.node)
    roles = {
        role: [n.op_type for n in nodes if metadata.role(n) == role]
        for role in (metadata.QUANTIZE, metadata.PRODUCT, metadata.DEQUANTIZE)
    }
    assert roles == {"quantize": chains[0], "product": ["MatMulInteger"], "dequantize": chains[1]}
    assert all(metadata.layer(n) == layer.name for n in nodes)  # "shape", or with a suffix
    (product,) = [n for n in nodes if metadata.role(n) == metadata.PRODUCT]
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    trits = constants[product.input[1]]
    assert trits.dtype == np.int8
    np.testing.assert_array_equal(trits, layer.quantized_weight()[0].numpy().T)
