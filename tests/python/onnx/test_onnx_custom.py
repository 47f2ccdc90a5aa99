"""Layers exported as the custom operator: its numbers, by an evaluator of its definition, and its
attributes."""

from __future__ import annotations

from typing import Any

import cases
import pytest
import pytfmbs
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")

import onnx
from onnx_models import QUANTIZERS, TORCH_WARNINGS, assert_same, checked, evaluate, export
from pytfmbs.onnx import schema

pytestmark = TORCH_WARNINGS


@cases.campaign(15)
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    depth=st.integers(1, 50),
    outputs=st.integers(1, 30),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    quantizer=st.sampled_from(QUANTIZERS),
    activation=st.sampled_from(cases.ACTIVATIONS),
    bias=st.booleans(),
    how=st.sampled_from(("own", "torch", "program")),
    nan_weight=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_custom_holds_the_model(
    lead: list[int],
    depth: int,
    outputs: int,
    dtype: torch.dtype,
    quantizer: Any,
    activation: str,
    bias: bool,
    how: str,
    nan_weight: bool,
    seed: int,
) -> None:
    rng = cases.generator(seed)
    layer = pytfmbs.TFMBSLinear(
        depth, outputs, bias, dtype=dtype, weight_quantizer=quantizer, activation=activation
    ).eval()
    with torch.no_grad():
        if nan_weight:
            layer.weight[rng.integers(outputs), rng.integers(depth)] = float("nan")
    x = cases.tensor(rng, (*lead, depth), dtype)
    proto = checked(export(layer, x, how, mode="custom"))
    assert [node.op_type for node in proto.graph.node] == ["TernaryLinear"]
    assert_same(evaluate(proto, x), layer, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_custom_takes_16_bit_floats_as_they_are(dtype: torch.dtype) -> None:
    layer = pytfmbs.TFMBSLinear(8, 3, dtype=dtype).eval()
    proto = checked(export(layer, torch.ones(2, 8, dtype=dtype), mode="custom"))
    assert [node.op_type for node in proto.graph.node] == ["TernaryLinear"]


def test_custom_node_says_what_the_layer_is() -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig(tiles=64))
    layer = pytfmbs.TFMBSLinear(
        20, 9, name="fc·1", fabric=fabric, tile_mask=(1 << 63) | 5, weight_addr=0x2040
    ).eval()
    proto = checked(export(layer, torch.ones(1, 20), mode="custom"))
    (node,) = proto.graph.node
    given_attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert schema.unsigned_mask(given_attributes.pop("tile_mask")) == (1 << 63) | 5
    assert given_attributes == {
        "in_features": 20,
        "out_features": 9,
        "activation": b"ternary",
        "weight_quantizer": b"sign",
        "layer": "fc·1".encode(),
        "sparsity": 0.0,
        "weight_addr": 0x2040,
    }
    assert {o.domain: o.version for o in proto.opset_import}["pytfmbs"] == 1
