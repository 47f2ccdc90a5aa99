"""Parts of tensors: Slice, Split, Gather and its kin, Pad, Tile, Trilu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ...emission.emitter import BodyFunction, Emitter, Operand
from ...emission.scalars import Body, Predicate, Scalar
from ...emission.structure import Inside, axes_of, axis_of, every, gather, insert, part, reshape
from ...emission.types import I64, Extent, Value, constant
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from . import operands
from .operands import Handler, Inputs, optional, required
from .shape import sizes_from


def _slice(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    if len(inputs) > 1:
        starts = sizes_from(context, node, required(inputs, 1), "the list of starts")
        ends = sizes_from(context, node, required(inputs, 2), "the list of ends")
    else:  # before opset 10
        starts, ends = tuple(node.integers("starts")), tuple(node.integers("ends"))
    given = operands.axes(context, node, inputs, 3)
    axes = [axis_of(a, x.rank, "an axis") for a in (range(len(starts)) if given is None else given)]
    given_steps = optional(inputs, 4)
    steps = (
        [1] * len(starts)
        if given_steps is None
        else operands.integers(context, node, given_steps, "the list of steps")
    )
    if not len(starts) == len(ends) == len(axes) == len(steps) or len(set(axes)) < len(axes):
        raise ConversionError("starts, ends, axes and steps must be as many, and axes different")
    emit = context.emit
    offsets: list[Extent] = [0] * x.rank
    extents, strides = list(x.extents), [1] * x.rank
    backward: list[tuple[int, Extent, Extent, int]] = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.extents[axis]
        if step == 0:
            raise ConversionError("a step is 0")
        if step < 0:
            first = _from_behind(emit, start, size, 0)
            length = emit.extent("sub", first, _from_behind(emit, end, size, -1))
            length = emit.extent("ceildiv", emit.extent("max", length, 0), -step)
            backward.append((axis, first, length, step))
            continue
        offsets[axis] = _inside(emit, start, size)
        length = emit.extent("sub", _inside(emit, end, size), offsets[axis])
        length = emit.extent("max", length, 0)
        extents[axis] = emit.extent("ceildiv", length, step)
        strides[axis] = step
    result = (
        x
        if extents == list(x.extents) and not any(offsets)
        else part(emit, x, offsets, extents, strides)
    )
    for axis, first, length, step in backward:
        result = every(emit, result, axis, first, length, step)
    return result


def _inside(emit: Emitter, place: Extent, size: Extent) -> Extent:
    """A start or end, counted from the front and held within the dimension."""
    if isinstance(place, int) and place < 0:
        return emit.extent("max", emit.extent("add", size, place), 0)
    emit.requires.at_least(place, 0)  # one that is computed counts from the front
    return emit.extent("min", place, size)


def _from_behind(emit: Emitter, place: Extent, size: Extent, least: int) -> Extent:
    """The same of a slice that goes backward, and whose end may be -1, before the first element."""
    if isinstance(place, int) and place < 0:
        counted = emit.extent("add", size, max(place, -(2**62)))  # no sum leaves 64 bits
        place = emit.extent("max", counted, least)
    else:
        emit.requires.at_least(place, 0)
    return emit.extent("min", place, emit.extent("sub", size, 1))


def _split(context: Context, node: Node, inputs: Inputs) -> list[Value]:
    x = required(inputs, 0)
    axis = axis_of(node.integer("axis", 0), x.rank)
    size = x.extents[axis]
    emit = context.emit
    given = optional(inputs, 1)
    starts: list[Extent] = [0]
    if given is not None or node.has("split"):
        sizes = (
            tuple(node.integers("split"))
            if given is None
            else sizes_from(context, node, given, "the list of sizes")
        )
        for length in sizes:
            emit.requires.at_least(length, 0)
            starts.append(emit.extent("add", starts[-1], length))
        known = all(isinstance(v, int) for v in (size, *sizes))
        if any(isinstance(s, int) and s < 0 for s in sizes) or (known and starts[-1] != size):
            raise ConversionError(f"sizes {list(sizes)} do not add up to axis {axis} of {x.shape}")
        emit.requires.equal(size, starts[-1])
    else:
        count = node.integer("num_outputs", len(node.outputs))
        if count < 1 or count != len(node.outputs):
            raise ConversionError(f"num_outputs is {count}; there are {len(node.outputs)} outputs")
        each = emit.extent("ceildiv", size, count)
        ends = [emit.extent("min", emit.extent("mul", each, i + 1), size) for i in range(count)]
        starts += ends
        sizes = tuple(emit.extent("sub", end, start) for start, end in pairwise(starts))
    if len(sizes) != len(node.outputs):
        raise ConversionError(f"there are {len(sizes)} sizes and {len(node.outputs)} outputs")
    parts = []
    for start, length in zip(starts, sizes, strict=False):
        offsets = [start if i == axis else 0 for i in range(x.rank)]
        extents = [length if i == axis else s for i, s in enumerate(x.extents)]
        parts.append(part(emit, x, offsets, extents, [1] * x.rank))
    return parts


def _gather(context: Context, node: Node, inputs: Inputs) -> Value:
    x, indices = required(inputs, 0), required(inputs, 1)
    if indices.element.kind != "signed":
        raise ConversionError(f"indices are of {indices.element.name}; they must be int32 or int64")
    axis = axis_of(node.integer("axis", 0), x.rank)
    size = x.extents[axis]
    if indices.constant is not None and isinstance(size, int):
        wrong = indices.constant[(indices.constant < -size) | (indices.constant >= size)]
        if wrong.size:
            raise ConversionError(f"index {wrong[0]} is outside axis {axis} of {x.shape}")
    return gather(context.emit, x, indices, axis)


def _gather_nd(context: Context, node: Node, inputs: Inputs) -> Value:
    x, indices = required(inputs, 0), _places(required(inputs, 1))
    batch = node.integer("batch_dims", 0)
    count = indices.extents[-1] if indices.rank else 0
    if not isinstance(count, int):
        raise context.unsupported(node, "the last size of its indices is not known")
    if not 0 <= batch < min(x.rank, indices.rank) or not 1 <= count <= x.rank - batch:
        raise ConversionError(f"indices {indices.shape} do not fit {x.shape}, batch_dims {batch}")
    emit = context.emit
    emit.same_extents(x.extents[:batch], indices.extents[:batch])
    leading = indices.rank - 1
    extents = (*indices.extents[:-1], *x.extents[batch + count :])
    axes = list(range(batch, batch + count))
    at = _picker(emit, x, axes)
    table, columns = emit.name(indices), [emit.index(i) for i in range(count)]

    def body(block: Body, _: list[Scalar]) -> Sequence[Scalar]:
        loops = [block.index(i) for i in range(len(extents))]
        found = [block.extract(table, [*loops[:leading], c], indices) for c in columns]
        return (at(block, [*loops[:batch], *found, *loops[leading:]]),)

    return _filled_by(emit, x, extents, [], body)


def _gather_elements(context: Context, node: Node, inputs: Inputs) -> Value:
    x, indices = required(inputs, 0), _places(required(inputs, 1))
    if x.rank != indices.rank or x.rank == 0:
        raise ConversionError(f"indices {indices.shape} do not fit {x.shape}")
    axis = axis_of(node.integer("axis", 0), x.rank)
    emit = context.emit
    for place, (size, taken) in enumerate(zip(x.extents, indices.extents, strict=True)):
        if place == axis or size == taken:
            continue
        if not isinstance(size, int) or not isinstance(taken, int):
            emit.requires.equal(size, taken)
        elif taken > size:
            raise ConversionError(f"indices {indices.shape} do not fit {x.shape}")
    at = _picker(emit, x, [axis])

    def body(block: Body, v: list[Scalar]) -> Sequence[Scalar]:
        loops: list[str | Scalar] = [block.index(i) for i in range(x.rank)]
        loops[axis] = v[0]
        return (at(block, loops),)

    return _filled_by(emit, x, indices.extents, [(indices, range(x.rank))], body)


def _places(value: Value) -> Value:
    if value.element.kind != "signed":
        raise ConversionError(f"indices are of {value.element.name}; they must be int32 or int64")
    return value


def _picker(
    emit: Emitter, data: Value, axes: Sequence[int]
) -> Callable[[Body, Sequence[str | Scalar]], Scalar]:
    """Reads an element at places, which are held inside data along axes."""
    if any(data.extents[axis] == 0 for axis in axes):
        raise ConversionError("nothing can be gathered from a dimension of size 0")
    for axis in axes:
        emit.requires.at_least(data.extents[axis], 1)
    tensor = emit.name(data)
    inside = [Inside(emit, size) for size in data.extents]

    def read(block: Body, places: Sequence[str | Scalar]) -> Scalar:
        names = [
            place if isinstance(place, str) else inside[axis].place(block, place)
            for axis, place in enumerate(places)
        ]
        return block.extract(tensor, names, data)

    return read


def _filled_by(
    emit: Emitter,
    data: Value,
    extents: Sequence[Extent],
    inputs: Sequence[Operand],
    body: BodyFunction,
) -> Value:
    """A tensor of data's type with an element a place."""
    init = Value(data.element, tuple(extents), ssa=emit.empty(extents, data.element.mlir))
    rank = len(extents)
    return emit.loops(["parallel"] * rank, inputs, [(init, range(rank))], body)[0]


