"""Operators that move no element, or make tensors of sizes."""

from __future__ import annotations

import math

import numpy as np

from ...emission.scalars import Body, Scalar
from ...emission.structure import axes_of, axis_of, insert, reshape, solve_reshape, transpose
from ...emission.types import (
    BOOL,
    F32,
    F64,
    I32,
    I64,
    Array,
    Extent,
    Value,
    constant,
    extents_of,
    fits,
    from_numpy,
)
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from . import operands
from .operands import Handler, Inputs, required, scalar

_LARGEST_CONSTANT = 2**28  # elements


def sizes_from(context: Context, node: Node, value: Value, what: str) -> tuple[Extent, ...]:
    """The elements of a shape tensor, numbers or run-time extents."""
    sizes = extents_of(value)
    if sizes is None:
        raise context.unsupported(
            node, f"{what} is computed from the data; it must follow from the inputs' shapes"
        )
    return sizes


def _identity(context: Context, node: Node, inputs: Inputs) -> Value:
    return required(inputs, 0)


def _dropout(context: Context, node: Node, inputs: Inputs) -> list[Value | None]:
    x = required(inputs, 0)
    mode = operands.optional(inputs, 2)
    if mode is not None and scalar(context, node, mode, "training_mode"):
        raise context.unsupported(node, "it is in training mode; export the model in eval mode")
    wanted = len(node.outputs) > 1 and node.outputs[1]
    return [x, context.emit.filled(x.extents, True, BOOL) if wanted else None]


