"""QuantizeLinear and DequantizeLinear: by tensor, by axis, by block."""

from __future__ import annotations

import numpy as np
import onnx

from ...emission.scalars import Body, Scalar
from ...emission.structure import axis_of, part, reshape
from ...emission.types import F32, I32, U8, ElementType, Value, constant, from_onnx
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from .operands import Handler, Inputs, optional, required


def _dequantize(context: Context, node: Node, inputs: Inputs) -> Value:
    """(x - zero point) · scale, in the scale's type."""
    x, scale, zero = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    if x.element.is_float or x.element.bits > 32 or not scale.element.is_float:
        raise context.unsupported(
            node, f"it takes {x.element.name} with scales of {scale.element.name}"
        )
    if zero is not None and zero.element != x.element:
        raise ConversionError(f"the zero point is of {zero.element.name}, not {x.element.name}")
    target = _named_type(node, scale.element)
    work = scale.element.compute
    scales = _spread(context, node, scale, x)
    zeros = None if zero is None else _spread(context, node, zero, x)

    def body(block: Body, v: list[Scalar]) -> Scalar:
        value = block.cast(v[0], I32)
        if zeros is not None:
            value = block.sub(value, block.cast(v[2], I32))
        return block.cast(block.mul(block.cast(value, work), block.cast(v[1], work)), target)

    return context.emit.elementwise([x, scales, *([zeros] if zeros else [])], target, body)


def _quantize(context: Context, node: Node, inputs: Inputs) -> Value:
    """round(x / scale) + zero point, held within the result's type."""
    x, scale, zero = required(inputs, 0), required(inputs, 1), optional(inputs, 2)
    target = _named_type(node, U8) if zero is None else zero.element
    if target.kind not in ("signed", "unsigned") or target.bits > 16:
        raise context.unsupported(
            node, f"its result is of {target.name}, not 8- or 16-bit integers"
        )
    if node.integer("precision", 0) not in (0, onnx.TensorProto.FLOAT):
        raise context.unsupported(node, "its precision is not float")
    scales = _spread(context, node, scale, x)
    zeros = (
        constant(np.zeros((), target.numpy)) if zero is None else _spread(context, node, zero, x)
    )
    limits = np.iinfo(target.numpy)

    def body(block: Body, v: list[Scalar]) -> Scalar:
        value = block.op("math.roundeven", block.div(block.cast(v[0], F32), block.cast(v[1], F32)))
        value = block.add(value, block.cast(v[2], F32))
        held = block.min(
            block.max(value, block.like(limits.min, value)), block.like(limits.max, value)
        )
        held = block.select(block.is_nan(value), block.like(0, value), held)
        return block.cast(block.cast(held, I32), target)

    return context.emit.elementwise([x, scales, zeros], target, body)


def _named_type(node: Node, default: ElementType) -> ElementType:
    number = node.integer("output_dtype", 0)
    return from_onnx(number, "attribute output_dtype") if number else default


def _spread(context: Context, node: Node, value: Value, x: Value) -> Value:
    """A scale or zero point as it broadcasts to x."""
    emit, block = context.emit, node.integer("block_size", 0)
    if value.rank == 0 or value.extents == (1,):
        return reshape(emit, value, ())
    axis = axis_of(node.integer("axis", 1), x.rank)
    if not block:
        if value.rank != 1:
            raise ConversionError(f"scale or zero point {value.shape} does not fit {x.shape}")
        emit.same_extents(value.extents, (x.extents[axis],))
        return reshape(emit, value, (*value.extents, *[1] * (x.rank - axis - 1)))
    if value.rank != x.rank:
        raise ConversionError(f"scale or zero point {value.shape} does not fit {x.shape}")
    count = value.extents[axis]
    split = [*value.extents[: axis + 1], 1, *value.extents[axis + 1 :]]
    wide = [*value.extents[: axis + 1], block, *value.extents[axis + 1 :]]
    spread = emit.elementwise([reshape(emit, value, split)], value.element, lambda _, v: v[0], wide)
    extents = list(value.extents)
    extents[axis] = emit.extent("mul", count, block)
    spread = reshape(emit, spread, extents)
    if extents[axis] != x.extents[axis]:  # the last block is cut
        emit.requires.at_least(emit.extent("sub", extents[axis], x.extents[axis]), 0)
        extents[axis] = x.extents[axis]
        spread = part(emit, spread, [0] * x.rank, extents, [1] * x.rank)
    return spread


OPERATORS: dict[tuple[str, str], Handler] = {
    ("", "QuantizeLinear"): _quantize,
    ("", "DequantizeLinear"): _dequantize,
}
