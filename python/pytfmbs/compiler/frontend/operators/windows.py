"""Convolution, and pooling, over windows of any number of dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from ...emission.emitter import Emitter
from ...emission.scalars import Body, Scalar
from ...emission.structure import insert, lowest, mean, reshape, transpose
from ...emission.types import Extent, Value, constant
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from .elementwise import apply, apply_binary
from .linear import less_zero
from .operands import Handler, Inputs, floats, optional, required, same_element
from .reduction import largest

Combine = Callable[[Body, Scalar, Scalar], Scalar]


@dataclass(frozen=True)
class Windows:
    """Where windows lie along each dimension."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[Extent, ...]
    after: tuple[Extent, ...]  # as the node says
    room: tuple[Extent, ...]  # that the last windows need beyond it (ceil_mode)
    count: tuple[Extent, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def _windows(
    context: Context, node: Node, sizes: Sequence[Extent], kernel: Sequence[int]
) -> Windows:
    rank, emit = len(kernel), context.emit
    strides = node.integers("strides", [1] * rank)
    dilations = node.integers("dilations", [1] * rank)
    pads = node.integers("pads", [0] * 2 * rank)
    automatic = node.text("auto_pad", "NOTSET")
    ceil = node.flag("ceil_mode", False)
    if len(sizes) != rank or len(strides) != rank or len(dilations) != rank:
        raise ConversionError(f"kernel {list(kernel)} and strides do not fit {rank} dimensions")
    if len(pads) != 2 * rank or min([*strides, *dilations, *kernel], default=1) < 1:
        raise ConversionError(f"pads {pads}, strides {strides} or dilations {dilations} are wrong")
    if min(pads, default=0) < 0:
        raise context.unsupported(node, f"its pads {pads} cut off; only padding can be taken")
    before: list[Extent] = list(pads[:rank])
    after: list[Extent] = list(pads[rank:])
    room: list[Extent] = [0] * rank
    count: list[Extent] = []
    for i, size in enumerate(sizes):
        span, stride = (kernel[i] - 1) * dilations[i] + 1, strides[i]
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            windows = emit.extent("ceildiv", size, stride)
            needed = emit.extent("mul", emit.extent("sub", windows, 1), stride)
            needed = emit.extent("sub", emit.extent("add", needed, span), size)
            needed = emit.extent("max", needed, 0)
            half = emit.extent("floordiv", needed, 2)
            rest = emit.extent("sub", needed, half)
            before[i], after[i] = (half, rest) if automatic == "SAME_UPPER" else (rest, half)
            count.append(windows)
            continue
        if automatic == "VALID":
            before[i] = after[i] = 0
        padded = emit.extent("add", size, emit.extent("add", before[i], after[i]))
        free = emit.extent("sub", padded, span)
        emit.requires.at_least(free, 0)
        if isinstance(free, int) and free < 0:
            raise ConversionError(f"a window of {span} does not fit a dimension of {size}")
        last = emit.extent("ceildiv" if ceil else "floordiv", free, stride)
        if ceil:  # the last window begins inside the input or the padding before it
            held = emit.extent("sub", emit.extent("add", size, before[i]), 1)
            last = emit.extent("min", last, emit.extent("floordiv", held, stride))
            over = emit.extent("sub", emit.extent("mul", last, stride), free)
            room[i] = emit.extent("max", over, 0)
        count.append(emit.extent("add", last, 1))
    return Windows(
        tuple(kernel), tuple(strides), tuple(dilations),
        tuple(before), tuple(after), tuple(room), tuple(count),
    )  # fmt: skip


def _padded(emit: Emitter, x: Value, windows: Windows, filler: object) -> Value:
    """x [N, C, ...] with its padding."""
    if not any((*windows.before, *windows.after, *windows.room)):
        return x
    extents = list(x.extents)
    for i, pads in enumerate(zip(windows.before, windows.after, windows.room, strict=True), 2):
        for pad in pads:
            extents[i] = emit.extent("add", extents[i], pad)
    return insert(emit, x, emit.filled(extents, filler, x.element), [0, 0, *windows.before])


def _place(emit: Emitter, block: Body, loop: int, inner: int, stride: int, dilation: int) -> str:
    """An element's place in the padded input: loop · stride + inner · dilation."""
    terms = []
    for number, factor in ((loop, stride), (inner, dilation)):
        name = block.index(number)
        if factor != 1:
            name = block.text(f"arith.muli {name}, {emit.index(factor)} : index")
        terms.append(name)
    return block.text(f"arith.addi {terms[0]}, {terms[1]} : index")


# --- convolution ----------------------------------------------------------------------------------


def _convolve(context: Context, node: Node, x: Value, weight: Value) -> Value:
    """Sums of products, of 16-bit floats as fp32: x [N, C, ...], weight [M, C / group, ...]."""
    if x.rank < 3 or weight.rank != x.rank or not all(isinstance(e, int) for e in weight.extents):
        raise context.unsupported(node, f"it takes {x.shape} and weights {weight.shape}")
    groups, emit, rank = node.integer("group", 1), context.emit, x.rank
    outputs, depth, *kernel = (int(e) for e in weight.extents)
    if node.integers("kernel_shape", kernel) != kernel:
        raise ConversionError(f"kernel_shape is not that of the weights {weight.shape}")
    if groups < 1 or outputs % groups:
        raise ConversionError(f"{outputs} outputs cannot be in {groups} groups")
    emit.same_extents((x.extents[1],), (depth * groups,))
    windows = _windows(context, node, x.extents[2:], kernel)
    padded, element = _padded(emit, x, windows, 0), x.element.compute
    init = emit.filled((x.extents[0], outputs, *windows.count), 0, element)
    tensor = emit.name(padded)
    each, channels = emit.index(outputs // groups), emit.index(depth)

    def body(block: Body, v: list[Scalar]) -> Sequence[Scalar]:
        channel = block.index(rank)
        if groups > 1:
            group = block.text(f"arith.divui {block.index(1)}, {each} : index")
            first = block.text(f"arith.muli {group}, {channels} : index")
            channel = block.text(f"arith.addi {first}, {channel} : index")
        places = [
            _place(emit, block, 2 + i, rank + 1 + i, windows.strides[i], windows.dilations[i])
            for i in range(rank - 2)
        ]
        read = block.extract(tensor, [block.index(0), channel, *places], padded)
        product = block.mul(block.cast(read, element), block.cast(v[0], element))
        return (block.add(v[1], product),)

    kinds: list[Literal["parallel", "reduction"]] = ["parallel"] * rank
    kinds += ["reduction"] * (rank - 1)
    return emit.loops(
        kinds, [(weight, [1, *range(rank, 2 * rank - 1)])], [(init, range(rank))], body
    )[0]


def _conv(context: Context, node: Node, inputs: Inputs) -> Value:
    x, weight, bias = floats(inputs, 0), required(inputs, 1), optional(inputs, 2)
    same_element([v for v in (x, weight, bias) if v is not None])
    result = _convolve(context, node, x, weight)
    if bias is not None:
        wide = context.emit.cast(bias, result.element)
        column = reshape(context.emit, wide, (*bias.extents, *[1] * (x.rank - 2)))
        result = apply_binary(context, result, column, Body.add)
    return context.emit.cast(result, x.element)


def _conv_integer(context: Context, node: Node, inputs: Inputs) -> Value:
    """int32 sums of 8-bit integers less their zero points."""
    x, weight = required(inputs, 0), required(inputs, 1)
    for value in (x, weight):
        if value.element.is_float or value.element.bits != 8:
            raise ConversionError(f"an input is of {value.element.name}, not 8-bit integers")
    zeros = [optional(inputs, place) for place in (2, 3)]
    if zeros[1] is not None and zeros[1].rank:
        raise context.unsupported(node, "its weights have a zero point an output")
    return _convolve(
        context, node,
        less_zero(context, x, zeros[0], "tensor"), less_zero(context, weight, zeros[1], "tensor"),
    )  # fmt: skip


# --- pooling --------------------------------------------------------------------------------------


def _pooled(emit: Emitter, x: Value, windows: Windows, initial: object, combine: Combine) -> Value:
    """The elements of each window combined; x has its padding, 16-bit floats in fp32."""
    element, rank = x.element.compute, x.rank
    init = emit.filled((*x.extents[:2], *windows.count), initial, element)
    tensor = emit.name(x)
    shape = constant(np.zeros(windows.kernel, np.int8))  # says how many steps the loops take

    def body(block: Body, v: list[Scalar]) -> Sequence[Scalar]:
        places = [
            _place(emit, block, 2 + i, rank + i, windows.strides[i], windows.dilations[i])
            for i in range(rank - 2)
        ]
        read = block.extract(tensor, [block.index(0), block.index(1), *places], x)
        return (combine(block, v[1], block.cast(read, element)),)

    kinds: list[Literal["parallel", "reduction"]] = ["parallel"] * rank
    kinds += ["reduction"] * (rank - 2)
    operands = [(shape, range(rank, 2 * rank - 2))]
    return emit.loops(kinds, operands, [(init, range(rank))], body)[0]


def _pool_windows(context: Context, node: Node, x: Value) -> Windows:
    if x.rank < 3:
        raise ConversionError(f"input is {x.shape}; it must be [N, C, ...]")
    return _windows(context, node, x.extents[2:], node.integers("kernel_shape"))


def _max_pool(context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    if len([name for name in node.outputs if name]) > 1:
        raise context.unsupported(node, "its places of the greatest elements are asked for")
    windows, emit = _pool_windows(context, node, x), context.emit
    padded = _padded(emit, x, windows, lowest(x.element))
    result = _pooled(emit, padded, windows, lowest(x.element.compute), Body.max)
    return emit.cast(result, x.element)


def _average_pool(context: Context, node: Node, inputs: Inputs) -> Value:
    """Sums over the number of elements in each window, padding counted where the node says so."""
    x = floats(inputs, 0)
    windows, emit = _pool_windows(context, node, x), context.emit
    summed = _pooled(emit, _padded(emit, x, windows, 0), windows, 0, Body.add)
    ones = emit.filled((1, 1, *x.extents[2:]), 1, x.element)
    if node.flag("count_include_pad", False):
        none = (0,) * len(windows.room)
        ones = _padded(emit, ones, replace(windows, room=none), 1)
        ones = _padded(emit, ones, replace(windows, before=none, after=none), 0)
    else:
        ones = _padded(emit, ones, windows, 0)
    counts = _pooled(emit, ones, windows, 0, Body.add)
    return emit.cast(apply_binary(context, summed, counts, Body.div), x.element)


def _lp_pool(context: Context, node: Node, inputs: Inputs) -> Value:
    x = floats(inputs, 0)
    windows, emit, p = _pool_windows(context, node, x), context.emit, node.integer("p", 2)

    def combine(block: Body, total: Scalar, value: Scalar) -> Scalar:
        size = block.abs(value)
        power = size if p == 1 else block.op("math.powf", size, block.like(p, size))
        return block.add(total, power)

    summed = _pooled(emit, _padded(emit, x, windows, 0), windows, 0, combine)
    return emit.cast(_root(context, summed, p), x.element)


def _root(context: Context, value: Value, p: int) -> Value:
    return apply(context, value, lambda b, v: b.op("math.powf", v, b.like(1 / p, v)))


def _global(
    function: Callable[[Emitter, Value, Sequence[int], bool], Value],
    context: Context,
    node: Node,
    inputs: Inputs,
) -> Value:
    x = floats(inputs, 0)
    return context.emit.cast(function(context.emit, x, range(2, x.rank), True), x.element)


# --- blocks ---------------------------------------------------------------------------------------


def _space_to_depth(context: Context, node: Node, inputs: Inputs) -> Value:
    x, size, emit = required(inputs, 0), node.integer("blocksize"), context.emit
    n, c, h, w = x.extents
    rows, columns = (emit.extent("floordiv", e, size) for e in (h, w))
    parted = reshape(emit, x, (n, c, rows, size, columns, size))
    by_depth = node.text("mode", "DCR") == "DCR"
    moved = transpose(emit, parted, (0, 3, 5, 1, 2, 4) if by_depth else (0, 1, 3, 5, 2, 4))
    return reshape(emit, moved, (n, emit.extent("mul", c, size * size), rows, columns))


def _depth_to_space(context: Context, node: Node, inputs: Inputs) -> Value:
    x, size, emit = required(inputs, 0), node.integer("blocksize"), context.emit
    n, c, h, w = x.extents
    depth = emit.extent("floordiv", c, size * size)
    by_depth = node.text("mode", "DCR") == "DCR"
    parts = (size, size, depth) if by_depth else (depth, size, size)
    order = (0, 3, 4, 1, 5, 2) if by_depth else (0, 1, 4, 2, 5, 3)
    moved = transpose(emit, reshape(emit, x, (n, *parts, h, w)), order)
    return reshape(
        emit, moved, (n, depth, emit.extent("mul", h, size), emit.extent("mul", w, size))
    )


OPERATORS: dict[tuple[str, str], Handler] = {
    ("", "Conv"): _conv,
    ("", "ConvInteger"): _conv_integer,
    ("", "MaxPool"): _max_pool,
    ("", "AveragePool"): _average_pool,
    ("", "LpPool"): _lp_pool,
    ("", "GlobalAveragePool"): partial(_global, mean),
    ("", "GlobalMaxPool"): partial(_global, largest),
    ("", "SpaceToDepth"): _space_to_depth,
    ("", "DepthToSpace"): _depth_to_space,
}
