"""Gemm and MatMul: ternary layers where one side is constant, plain products elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ...emission.scalars import Body, Scalar
from ...emission.structure import matmul, reshape, swap_last
from ...emission.types import I32, Array, Extent, Value, constant, fits
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from ..ternary_weights import TernaryMatrix
from .elementwise import apply, apply_binary
from .operands import Handler, Inputs, optional, required, same_element
from .ternary import float_layer, qdq_layer


def _is_weight(context: Context, value: Value) -> bool:
    """A constant matrix of floats that has elements and is to become a layer's weights."""
    return (
        not context.options.keep_floats
        and value.constant is not None
        and value.element.is_float
        and value.rank == 2
        and value.constant.size > 0
    )


def vector_bias(value: Value, outputs: int, rank: int) -> Value | None:
    """A constant as a bias [outputs], where adding it to a result of that rank is one."""
    array = value.constant
    if array is None:
        return value if value.extents == (outputs,) and rank >= 1 else None
    if (
        array.ndim > rank
        or array.size not in (1, outputs)
        or (array.ndim and array.shape[-1] != array.size)
    ):
        return None
    if array.shape == (outputs,):
        return value
    return constant(np.ascontiguousarray(np.broadcast_to(array.reshape(-1), (outputs,))))


def _gemm(context: Context, node: Node, inputs: Inputs) -> Value:
    a, c = required(inputs, 0), optional(inputs, 2)
    ternary = context.ternary.get(node.place)
    if ternary is not None:
        return _ternary_gemm(context, node, a, ternary, c)
    b = required(inputs, 1)
    same_element([v for v in (a, b, c) if v is not None])
    if a.rank != 2 or b.rank != 2:
        raise ConversionError(f"it takes matrices, not {a.shape} and {b.shape}")
    if c is not None and node.has("broadcast"):
        raise context.unsupported(node, "it is of an opset before 7; export a newer one")
    trans_a, trans_b = node.flag("transA", False), node.flag("transB", False)
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if c is not None and beta == 0.0:
        c = None
    emit = context.emit
    if a.element.is_float and _is_weight(context, b):
        x = swap_last(emit, a) if trans_a else a
        # [outputs, depth] is what a layer holds.
        weight = _array(b) if trans_b else _array(b).T
        bias = None if c is None else _folded_bias(c, beta, weight.shape[0])
        y = float_layer(context, node, x, weight, (node.inputs[1], trans_b), alpha, bias)
        return y if c is None or bias is not None else _plus(context, y, c, beta)
    if a.element.is_float and _is_weight(context, a) and b.constant is None:
        # (a·b) = (bᵀ·aᵀ)ᵀ: the constant side is the weights.
        x = b if trans_b else swap_last(emit, b)
        weight = _array(a).T if trans_a else _array(a)
        y = float_layer(context, node, x, weight, (node.inputs[0], not trans_a), alpha, None)
        y = swap_last(emit, y)
        return y if c is None else _plus(context, y, c, beta)
    left = swap_last(emit, a) if trans_a else a
    right = swap_last(emit, b) if trans_b else b
    y = matmul(emit, left, right)
    if alpha != 1.0:
        y = _times(context, y, alpha)
    return y if c is None else _plus(context, y, c, beta)


def _ternary_gemm(
    context: Context, node: Node, a: Value, weight: TernaryMatrix, c: Value | None
) -> Value:
    if a.rank != 2:
        raise ConversionError(f"it takes matrices, not {a.shape}")
    if c is not None and node.has("broadcast"):
        raise context.unsupported(node, "it is of an opset before 7; export a newer one")
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    if c is not None:
        same_element([a, c])
        c = None if beta == 0.0 else c
    x = swap_last(context.emit, a) if node.flag("transA", False) else a
    bias = None if c is None else _folded_bias(c, beta, weight.trits.shape[0])
    y = qdq_layer(context, node, x, weight, alpha, bias)
    return y if c is None or bias is not None else _plus(context, y, c, beta)


def _array(value: Value) -> Array:
    assert value.constant is not None
    return value.constant


def _folded_bias(c: Value, beta: float, outputs: int) -> Value | None:
    bias = vector_bias(c, outputs, 2)
    if bias is None or beta == 1.0:
        return bias
    if bias.constant is None:
        return None
    work: Any = bias.element.compute.numpy
    scaled = bias.constant.astype(work) * np.asarray(beta, work)
    return constant(scaled.astype(bias.element.numpy))


def _times(context: Context, value: Value, factor: float) -> Value:
    if not value.element.is_float and factor != int(factor):
        raise ConversionError(f"a factor of {factor} for {value.element.name}")
    return apply(context, value, lambda b, x: b.mul(x, b.like(factor, x)))


def _plus(context: Context, y: Value, c: Value, beta: float) -> Value:
    if beta != 1.0:
        c = _times(context, c, beta)
    result = apply_binary(context, y, c, Body.add)
    if not fits(result.extents, y.extents):
        raise ConversionError(f"C {c.shape} does not broadcast to {y.shape}")
    context.emit.same_extents(result.extents, y.extents)
    return result


