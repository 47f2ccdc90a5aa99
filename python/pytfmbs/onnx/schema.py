"""The project's own ONNX operator: pytfmbs.TernaryLinear, version 1 (docs/onnx.md).

Importing this module registers the schema with onnx, so that ``onnx.checker`` and
``onnx.shape_inference`` know the operator.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import defs

from ..quantization.activations import ACTIVATIONS

DOMAIN = "pytfmbs"
VERSION = 1
OP_TYPE = "TernaryLinear"

TRITS_PER_BYTE = 5  # PT-5, docs/format.md
AUTOMATIC_ADDRESS = -1  # weight_addr of a layer that the device places

_DOC = """A linear layer with ternary weights: Y = dtype(float(Q * T') * (s_x * scale) + bias).

Q are X's values quantized by rows (`activation`), s_x their scales, T the trits of `weights`. The
product is exact in int32; each operation after it is rounded once, in float (double where X is
double). A NaN of X makes its row NaN, so does an infinity with "int8"; a NaN scale makes its column
NaN.
"""


def packed_size(in_features: int, out_features: int) -> int:
    """Bytes of a layer's PT-5 stream."""
    return -(-in_features * out_features // TRITS_PER_BYTE)


def signed_mask(mask: int) -> int:
    """A tile mask's 64 bits as ONNX's signed integer."""
    if not 0 <= mask < 1 << 64:
        raise ValueError(f"tile mask is {mask}; it must be of 64 bits")
    return mask - (1 << 64) if mask >= 1 << 63 else mask


def unsigned_mask(value: int) -> int:
    """The inverse of signed_mask."""
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"tile mask is {value}; it must be a signed integer of 64 bits")
    return value % (1 << 64)


def _static_shape(tensor: onnx.TypeProto) -> list[int | None] | None:
    """Sizes, None where one is not known; None where the rank is not."""
    if not tensor.tensor_type.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else None for d in tensor.tensor_type.shape.dim]


def _fail(message: str) -> None:
    raise onnx.shape_inference.InferenceError(f"{OP_TYPE}: {message}")


def _check_size(
    context: Any, index: int, name: str, allowed: tuple[int, ...], rank: int = 1
) -> None:
    shape = _static_shape(context.get_input_type(index))
    if shape is None:
        return
    if len(shape) != rank or (shape[-1] is not None and shape[-1] not in allowed):
        sizes = " or ".join(f"[{size}]" for size in allowed)
        _fail(f"{name} is of shape {shape}; it must be {sizes}")


def _infer(context: Any) -> None:
    """Y's type and shape; InferenceError where the operands do not fit the attributes."""
    sizes = {}
    for name in ("in_features", "out_features"):
        attribute = context.get_attribute(name)
        if attribute is None or attribute.i < 1:
            _fail(f"{name} must be an integer of at least 1")
        sizes[name] = attribute.i
    inputs, outputs = sizes["in_features"], sizes["out_features"]
    activation = context.get_attribute("activation")
    if activation is None or activation.s.decode() not in ACTIVATIONS:
        _fail(f"activation must be one of {', '.join(map(repr, ACTIVATIONS))}")
    _check_size(context, 1, "weights", (packed_size(inputs, outputs),))
    _check_size(context, 2, "scale", (1, outputs))
    if context.get_num_inputs() > 3 and context.has_input(3):
        _check_size(context, 3, "bias", (outputs,))

    source = context.get_input_type(0)
    result = onnx.TypeProto()
    result.tensor_type.elem_type = source.tensor_type.elem_type
    shape = _static_shape(source)
    if shape is not None:
        if not shape or shape[-1] not in (None, inputs):
            _fail(f"X is of shape {shape}; its last dimension must be in_features, {inputs}")
        result.tensor_type.shape.CopyFrom(source.tensor_type.shape)
        last = result.tensor_type.shape.dim[-1]
        last.Clear()
        last.dim_value = outputs
    context.set_output_type(0, result)


def _make() -> defs.OpSchema:
    formal, attribute = defs.OpSchema.FormalParameter, defs.OpSchema.Attribute
    kinds, option = defs.OpSchema.AttrType, defs.OpSchema.FormalParameterOption
    schema = defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        VERSION,
        _DOC,
        inputs=[
            formal("X", "T", "Activations, [..., in_features]."),
            formal(
                "weights",
                "W",
                "Trits, [out_features, in_features] in row-major order, as PT-5: five a byte.",
            ),
            formal("scale", "S", "Output scale, [1] or [out_features]."),
            formal("bias", "T", "[out_features].", param_option=option.Optional),
        ],
        outputs=[formal("Y", "T", "[..., out_features].")],
        type_constraints=[
            ("T", [f"tensor({t})" for t in ("float", "double", "float16", "bfloat16")], "floats"),
            ("W", ["tensor(uint8)"], "bytes of PT-5"),
            ("S", ["tensor(float)", "tensor(double)"], "scales; double where X is"),
        ],
        attributes=[
            attribute("in_features", kinds.INT, "Columns of the weight matrix."),
            attribute("out_features", kinds.INT, "Rows of the weight matrix."),
            attribute("activation", kinds.STRING, "How X is quantized: ternary or int8."),
            attribute("weight_quantizer", kinds.STRING, "How the weights were quantized."),
            attribute("layer", kinds.STRING, "Name in telemetry."),
            attribute("sparsity", kinds.FLOAT, "Zeros among the trits, 0 to 1."),
            attribute("tile_mask", kinds.INT, "Tiles to run on, bit t for tile t; 64 bits."),
            attribute(
                "weight_addr",
                onnx.helper.make_attribute("weight_addr", AUTOMATIC_ADDRESS),
                "Byte address in tile 0's Bank A; -1: automatic.",
            ),
        ],
    )
    schema.set_type_and_shape_inference_function(_infer)
    return schema


def register() -> None:
    """Registers the schema with onnx, if it is not there."""
    if not defs.has(OP_TYPE, VERSION, DOMAIN):
        defs.register_schema(_make())


register()
