"""Metadata of nodes, the operator's schema, and pytfmbs without onnx."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
ir = pytest.importorskip("onnx_ir")

from onnx import TensorProto, helper  # noqa: E402
from pytfmbs.onnx import metadata, schema  # noqa: E402

HINT = {
    "layer": "fc1",
    "sparsity": 0.3333,
    "tile_mask": (1 << 64) - 1,
    "weight_addr": 0x2040,
    "weight_quantizer": "absmean",
    "activation": "int8",
    "in_features": 8,
    "out_features": 6,
}


def proto_node(**attributes: Any) -> Any:
    given = {
        "in_features": 8,
        "out_features": 6,
        "activation": "int8",
        "weight_quantizer": "sign",
        "layer": "fc1",
        "sparsity": 0.0,
        "tile_mask": 1,
    }
    given |= attributes
    given = {key: value for key, value in given.items() if value is not None}
    inputs = ["x", "w", "s", "b"]
    return helper.make_node("TernaryLinear", inputs, ["y"], domain="pytfmbs", **given)


def ir_node() -> Any:
    return ir.Node("pytfmbs", "TernaryLinear", inputs=[], num_outputs=1)


@pytest.mark.parametrize("make", [proto_node, ir_node])
@pytest.mark.parametrize("address", [0x2040, 0, None])
def test_what_is_written_is_read(make: Callable[[], Any], address: int | None) -> None:
    node, hint = make(), HINT | {"weight_addr": address}
    assert metadata.read(node) is None
    metadata.write(node, HINT | {"layer": "older"})
    metadata.write(node, hint | {"resident": True})
    assert metadata.read(node) == hint
    assert metadata.layer(node) == "fc1"
    assert metadata.role(node) is None
    metadata.write_key(node, metadata.ROLE, metadata.PRODUCT)
    metadata.write_key(node, metadata.ROLE, metadata.DEQUANTIZE)
    assert metadata.role(node) == "dequantize"
    assert metadata.read(node) == hint


def test_keys_are_the_contracts() -> None:
    assert metadata.encode(HINT | {"sparsity": 1 / 3}) == {
        "pytfmbs.layer": "fc1",
        "pytfmbs.sparsity": "0.3333",
        "pytfmbs.tile_mask": "18446744073709551615",
        "pytfmbs.weight_addr": "8256",
        "pytfmbs.weight_quantizer": "absmean",
        "pytfmbs.activation": "int8",
        "pytfmbs.in_features": "8",
        "pytfmbs.out_features": "6",
    }


def test_a_name_and_a_role_alone_are_no_hint() -> None:
    assert metadata.decode({metadata.LAYER: "fc1", metadata.ROLE: "quantize"}) is None
    assert metadata.decode({"namespace": "fc1"}) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (metadata.LAYER, "", "pytfmbs.layer is missing"),
        (metadata.SPARSITY, None, "pytfmbs.sparsity is missing"),
        (metadata.SPARSITY, "0.33", "'0.33'; it must be 0.0000 to 1.0000, four decimals"),
        (metadata.SPARSITY, "1.0001", "'1.0001'; it must be"),
        (metadata.SPARSITY, "nan", "'nan'; it must be"),
        (metadata.TILE_MASK, "0", "'0'; it must be an integer of 1 to 18446744073709551615"),
        (metadata.TILE_MASK, str(1 << 64), "it must be an integer"),
        (metadata.TILE_MASK, "9" * 5000, "it must be an integer"),
        (metadata.TILE_MASK, "٣", "it must be an integer"),
        (metadata.TILE_MASK, "-1", "'-1'; it must be an integer"),
        (metadata.WEIGHT_ADDR, "0x10", "'0x10'; it must be an integer of 0"),
        (metadata.IN_FEATURES, "0", "'0'; it must be an integer of 1"),
        (metadata.OUT_FEATURES, "6.0", "'6.0'; it must be an integer of 1"),
        (metadata.ACTIVATION, None, "pytfmbs.activation is missing"),
    ],
)
def test_malformed_hints(key: str, value: str | None, message: str) -> None:
    props = metadata.encode(HINT)
    if value is None:
        del props[key]
    else:
        props[key] = value
    with pytest.raises(ValueError, match=message) as raised:
        metadata.decode(props, "node 'n'")
    assert str(raised.value).startswith("node 'n': metadata pytfmbs.")


# --- schema ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [1, 1 << 62, 1 << 63, (1 << 64) - 1])
def test_masks_as_signed_integers(mask: int) -> None:
    signed = schema.signed_mask(mask)
    assert -(1 << 63) <= signed < 1 << 63
    assert schema.unsigned_mask(signed) == mask
    for wrong in (-1, 1 << 64):
        with pytest.raises(ValueError, match="64 bits"):
            schema.signed_mask(wrong)
        with pytest.raises(ValueError, match="64 bits"):
            schema.unsigned_mask(wrong * (1 << 64))


def model(
    node: Any,
    x: tuple[Any, ...] | None = ("n", 8),
    weights: int = 10,
    scale: int = 1,
    bias: int = 6,
    types: tuple[int, int, int] = (TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT),
) -> Any:
    inputs = [
        helper.make_tensor_value_info("x", types[0], x),
        helper.make_tensor_value_info("w", types[1], [weights]),
        helper.make_tensor_value_info("s", types[2], [scale]),
        helper.make_tensor_value_info("b", types[0], [bias]),
    ]
    shape = None if x is None else (*x[:-1], 6)
    output = helper.make_tensor_value_info("y", types[0], shape)
    graph = helper.make_graph([node], "g", inputs, [output])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(schema.DOMAIN, schema.VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("scale", [1, 6])
@pytest.mark.parametrize("x", [(8,), ("n", 8), (2, "t", 8), (1, 2, 3, 8)])
@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16]
)
def test_schema_infers_the_output(scale: int, x: tuple[Any, ...], kind: int) -> None:
    given = model(proto_node(), x, scale=scale, types=(kind, TensorProto.UINT8, TensorProto.FLOAT))
    onnx.checker.check_model(given, full_check=True)
    given.graph.output[0].type.Clear()
    inferred = onnx.shape_inference.infer_shapes(given, strict_mode=True)
    found = inferred.graph.output[0].type.tensor_type
    assert found.elem_type == kind
    assert [d.dim_param or d.dim_value for d in found.shape.dim] == [*x[:-1], 6]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (model(proto_node(), (2, 9)), r"X is of shape \[2, 9\]; its last dimension must be .* 8"),
        (model(proto_node(), weights=9), r"weights is of shape \[9\]; it must be \[10\]"),
        (model(proto_node(), scale=2), r"scale is of shape \[2\]; it must be \[1\] or \[6\]"),
        (model(proto_node(), bias=7), r"bias is of shape \[7\]; it must be \[6\]"),
        (model(proto_node(in_features=0)), "in_features must be an integer of at least 1"),
        (model(proto_node(in_features=-8)), "in_features must be an integer of at least 1"),
        (model(proto_node(activation="fp8")), "activation must be one of 'ternary', 'int8'"),
        (model(proto_node(tile_mask=None)), "tile_mask"),
        (model(proto_node(colour="red")), "colour"),
        (
            model(proto_node(), types=(TensorProto.INT32, TensorProto.UINT8, TensorProto.FLOAT)),
            "int32",
        ),
    ],
)
def test_schema_refuses(given: Any, message: str) -> None:
    with pytest.raises(
        (onnx.checker.ValidationError, onnx.shape_inference.InferenceError), match=message
    ):
        onnx.checker.check_model(given, full_check=True)


def test_registering_twice_is_once() -> None:
    schema.register()
    schema.register()
    assert onnx.defs.get_schema("TernaryLinear", 1, "pytfmbs").since_version == 1


# --- without onnx ---------------------------------------------------------------------------------


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def test_pytfmbs_does_not_import_onnx() -> None:
    code = "import sys, pytfmbs; print([m for m in sys.modules if m.split('.')[0] == 'onnx'])"
    assert python(code) == "[]\n"


def test_without_onnx_the_error_says_what_to_install() -> None:
    code = """
import sys
sys.modules["onnx"] = None
try:
    import pytfmbs.onnx
except ImportError as error:
    print(error)
"""
    assert "pip install onnx onnxscript" in python(code)


def test_the_registered_schema_does_not_outlive_the_interpreter() -> None:
    assert python("import pytfmbs.onnx.schema as s; print(s.OP_TYPE)") == "TernaryLinear\n"
