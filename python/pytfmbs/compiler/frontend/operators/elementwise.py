"""Arithmetic, comparison and logic of elements, broadcast as NumPy does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...emission.scalars import Body, Predicate, Scalar
from ...emission.types import BOOL, F64, Value, from_onnx
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from .operands import Handler, Inputs, floats, required, same_element

Unary = Callable[[Body, Scalar], Scalar]
Binary = Callable[[Body, Scalar, Scalar], Scalar]


def apply(context: Context, value: Value, function: Unary) -> Value:
    """A function of each element; of 16-bit floats in fp32, rounded once."""
    element = value.element

    def body(block: Body, x: list[Scalar]) -> Scalar:
        return block.cast(function(block, block.cast(x[0], element.compute)), element)

    return context.emit.elementwise([value], element, body)


def apply_binary(context: Context, a: Value, b: Value, function: Binary) -> Value:
    """The same of two values of one type."""
    same_element([a, b])
    element = a.element

    def body(block: Body, x: list[Scalar]) -> Scalar:
        left, right = (block.cast(operand, element.compute) for operand in x)
        return block.cast(function(block, left, right), element)

    return context.emit.elementwise([a, b], element, body)


def _no_bool(value: Value) -> Value:
    if value.element is BOOL:
        raise ConversionError("input is of bool; it must be numbers")
    return value


def _unary(function: Unary, context: Context, node: Node, inputs: Inputs) -> Value:
    return apply(context, _no_bool(required(inputs, 0)), function)


def _float_unary(function: Unary, context: Context, node: Node, inputs: Inputs) -> Value:
    return apply(context, floats(inputs, 0), function)


def _old_broadcast(context: Context, node: Node) -> None:
    if node.has("broadcast") or node.has("axis"):
        raise context.unsupported(
            node, "its attribute broadcast is of an opset before 7; export a newer one"
        )


def _binary(function: Binary, context: Context, node: Node, inputs: Inputs) -> Value:
    _old_broadcast(context, node)
    a, b = _no_bool(required(inputs, 0)), _no_bool(required(inputs, 1))
    return apply_binary(context, a, b, function)


def _variadic(function: Binary, context: Context, node: Node, inputs: Inputs) -> Value:
    result = _no_bool(required(inputs, 0))
    for place in range(1, len(inputs)):
        result = apply_binary(context, result, _no_bool(required(inputs, place)), function)
    return result


def _mean(context: Context, node: Node, inputs: Inputs) -> Value:
    floats(inputs, 0)
    count = len(inputs)
    summed = _variadic(Body.add, context, node, inputs)
    return apply(context, summed, lambda b, x: b.div(x, b.like(count, x)))


def _power(context: Context, node: Node, inputs: Inputs) -> Value:
    _old_broadcast(context, node)
    base, exponent = _no_bool(required(inputs, 0)), _no_bool(required(inputs, 1))
    element = base.element
    # Integers are powers of doubles, as NumPy and ONNX Runtime compute them.
    work = element.compute if element.is_float else F64
    if exponent.constant is not None and exponent.constant.size == 1 and element.is_float:
        times = float(exponent.constant.reshape(-1)[0])
        if times in (1.0, 2.0, 3.0):
            return context.emit.elementwise(
                [base, exponent],
                element,
                lambda b, x: b.cast(_product(b, b.cast(x[0], work), int(times)), element),
            )

    def body(block: Body, x: list[Scalar]) -> Scalar:
        left, right = block.cast(x[0], work), block.cast(x[1], work)
        return block.cast(block.op("math.powf", left, right), element)

    return context.emit.elementwise([base, exponent], element, body)


def _product(block: Body, x: Scalar, times: int) -> Scalar:
    result = x
    for _ in range(times - 1):
        result = block.mul(result, x)
    return result


def _modulo(context: Context, node: Node, inputs: Inputs) -> Value:
    a, b = _no_bool(required(inputs, 0)), _no_bool(required(inputs, 1))
    c_like = node.flag("fmod", False)
    if a.element.is_float and not c_like:
        raise ConversionError("attribute fmod must be 1 for floats")

    def function(block: Body, x: Scalar, y: Scalar) -> Scalar:
        rest = block.remainder(x, y)
        if c_like or x.element.kind != "signed":
            return rest
        zero = block.like(0, x)  # the divisor's sign, as Python's
        other = block.compare("ne", block.compare("lt", rest, zero), block.compare("lt", y, zero))
        wrong = block.op("arith.andi", other, block.compare("ne", rest, zero))
        return block.select(wrong, block.add(rest, y), rest)

    return apply_binary(context, a, b, function)


def _compare(predicate: Predicate, context: Context, node: Node, inputs: Inputs) -> Value:
    _old_broadcast(context, node)
    a, b = required(inputs, 0), required(inputs, 1)
    same_element([a, b])
    work = a.element.compute
    return context.emit.elementwise(
        [a, b],
        BOOL,
        lambda block, x: block.compare(predicate, block.cast(x[0], work), block.cast(x[1], work)),
    )


def _logic(mnemonic: str, context: Context, node: Node, inputs: Inputs) -> Value:
    a, b = required(inputs, 0), required(inputs, 1)
    if a.element is not BOOL or b.element is not BOOL:
        raise ConversionError(f"inputs are of {a.element.name} and {b.element.name}, not bool")
    return context.emit.elementwise([a, b], BOOL, lambda block, x: block.op(mnemonic, *x))


def _not(context: Context, node: Node, inputs: Inputs) -> Value:
    a = required(inputs, 0)
    if a.element is not BOOL:
        raise ConversionError(f"input is of {a.element.name}, not bool")
    return context.emit.elementwise(
        [a], BOOL, lambda block, x: block.op("arith.xori", x[0], block.constant(True, BOOL))
    )


def _bits(mnemonic: str, context: Context, node: Node, inputs: Inputs) -> Value:
    a, b = required(inputs, 0), required(inputs, 1)
    if a.element.is_float or a.element is BOOL:
        raise ConversionError(f"inputs are of {a.element.name}, not integers")
    return apply_binary(context, a, b, lambda block, x, y: block.op(mnemonic, x, y))


def _bits_not(context: Context, node: Node, inputs: Inputs) -> Value:
    a = required(inputs, 0)
    if a.element.is_float or a.element is BOOL:
        raise ConversionError(f"input is of {a.element.name}, not integers")
    return apply(context, a, lambda block, x: block.sub(block.like(-1, x), x))


def _shift(context: Context, node: Node, inputs: Inputs) -> Value:
    a, b = required(inputs, 0), required(inputs, 1)
    left = node.text("direction", "") == "LEFT"
    signed = a.element.kind == "signed"
    if a.element.is_float or a.element is BOOL:
        raise ConversionError(f"inputs are of {a.element.name}, not integers")

    def function(block: Body, x: Scalar, y: Scalar) -> Scalar:
        # MLIR leaves open what a shift as wide as the type gives: nothing of the number is left.
        zero, widest = block.like(0, x), block.like(x.element.bits - 1, x)
        inside = block.compare("le", y, widest)
        if signed:
            inside = block.op("arith.andi", inside, block.compare("ge", y, zero))
        by = block.select(inside, y, widest)
        right = "arith.shrsi" if signed else "arith.shrui"
        shifted = block.op("arith.shli" if left else right, x, by)
        return shifted if signed and not left else block.select(inside, shifted, zero)

    return apply_binary(context, a, b, function)


def _where(context: Context, node: Node, inputs: Inputs) -> Value:
    condition, a, b = (required(inputs, place) for place in range(3))
    if condition.element is not BOOL:
        raise ConversionError(f"the condition is of {condition.element.name}, not bool")
    same_element([a, b])
    return context.emit.elementwise(
        [condition, a, b], a.element, lambda block, x: block.select(x[0], x[1], x[2])
    )


def _is_nan(context: Context, node: Node, inputs: Inputs) -> Value:
    return context.emit.elementwise([floats(inputs, 0)], BOOL, lambda b, x: b.is_nan(x[0]))


def _is_inf(context: Context, node: Node, inputs: Inputs) -> Value:
    negative, positive = node.flag("detect_negative", True), node.flag("detect_positive", True)

    def body(block: Body, x: list[Scalar]) -> Scalar:
        value = block.cast(x[0], x[0].element.compute)
        found = block.constant(False, BOOL)
        for wanted, limit in ((negative, "-inf"), (positive, "inf")):
            if wanted:
                hit = block.compare("eq", value, block.like(float(limit), value))
                found = block.op("arith.ori", found, hit)
        return found

    return context.emit.elementwise([floats(inputs, 0)], BOOL, body)


def _sign(block: Body, x: Scalar) -> Scalar:
    zero, one = block.like(0, x), block.like(1, x)
    above = block.compare("gt", x, zero)
    if x.element.kind == "unsigned":
        return block.select(above, one, zero)
    below = block.compare("lt", x, zero)
    # What is neither is 0 or NaN, and stays.
    return block.select(above, one, block.select(below, block.like(-1, x), x))


def _cast(context: Context, node: Node, inputs: Inputs) -> Value:
    return context.emit.cast(required(inputs, 0), from_onnx(node.integer("to"), "attribute to"))


def _cast_like(context: Context, node: Node, inputs: Inputs) -> Value:
    return context.emit.cast(required(inputs, 0), required(inputs, 1).element)


def _clip(context: Context, node: Node, inputs: Inputs) -> Value:
    """Bounds as newer versions give them, in inputs, or as older ones, in attributes."""
    value = _no_bool(required(inputs, 0))
    for place, (name, function) in enumerate((("min", Body.max), ("max", Body.min)), 1):
        bound = inputs[place] if place < len(inputs) else None
        if bound is not None:
            if bound.rank and bound.extents != (1,):
                raise ConversionError(f"bound {name} must be one number, not {bound.shape}")
            extents = value.extents
            value = apply_binary(context, value, bound, function)
            if value.rank != len(extents):  # a bound of [1], an input of rank 0
                raise ConversionError(f"bound {name} must be a scalar")
        elif node.has(name):
            value = apply(context, value, _bounded(function, node.number(name)))
    return value


def _bounded(function: Binary, bound: float) -> Unary:
    return lambda block, x: function(block, x, block.like(bound, x))


def _round(block: Body, x: Scalar) -> Scalar:
    return block.op("math.roundeven", x)


def _reciprocal(block: Body, x: Scalar) -> Scalar:
    return block.div(block.like(1, x), x)


def _math(function: str) -> Unary:
    return lambda block, x: block.op(f"math.{function}", x)


_MATH = {
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Erf": "erf", "Tanh": "tanh", "Sin": "sin",
    "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan", "Sinh": "sinh",
    "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh", "Floor": "floor",
    "Ceil": "ceil",
}  # fmt: skip
_COMPARISONS: dict[str, Predicate] = {
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
}

OPERATORS: dict[tuple[str, str], Handler] = {
    **{("", name): partial(_float_unary, _math(function)) for name, function in _MATH.items()},
    **{("", name): partial(_compare, code) for name, code in _COMPARISONS.items()},
    ("", "Abs"): partial(_unary, Body.abs),
    ("", "Neg"): partial(_unary, Body.neg),
    ("", "Sign"): partial(_unary, _sign),
    ("", "Round"): partial(_float_unary, _round),
    ("", "Reciprocal"): partial(_float_unary, _reciprocal),
    ("", "Add"): partial(_binary, Body.add),
    ("", "Sub"): partial(_binary, Body.sub),
    ("", "Mul"): partial(_binary, Body.mul),
    ("", "Div"): partial(_binary, Body.div),
    ("", "Pow"): _power,
    ("", "Mod"): _modulo,
    ("", "Min"): partial(_variadic, Body.min),
    ("", "Max"): partial(_variadic, Body.max),
    ("", "Sum"): partial(_variadic, Body.add),
    ("", "Mean"): _mean,
    ("", "And"): partial(_logic, "arith.andi"),
    ("", "Or"): partial(_logic, "arith.ori"),
    ("", "Xor"): partial(_logic, "arith.xori"),
    ("", "Not"): _not,
    ("", "BitwiseAnd"): partial(_bits, "arith.andi"),
    ("", "BitwiseOr"): partial(_bits, "arith.ori"),
    ("", "BitwiseXor"): partial(_bits, "arith.xori"),
    ("", "BitwiseNot"): _bits_not,
    ("", "BitShift"): _shift,
    ("", "Where"): _where,
    ("", "IsNaN"): _is_nan,
    ("", "IsInf"): _is_inf,
    ("", "Cast"): _cast,
    ("", "CastLike"): _cast_like,
    ("", "Clip"): _clip,
}
