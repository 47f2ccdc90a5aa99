"""Activation functions. Each is the formula of ONNX's specification, kept from overflowing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...emission.scalars import Body, Scalar
from ...emission.types import Value
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from .elementwise import Unary, apply, apply_binary
from .operands import Handler, Inputs, floats, required

#: A function of an element and the node's numbers, and the numbers' names and defaults.
_Parametric = tuple[Callable[[Body, Scalar, list[float]], Scalar], Sequence[tuple[str, float]]]


def relu(block: Body, x: Scalar) -> Scalar:
    """As torch's: a NaN stays, and so does the sign of a zero."""
    return _where_negative(block, x, block.like(0, x), x)


def sigmoid(block: Body, x: Scalar) -> Scalar:
    one = block.like(1, x)
    return block.div(one, block.add(one, block.op("math.exp", block.neg(x))))


def _softplus(block: Body, x: Scalar) -> Scalar:
    # log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
    small = block.op("math.exp", block.neg(block.op("math.absf", x)))
    return block.add(relu(block, x), block.op("math.log1p", small))


def _softsign(block: Body, x: Scalar) -> Scalar:
    return block.div(x, block.add(block.like(1, x), block.op("math.absf", x)))


def _mish(block: Body, x: Scalar) -> Scalar:
    return block.mul(x, block.op("math.tanh", _softplus(block, x)))


def _hard_swish(block: Body, x: Scalar) -> Scalar:
    return block.mul(x, _hard_sigmoid(block, x, [1 / 6, 0.5]))


def _hard_sigmoid(block: Body, x: Scalar, p: list[float]) -> Scalar:
    line = block.add(block.mul(x, block.like(p[0], x)), block.like(p[1], x))
    return block.min(relu(block, line), block.like(1, x))


def _where_negative(block: Body, x: Scalar, negative: Scalar, otherwise: Scalar) -> Scalar:
    return block.select(block.compare("lt", x, block.like(0, x)), negative, otherwise)


def _leaky(block: Body, x: Scalar, p: list[float]) -> Scalar:
    return _where_negative(block, x, block.mul(x, block.like(p[0], x)), x)


def _elu(block: Body, x: Scalar, p: list[float]) -> Scalar:
    return _where_negative(block, x, block.mul(block.op("math.expm1", x), block.like(p[0], x)), x)


def _selu(block: Body, x: Scalar, p: list[float]) -> Scalar:
    return block.mul(_elu(block, x, p), block.like(p[1], x))


def _celu(block: Body, x: Scalar, p: list[float]) -> Scalar:
    scaled = block.op("math.expm1", block.div(x, block.like(p[0], x)))
    return _where_negative(block, x, block.mul(scaled, block.like(p[0], x)), x)


def _thresholded(block: Body, x: Scalar, p: list[float]) -> Scalar:
    above = block.compare("gt", x, block.like(p[0], x))
    return block.select(above, x, block.like(0, x))


def _swish(block: Body, x: Scalar, p: list[float]) -> Scalar:
    return block.mul(x, sigmoid(block, block.mul(x, block.like(p[0], x))))


def _shrink(block: Body, x: Scalar, p: list[float]) -> Scalar:
    bias, limit = block.like(p[0], x), block.like(p[1], x)
    low = block.compare("lt", x, block.neg(limit))
    high = block.compare("gt", x, limit)
    inner = block.select(high, block.sub(x, bias), block.like(0, x))
    return block.select(low, block.add(x, bias), inner)


def _gelu(context: Context, node: Node, inputs: Inputs) -> Value:
    kind = node.text("approximate", "none")
    if kind not in ("none", "tanh"):
        raise ConversionError(f"attribute approximate is {kind!r}; allowed are 'none', 'tanh'")

    def exact(block: Body, x: Scalar) -> Scalar:
        erf = block.op("math.erf", block.mul(x, block.like(0.7071067811865476, x)))
        half = block.mul(x, block.like(0.5, x))
        return block.mul(half, block.add(block.like(1, x), erf))

    def tanh(block: Body, x: Scalar) -> Scalar:
        cube = block.mul(x, block.mul(x, x))
        inner = block.add(x, block.mul(cube, block.like(0.044715, x)))
        bent = block.op("math.tanh", block.mul(inner, block.like(0.7978845608028654, x)))
        return block.mul(block.mul(x, block.like(0.5, x)), block.add(block.like(1, x), bent))

    return apply(context, floats(inputs, 0), exact if kind == "none" else tanh)


def _prelu(context: Context, node: Node, inputs: Inputs) -> Value:
    x, slope = required(inputs, 0), required(inputs, 1)
    if (
        context.emit.broadcast([x.extents, slope.extents])[: -x.rank or None]
        and slope.rank > x.rank
    ):
        raise ConversionError(f"slope {slope.shape} does not broadcast to {x.shape}")
    result = apply_binary(context, x, slope, lambda b, a, s: _where_negative(b, a, b.mul(a, s), a))
    context.emit.same_extents(result.extents, x.extents)
    return result


def _plain(function: Unary) -> Callable[[Context, Node, Inputs], Value]:
    return lambda context, node, inputs: apply(context, floats(inputs, 0), function)


def _with_numbers(entry: _Parametric) -> Callable[[Context, Node, Inputs], Value]:
    function, parameters = entry

    def handle(context: Context, node: Node, inputs: Inputs) -> Value:
        numbers = [node.number(name, default) for name, default in parameters]
        return apply(context, floats(inputs, 0), lambda b, x: function(b, x, numbers))

    return handle


def _relu(context: Context, node: Node, inputs: Inputs) -> Value:
    return apply(context, required(inputs, 0), relu)


_PLAIN: dict[str, Unary] = {
    "Sigmoid": sigmoid,
    "Softplus": _softplus,
    "Softsign": _softsign,
    "Mish": _mish,
    "HardSwish": _hard_swish,
}
_PARAMETRIC: dict[str, _Parametric] = {
    "LeakyRelu": (_leaky, [("alpha", 0.01)]),
    "Elu": (_elu, [("alpha", 1.0)]),
    "Selu": (_selu, [("alpha", 1.6732632423543772), ("gamma", 1.0507009873554805)]),
    "Celu": (_celu, [("alpha", 1.0)]),
    "HardSigmoid": (_hard_sigmoid, [("alpha", 0.2), ("beta", 0.5)]),
    "ThresholdedRelu": (_thresholded, [("alpha", 1.0)]),
    "Swish": (_swish, [("alpha", 1.0)]),
    "Shrink": (_shrink, [("bias", 0.0), ("lambd", 0.5)]),
}

OPERATORS: dict[tuple[str, str], Handler] = {
    **{("", name): _plain(function) for name, function in _PLAIN.items()},
    **{("", name): _with_numbers(entry) for name, entry in _PARAMETRIC.items()},
    ("", "Relu"): _relu,
    ("", "Gelu"): _gelu,
    ("", "PRelu"): _prelu,
}
