"""Parts of tensors: Slice, Split, Gather, Pad."""

from __future__ import annotations

import numpy as np

from ...emission.emitter import Emitter
from ...emission.structure import axes_of, axis_of, gather, insert, part
from ...emission.types import Extent, Value, constant
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
    reversed_axes = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.extents[axis]
        if step == 0:
            raise ConversionError("a step is 0")
        if step < 0:
            reversed_axes.append((axis, start, end, step))
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
    for axis, start, end, step in reversed_axes:
        size = x.extents[axis]
        if not isinstance(size, int) or not isinstance(start, int) or not isinstance(end, int):
            raise context.unsupported(node, "a step below 0 needs known sizes, starts and ends")
        picked = range(size)[slice(start, end if end >= -size else None, step)]
        result = gather(emit, result, constant(np.array(picked, np.int64)), axis)
    return result


def _inside(emit: Emitter, place: Extent, size: Extent) -> Extent:
    """A start or end, counted from the front and held within the dimension."""
    if isinstance(place, int) and place < 0:
        return emit.extent("max", emit.extent("add", size, place), 0)
    emit.requires.at_least(place, 0)  # one that is computed counts from the front
    return emit.extent("min", place, size)


def _split(context: Context, node: Node, inputs: Inputs) -> list[Value]:
    x = required(inputs, 0)
    axis = axis_of(node.integer("axis", 0), x.rank)
    size = x.extents[axis]
    given = optional(inputs, 1)
    if given is not None:
        sizes = operands.integers(context, node, given, "the list of sizes")
    elif node.has("split"):
        sizes = node.integers("split")
    else:
        count = node.integer("num_outputs", len(node.outputs))
        if not isinstance(size, int):
            raise context.unsupported(node, f"the size of axis {axis} is not known")
        if count < 1 or count != len(node.outputs):
            raise ConversionError(f"num_outputs is {count}; there are {len(node.outputs)} outputs")
        each = -(-size // count)
        sizes = [max(0, min(each, size - each * i)) for i in range(count)]
    if any(s < 0 for s in sizes) or (isinstance(size, int) and sum(sizes) != size):
        raise ConversionError(f"sizes {sizes} do not add up to axis {axis} of {x.shape}")
    context.emit.requires.equal(size, sum(sizes))
    if len(sizes) != len(node.outputs):
        raise ConversionError(f"there are {len(sizes)} sizes and {len(node.outputs)} outputs")
    parts, start = [], 0
    for length in sizes:
        offsets = [start if i == axis else 0 for i in range(x.rank)]
        extents = [length if i == axis else s for i, s in enumerate(x.extents)]
        parts.append(part(context.emit, x, offsets, extents, [1] * x.rank))
        start += length
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
    ("", "Pad"): _pad,
}
