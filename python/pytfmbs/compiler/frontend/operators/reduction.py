"""Sums and extremes along axes, softmax, ArgMax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ...emission.emitter import Emitter
from ...emission.scalars import Body, Predicate, Scalar
from ...emission.structure import axes_of, axis_of, highest, lowest, mean, reduce, reshape, total
from ...emission.types import BOOL, I64, Value
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from . import operands
from .elementwise import apply
from .operands import Handler, Inputs, floats, required

Reduction = Callable[[Emitter, Value, Sequence[int], bool], Value]


def largest(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return reduce(emit, x, axes, keep, lowest(x.element), Body.max)


def _minimum(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return reduce(emit, x, axes, keep, highest(x.element), Body.min)


def _product(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return reduce(emit, x, axes, keep, 1, Body.mul)


def _absolute(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return reduce(emit, x, axes, keep, 0, lambda b, a, v: b.add(a, b.abs(v)))


def _squares(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return reduce(emit, x, axes, keep, 0, lambda b, a, v: b.add(a, b.mul(v, v)))


def _function(emit: Emitter, x: Value, name: str) -> Value:
    return emit.elementwise([x], x.element, lambda b, v: b.op(f"math.{name}", v[0]))


def _length(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return _function(emit, _squares(emit, x, axes, keep), "sqrt")


def _log_sum(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    return _function(emit, total(emit, x, axes, keep), "log")


def _log_sum_exp(emit: Emitter, x: Value, axes: Sequence[int], keep: bool) -> Value:
    # Less the greatest, so that nothing overflows; where that is infinite, less nothing.
    high = largest(emit, x, axes, True)
    finite = emit.elementwise([high], high.element, lambda b, v: _finite_or_zero(b, v[0]))
    wide = emit.cast(x, x.element.compute)
    shifted = emit.elementwise(
        [wide, finite], wide.element, lambda b, v: b.op("math.exp", b.sub(v[0], v[1]))
    )
    summed = total(emit, shifted, axes, True)
    result = emit.elementwise(
        [summed, finite], summed.element, lambda b, v: b.add(b.op("math.log", v[0]), v[1])
    )
    if keep:
        return result
    return reshape(emit, result, [e for i, e in enumerate(x.extents) if i not in axes])


def _finite_or_zero(block: Body, x: Scalar) -> Scalar:
    infinite = block.compare("eq", block.op("math.absf", x), block.like(float("inf"), x))
    return block.select(infinite, block.like(0, x), x)


def _reduction(function: Reduction, context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    if x.element is BOOL:
        raise ConversionError("input is of bool; it must be numbers")
    given = operands.axes(context, node, inputs, 1)
    if not given:
        if node.flag("noop_with_empty_axes", False):
            return x
        axes = tuple(range(x.rank))
    else:
        axes = axes_of(given, x.rank)
    keep = node.flag("keepdims", True)
    if function in _FLOAT_ONLY and not x.element.is_float:
        raise context.unsupported(node, f"its input is of {x.element.name}, not floats")
    return context.emit.cast(function(context.emit, x, axes, keep), x.element)


# --- softmax ------------------------------------------------------------------------------------


def softmax(emit: Emitter, x: Value, axes: Sequence[int]) -> Value:
    """e^x over its sum along axes, less the greatest first; 16-bit floats in fp32."""
    exponentials = _shifted(emit, x, axes, exponential=True)
    summed = total(emit, exponentials, axes, True)
    result = emit.elementwise(
        [exponentials, summed], summed.element, lambda b, v: b.div(v[0], v[1])
    )
    return emit.cast(result, x.element)


def _shifted(emit: Emitter, x: Value, axes: Sequence[int], exponential: bool) -> Value:
    wide = emit.cast(x, x.element.compute)
    high = largest(emit, wide, axes, True)

    def body(block: Body, v: list[Scalar]) -> Scalar:
        less = block.sub(v[0], v[1])
        return block.op("math.exp", less) if exponential else less

    return emit.elementwise([wide, high], wide.element, body)


def _log_softmax(emit: Emitter, x: Value, axes: Sequence[int]) -> Value:
    shifted = _shifted(emit, x, axes, exponential=False)
    summed = total(emit, _function(emit, shifted, "exp"), axes, True)
    result = emit.elementwise(
        [shifted, summed], summed.element, lambda b, v: b.sub(v[0], b.op("math.log", v[1]))
    )
    return emit.cast(result, x.element)


def _softmax_like(
    function: Callable[[Emitter, Value, Sequence[int]], Value],
    context: Context,
    node: Node,
    inputs: Inputs,
) -> Value:
    x = floats(inputs, 0)
    old = context.graph.opset("") < 13
    axis = axis_of(node.integer("axis", 1 if old else -1), x.rank)
    # Before opset 13 everything from the axis on is one distribution.
    return function(context.emit, x, range(axis, x.rank) if old else [axis])


# --- running sums -------------------------------------------------------------------------------


def _running(
    combine: Callable[[Body, Scalar, Scalar], Scalar],
    neutral: int,
    context: Context,
    node: Node,
    inputs: Inputs,
) -> Value:
    """What combines the elements before a place; in time, the axis' size times the elements."""
    x = required(inputs, 0)
    given = operands.integers(context, node, required(inputs, 1), "the axis")
    if x.element is BOOL or len(given) != 1:
        raise ConversionError(f"it takes numbers, not {x.element.name}, and one axis, not {given}")
    axis, emit, element = axis_of(given[0], x.rank), context.emit, x.element.compute
    codes: tuple[Predicate, Predicate] = (
        ("ge", "gt") if node.flag("reverse", False) else ("le", "lt")
    )
    code = codes[node.flag("exclusive", False)]
    init = emit.filled(x.extents, neutral, element)

    def body(block: Body, v: list[Scalar]) -> Sequence[Scalar]:
        read, written = (block.number(block.index(i)) for i in (x.rank, axis))
        value = block.cast(v[0], element)
        counts = block.compare(code, read, written)
        return (combine(block, v[1], block.select(counts, value, block.like(neutral, value))),)

    source = [x.rank if i == axis else i for i in range(x.rank)]
    result = emit.loops(
        [*["parallel"] * x.rank, "reduction"],  # type: ignore[list-item]
        [(x, source)],
        [(init, range(x.rank))],
        body,
    )[0]
    return emit.cast(result, x.element)