def _matmul(context: Context, node: Node, inputs: Inputs) -> Value:
    a = required(inputs, 0)
    ternary = context.ternary.get(node.place)
    if ternary is not None:
        bias, add = _bias_after(context, node, ternary.trits.shape[0], max(a.rank, 1))
        y = qdq_layer(context, node, a, ternary, 1.0, bias)
        if add is not None:
            context.absorb(add, [y])
        return y
    b = required(inputs, 1)
    same_element([a, b])
    emit = context.emit
    if _is_weight(context, b) and a.rank >= 1:
        weight = _array(b).T
        bias, add = _bias_after(context, node, weight.shape[0], max(a.rank, 1))
        y = float_layer(context, node, a, weight, (node.inputs[1], False), 1.0, bias)
        if add is not None:
            context.absorb(add, [y])
        return y
    if _is_weight(context, a) and b.constant is None and b.rank >= 2:
        y = float_layer(
            context, node, swap_last(emit, b), _array(a), (node.inputs[0], True), 1.0, None
        )
        return swap_last(emit, y)
    return matmul(emit, a, b)


def _bias_after(
    context: Context, node: Node, outputs: int, rank: int
) -> tuple[Value | None, Node | None]:
    """The Add after a product that is its bias, where it is one and nobody else reads the product."""
    add = context.graph.only_consumer(node.outputs[0])
    if add is None or (add.domain, add.op_type) != ("", "Add") or len(add.inputs) != 2:
        return None, None
    if len(add.outputs) != 1 or add.has("broadcast"):
        return None, None
    other = add.inputs[1 - add.inputs.index(node.outputs[0])]
    value = context.find(other) if other else None
    source = context.graph.producer(other)
    if value is None and source is not None and source.op_type == "Constant":
        return None, None  # it comes later in the file; rare, and the Add stays an Add
    product = context.find(node.inputs[0])
    if value is None or product is None or value.element != product.element:
        return None, None
    bias = vector_bias(value, outputs, rank)
    return (None, None) if bias is None else (bias, add)


def _einsum(context: Context, node: Node, inputs: Inputs) -> Value:
    """Sums of products by letters; 16-bit floats sum in fp32."""
    values = [required(inputs, place) for place in range(len(inputs))]
    same_element(values)
    text = node.text("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = [_letters(t, v.rank) for t, v in zip(left.split(","), values, strict=True)]
    used = [letter for term in terms for letter in term]
    if arrow:
        widest = max(sum(letter[0] == "." for letter in term) for term in terms)
        result = _letters(right, widest + len(right.replace("...", "")), widest)
    else:
        dots = sorted({letter for letter in used if letter[0] == "."})
        result = dots + sorted(v for v in set(used) if used.count(v) == 1 and v[0] != ".")
    emit = context.emit
    sizes: dict[str, Extent] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, size in zip(term, value.extents, strict=True):
            known = sizes.setdefault(letter, size)
            sizes[letter] = emit.broadcast([(known,), (size,)])[0]
            if letter[0] != ".":
                emit.same_extents((known,), (size,))
    if not set(result) <= set(used) or any(
        letter[0] == "." and size != sizes[letter]
        for term, value in zip(terms, values, strict=True)
        for letter, size in zip(term, value.extents, strict=True)
    ):
        raise context.unsupported(node, f"its equation {text!r} broadcasts")
    order = [*result, *dict.fromkeys(letter for letter in used if letter not in result)]
    element = values[0].element.compute
    init = emit.filled([sizes[letter] for letter in result], 0, element)

    def body(block: Body, x: list[Scalar]) -> Sequence[Scalar]:
        product = block.cast(x[0], element)
        for factor in x[1:-1]:
            product = block.mul(product, block.cast(factor, element))
        return (block.add(x[-1], product),)

    kinds: list[Literal["parallel", "reduction"]] = [
        "parallel" if letter in result else "reduction" for letter in order
    ]
    operands = [
        (v, [order.index(letter) for letter in term]) for term, v in zip(terms, values, strict=True)
    ]
    summed = emit.loops(kinds, operands, [(init, range(len(result)))], body)[0]
    return emit.cast(summed, values[0].element)


def _letters(term: str, rank: int, dots: int | None = None) -> list[str]:
    """A term's letters, an ellipsis as the letters .0, .1, … counted from the end."""
    before, ellipsis, after = term.partition("...")
    count = rank - len(before) - len(after) if dots is None else dots
    if count < 0 or (count and not ellipsis):
        raise ConversionError(f"term {term!r} does not fit a tensor of rank {rank}")
    return [*before, *[f".{i}" for i in reversed(range(count))], *after]


# --- integers -----------------------------------------------------------------------------------


def _matmul_integer(context: Context, node: Node, inputs: Inputs) -> Value:
    """int32 products of 8-bit integers less their zero points."""
    sides = []
    for place, per in ((0, "row"), (1, "column")):
        value, zero = required(inputs, place), optional(inputs, place + 2)
        if value.element.is_float or value.element.bits != 8:
            raise ConversionError(f"input {place} is of {value.element.name}, not 8-bit integers")
        sides.append(less_zero(context, value, zero, per))
    return matmul(context.emit, *sides)


def less_zero(context: Context, value: Value, zero: Value | None, per: str) -> Value:
    if zero is None:
        return context.emit.cast(value, I32)
    if zero.element != value.element:
        raise ConversionError(f"the zero point of a {per} is of {zero.element.name}")
    if zero.rank == 1 and zero.extents != (1,) and per == "row":
        zero = reshape(context.emit, zero, (*zero.extents, 1))

    def body(block: Body, x: list[Scalar]) -> Scalar:
        return block.sub(block.cast(x[0], I32), block.cast(x[1], I32))

    result = context.emit.elementwise([value, zero], I32, body)
    if result.rank != value.rank:
        raise ConversionError(f"a zero point of {zero.shape} does not fit {value.shape}")
    context.emit.same_extents(result.extents, value.extents)
    return result


OPERATORS: dict[tuple[str, str], Handler] = {
    ("", "Einsum"): _einsum,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
    ("", "MatMulInteger"): _matmul_integer,
}