def _tile(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    repeats = sizes_from(context, node, required(inputs, 1), "the list of repeats")
    if len(repeats) != x.rank or any(isinstance(r, int) and r < 0 for r in repeats):
        raise ConversionError(f"repeats {list(repeats)} do not fit {x.shape}")
    if all(r == 1 for r in repeats):
        return x
    emit = context.emit
    extents = [emit.extent("mul", r, size) for r, size in zip(repeats, x.extents, strict=True)]
    if 0 in extents:
        return Value(x.element, tuple(extents), ssa=emit.empty(extents, x.element.mlir))
    once = [e for size in x.extents for e in (1, size)]
    often = [e for r, size in zip(repeats, x.extents, strict=True) for e in (r, size)]
    wide = emit.elementwise([reshape(emit, x, once)], x.element, lambda _, v: v[0], often)
    return reshape(emit, wide, extents)


def _trilu(context: Context, node: Node, inputs: Inputs) -> Value:
    """The part of matrices on one side of the diagonal k; zeros on the other."""
    x = required(inputs, 0)
    k = optional(inputs, 1) or constant(np.array(0, np.int64))
    if x.rank < 2 or k.element is not I64 or k.extents not in ((), (1,)):
        raise ConversionError(f"input {x.shape} must be matrices, and k {k.shape} one int64")
    predicate: Predicate = "ge" if node.flag("upper", True) else "le"

    def body(block: Body, v: list[Scalar]) -> Scalar:
        row, column = (block.number(block.index(x.rank - i)) for i in (2, 1))
        kept = block.compare(predicate, block.sub(column, row), v[1])
        return block.select(kept, v[0], block.like(0, v[0]))

    return context.emit.elementwise([x, k], x.element, body)


def _pad(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    if node.text("mode", "constant") != "constant":
        raise context.unsupported(node, "its mode is not 'constant'")
    if len(inputs) > 1:
        pads = operands.integers(context, node, required(inputs, 1), "the list of pads")
        filler = optional(inputs, 2)
        value = 0.0 if filler is None else operands.scalar(context, node, filler, "the value")
    else:
        pads, value = node.integers("pads"), node.number("value", 0.0)
    given = operands.axes(context, node, inputs, 3)
    axes = list(range(x.rank)) if given is None else list(axes_of(given, x.rank))
    if given is not None and axes != [axis % x.rank for axis in given]:
        raise context.unsupported(node, f"its axes {given} are not in order")
    if len(pads) != 2 * len(axes):
        raise ConversionError(f"there are {len(pads)} pads for {len(axes)} axes")
    if min(pads, default=0) < 0:
        raise context.unsupported(node, f"its pads {pads} cut off; only padding can be taken")
    emit = context.emit
    before: list[Extent] = [0] * x.rank
    extents = list(x.extents)
    for place, axis in enumerate(axes):
        before[axis] = pads[place]
        both = pads[place] + pads[place + len(axes)]
        extents[axis] = emit.extent("add", extents[axis], both)
    return insert(emit, x, emit.filled(extents, value, x.element), before)


OPERATORS: dict[tuple[str, str], Handler] = {
    ("", "Slice"): _slice,
    ("", "Split"): _split,
    ("", "Gather"): _gather,
    ("", "GatherND"): _gather_nd,
    ("", "GatherElements"): _gather_elements,
    ("", "Tile"): _tile,
    ("", "Trilu"): _trilu,
    ("", "Pad"): _pad,
}