# --- the place of an extreme ----------------------------------------------------------------------


def _arg(predicate: Predicate, context: Context, node: Node, inputs: Inputs) -> Value:
    x = required(inputs, 0)
    axis = axis_of(node.integer("axis", 0), x.rank)
    or_equal: Predicate = "ge" if predicate == "gt" else "le"
    code: Predicate = or_equal if node.flag("select_last_index", False) else predicate
    return _place(context.emit, x, axis, predicate, code, node.flag("keepdims", True))


def _place(
    emit: Emitter, x: Value, axis: int, predicate: Predicate, code: Predicate, keep: bool
) -> Value:
    """Where the extreme along an axis is; code says which of equal ones."""
    if x.extents[axis] == 0:
        raise ConversionError(f"axis {axis} of {x.shape} is empty")
    element = x.element.compute
    kept = [place for place in range(x.rank) if place != axis]
    out = tuple(x.extents[place] for place in kept)
    start = lowest(element) if predicate == "gt" else highest(element)
    best, place = emit.filled(out, start, element), emit.filled(out, 0, I64)

    def body(block: Body, v: list[Scalar]) -> Sequence[Scalar]:
        value = block.cast(v[0], element)
        here = block.number(block.index(axis))
        better = block.compare(code, value, v[1])
        return block.select(better, value, v[1]), block.select(better, here, v[2])

    _, result = emit.loops(
        ["reduction" if i == axis else "parallel" for i in range(x.rank)],
        [(x, range(x.rank))],
        [(best, kept), (place, kept)],
        body,
    )
    if keep:
        wanted = [1 if i == axis else e for i, e in enumerate(x.extents)]
        return reshape(emit, result, wanted)
    return result


def _hardmax(emit: Emitter, x: Value, axes: Sequence[int]) -> Value:
    """1 at the first greatest element along axes, else 0."""
    if len(axes) > 1:
        flat = (*x.extents[: axes[0]], emit.product([x.extents[axis] for axis in axes]))
        return reshape(emit, _hardmax(emit, reshape(emit, x, flat), [axes[0]]), x.extents)
    best = _place(emit, x, axes[0], "gt", "gt", True)

    def body(block: Body, v: list[Scalar]) -> Scalar:
        hit = block.compare("eq", block.number(block.index(axes[0])), v[1])
        return block.select(hit, block.like(1, v[0]), block.like(0, v[0]))

    return emit.elementwise([x, best], x.element, body)


def _normalizer(context: Context, node: Node, inputs: Inputs) -> Value:
    """LpNormalization."""
    x = floats(inputs, 0)
    axis, p = axis_of(node.integer("axis", -1), x.rank), node.integer("p", 2)
    if p not in (1, 2):
        raise ConversionError(f"attribute p is {p}; allowed are 1 and 2")
    return divided_by_norm(context, x, [axis], _absolute if p == 1 else _length)


def divided_by_norm(context: Context, x: Value, axes: Sequence[int], norm: Reduction) -> Value:
    """x over its norm along axes; 0 where that is 0."""
    emit = context.emit
    norms = norm(emit, x, axes, True)
    safe = apply(
        context,
        norms,
        lambda b, v: b.select(b.compare("eq", v, b.like(0, v)), b.like(1, v), v),
    )
    wide = emit.cast(x, norms.element)
    result = emit.elementwise([wide, safe], norms.element, lambda b, v: b.div(v[0], v[1]))
    return emit.cast(result, x.element)


#: Norms by the names of ai.onnx.ml's Normalizer.
NORMS: dict[str, Reduction] = {"MAX": largest, "L1": _absolute, "L2": _length}

_FLOAT_ONLY = (_length, _log_sum, _log_sum_exp)
_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": total,
    "ReduceMean": mean,
    "ReduceMax": largest,
    "ReduceMin": _minimum,
    "ReduceProd": _product,
    "ReduceL1": _absolute,
    "ReduceL2": _length,
    "ReduceSumSquare": _squares,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
}

OPERATORS: dict[tuple[str, str], Handler] = {
    **{("", name): partial(_reduction, function) for name, function in _REDUCTIONS.items()},
    ("", "Softmax"): partial(_softmax_like, softmax),
    ("", "Hardmax"): partial(_softmax_like, _hardmax),
    ("", "LogSoftmax"): partial(_softmax_like, _log_softmax),
    ("", "CumSum"): partial(_running, Body.add, 0),
    ("", "CumProd"): partial(_running, Body.mul, 1),
    ("", "ArgMax"): partial(_arg, "gt"),
    ("", "ArgMin"): partial(_arg, "lt"),
    ("", "LpNormalization"): _normalizer,
}