def _flatten(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    axis = node.integer("axis", 1)
    if not -x.rank <= axis <= x.rank:
        raise ConversionError(f"axis is {axis}; a tensor of rank {x.rank} has up to {x.rank}")
    axis = axis + x.rank if axis < 0 else axis
    emit = context.emit
    return reshape(emit, x, (emit.product(x.extents[:axis]), emit.product(x.extents[axis:])))


def _reshape(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    if len(inputs) > 1:
        wanted = sizes_from(context, node, required(inputs, 1), "the target shape")
    else:  # opset 1
        wanted = tuple(node.integers("shape"))
    if not node.flag("allowzero", False):
        if any(size == 0 and place >= x.rank for place, size in enumerate(wanted)):
            raise ConversionError(
                f"target shape {list(wanted)} copies a dimension that {x.shape} lacks"
            )
        wanted = tuple(x.extents[i] if size == 0 else size for i, size in enumerate(wanted))
    elif 0 in wanted and -1 in wanted:
        raise ConversionError(f"target shape {list(wanted)} has 0 and -1 with allowzero")
    return reshape(context.emit, x, solve_reshape(context.emit, x.extents, wanted))


def _squeeze(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    given = operands.axes(context, node, inputs, 1)
    if given is None:
        if any(isinstance(size, str) for size in x.extents):
            raise context.unsupported(node, "it names no axes, and not every size is known")
        axes = tuple(place for place, size in enumerate(x.extents) if size == 1)
    else:
        axes = axes_of(given, x.rank)
    if any(isinstance(x.extents[axis], int) and x.extents[axis] != 1 for axis in axes):
        raise ConversionError(f"axes {list(axes)} of {x.shape} are not of size 1")
    ones = tuple(1 if i in axes else size for i, size in enumerate(x.extents))
    kept = tuple(size for i, size in enumerate(x.extents) if i not in axes)
    return reshape(context.emit, context.emit.cast_extents(x, ones), kept)


def _unsqueeze(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    given = operands.axes(context, node, inputs, 1)
    if given is None:
        raise ConversionError("it names no axes")
    axes = axes_of(given, x.rank + len(given))
    sizes = iter(x.extents)
    wanted = [1 if i in axes else next(sizes) for i in range(x.rank + len(axes))]
    return reshape(context.emit, x, wanted)


def _transpose(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    order = node.integers("perm", list(reversed(range(x.rank))))
    if sorted(order) != list(range(x.rank)):
        raise ConversionError(f"perm is {order}; it must order the dimensions of {x.shape}")
    return transpose(context.emit, x, order)


def _constant(context: Context, node: Node, inputs: Inputs) -> Value:
    return constant(_constant_array(context, node), "the constant")


def _constant_array(context: Context, node: Node) -> Array:
    if node.has("value"):
        return node.tensor("value")
    if node.has("value_float"):
        return np.array(node.number("value_float"), np.float32)
    if node.has("value_floats"):
        return np.array(node.numbers("value_floats"), np.float32)
    if node.has("value_int"):
        return np.array(node.integer("value_int"), np.int64)
    if node.has("value_ints"):
        return np.array(node.integers("value_ints"), np.int64)
    raise context.unsupported(node, "it is a string, a sparse tensor, or has no value")


def _constant_of_shape(context: Context, node: Node, inputs: Inputs) -> Value:
    sizes = sizes_from(context, node, required(inputs, 0), "the shape")
    filler = node.tensor("value") if node.has("value") else np.zeros(1, np.float32)
    if filler.size != 1:
        raise ConversionError(f"attribute value has {filler.size} elements; it must have 1")
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise ConversionError(f"shape {list(sizes)} has a negative size")
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes) and math.prod(known) <= _LARGEST_CONSTANT:
        return constant(np.full(known, filler.reshape(-1)[0], filler.dtype), "attribute value")
    element = from_numpy(filler.dtype, "attribute value")
    return context.emit.filled(sizes, filler.reshape(-1)[0], element)


def _shape(context: Context, node: Node, inputs: Inputs) -> Value:
    extents = required(inputs, 0).extents
    rank = len(extents)
    start, end = node.integer("start", 0), node.integer("end", rank)
    start, end = (min(max(v + rank if v < 0 else v, 0), rank) for v in (start, end))
    return sizes_value(extents[start:end])


def sizes_value(extents: tuple[Extent, ...]) -> Value:
    """A vector of sizes, constant where all are known."""
    known = [extent for extent in extents if isinstance(extent, int)]
    if len(known) == len(extents):
        return constant(np.array(known, np.int64))
    return Value(I64, (len(extents),), elements=extents)


def _size(context: Context, node: Node, inputs: Inputs) -> Value:
    product = context.emit.product(required(inputs, 0).extents)
    if isinstance(product, int):
        return constant(np.array(product, np.int64))
    return Value(I64, (), elements=(product,))


def _expand(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    sizes = sizes_from(context, node, required(inputs, 1), "the target shape")
    if any(isinstance(size, int) and size < 0 for size in sizes):
        raise ConversionError(f"target shape {list(sizes)} has a negative size")
    emit = context.emit
    if emit.broadcast([x.extents, sizes]) == x.extents:
        return x
    return emit.elementwise([x], x.element, lambda _, a: a[0], sizes)


def _range(context: Context, node: Node, inputs: Inputs) -> Value:
    """start, start + step, … below the limit, where the inputs' shapes say how many."""
    operands.same_element([required(inputs, place) for place in range(3)])
    element = required(inputs, 0).element
    start, limit, step = (
        _whole(context, node, required(inputs, place), place) for place in range(3)
    )
    if not isinstance(step, int):
        raise context.unsupported(node, "its step is computed by the model; it must be a constant")
    if step == 0:
        raise ConversionError("the step is 0")
    emit = context.emit
    way = emit.extent("sub", limit, start) if step > 0 else emit.extent("sub", start, limit)
    length = emit.extent("ceildiv", emit.extent("max", way, 0), abs(step))

    def body(block: Body, v: list[Scalar]) -> list[Scalar]:
        place = block.cast(block.number(block.index(0)), element)
        return [block.add(v[0], block.mul(place, v[1]))]

    init = Value(element, (length,), ssa=emit.empty((length,), element.mlir))
    numbers = [(required(inputs, place), ()) for place in (0, 2)]
    return emit.loops(["parallel"], numbers, [(init, (0,))], body)[0]


_RANGE_INPUTS = ("start", "limit", "step")


def _whole(context: Context, node: Node, value: Value, place: int) -> Extent:
    """An input of Range as a whole number that is known or follows from sizes."""
    if value.rank != 0:
        raise ConversionError(f"its {_RANGE_INPUTS[place]} is {value.shape}; it must be a scalar")
    maker = context.graph.producer(node.inputs[place])
    # A Cast of a size to a type that holds every size that a tensor has in practice.
    if maker is not None and maker.op_type == "Cast" and value.element in (F32, F64, I32, I64):
        value = context.find(maker.inputs[0]) or value
    if value.constant is not None and float(value.constant).is_integer():
        return int(value.constant)
    return sizes_from(context, node, value, f"its {_RANGE_INPUTS[place]}")[0]


def _concat(context: Context, node: Node, inputs: Inputs) -> Value:
    parts = [required(inputs, place) for place in range(len(inputs))]
    operands.same_element(parts)
    first = parts[0]
    axis = axis_of(node.integer("axis", 1 if context.graph.opset("") < 4 else None), first.rank)
    emit = context.emit
    total: Extent = 0
    starts: list[Extent] = []
    for value in parts:
        others = [v.extents[:axis] + v.extents[axis + 1 :] for v in (value, first)]
        if value.rank != first.rank or not fits(*others):
            raise ConversionError(
                f"{first.shape} and {value.shape} cannot be joined on axis {axis}"
            )
        emit.same_extents(*others)
        starts.append(total)
        total = emit.extent("add", total, value.extents[axis])
    extents = tuple(total if i == axis else size for i, size in enumerate(first.extents))
    result = Value(first.element, extents, ssa=emit.empty(extents, first.element.mlir))
    for value, start in zip(parts, starts, strict=True):
        if 0 in value.extents:
            continue
        offsets = [start if i == axis else 0 for i in range(first.rank)]
        sizes = [value.extents[axis] if i == axis else s for i, s in enumerate(extents)]
        result = insert(emit, emit.cast_extents(value, sizes), result, offsets)
    return result


OPERATORS: dict[tuple[str, str], Handler] = {
    ("", "Identity"): _identity,
    ("", "Dropout"): _dropout,
    ("", "Flatten"): _flatten,
    ("", "Reshape"): _reshape,
    ("", "Squeeze"): _squeeze,
    ("", "Unsqueeze"): _unsqueeze,
    ("", "Transpose"): _transpose,
    ("", "Constant"): _constant,
    ("", "ConstantOfShape"): _constant_of_shape,
    ("", "Shape"): _shape,
    ("", "Size"): _size,
    ("", "Expand"): _expand,
    ("", "Range"): _range,
    ("", "Concat"): _concat,
}
