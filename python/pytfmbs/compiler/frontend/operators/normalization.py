"""Normalizations at inference."""

from __future__ import annotations

from ...emission.emitter import Emitter
from ...emission.scalars import Body, Scalar
from ...emission.structure import axis_of, mean, reshape
from ...emission.types import F64, Value
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from .operands import Handler, Inputs, floats, optional, required


def _batch(context: Context, node: Node, inputs: Inputs) -> list[Value]:
    x = floats(inputs, 0)
    if node.flag("training_mode", False) or len([name for name in node.outputs if name]) > 1:
        raise context.unsupported(node, "it is in training mode; export the model in eval mode")
    if x.rank < 2:
        raise ConversionError(f"input is {x.shape}; it must be [N, C, ...]")
    parameters = [required(inputs, place) for place in range(1, 5)]
    emit = context.emit
    channels = x.extents[1]
    for value in parameters:
        if value.rank != 1 or (
            isinstance(channels, int) and value.extents[0] not in (channels, *_names(value))
        ):
            raise ConversionError(
                f"a parameter is {value.shape}; the input has {channels} channels"
            )
        emit.requires.equal(value.extents[0], channels)
    shaped = [reshape(emit, v, (v.extents[0], *[1] * (x.rank - 2))) for v in parameters]
    work = F64 if x.element is F64 else x.element.compute
    epsilon = node.number("epsilon", 1e-5)

    def body(block: Body, v: list[Scalar]) -> Scalar:
        value, scale, bias, centre, variance = (block.cast(operand, work) for operand in v)
        deviation = block.op("math.sqrt", block.add(variance, block.like(epsilon, variance)))
        normal = block.div(block.sub(value, centre), deviation)
        return block.cast(block.add(block.mul(normal, scale), bias), x.element)

    return [emit.elementwise([x, *shaped], x.element, body)]


def _names(value: Value) -> list[str]:
    return [size for size in value.extents if isinstance(size, str)]


def _variance_inverse(emit: Emitter, centred: Value, axes: range, epsilon: float) -> Value:
    """1 / sqrt(mean(x²) + epsilon) along axes, which stay as ones."""
    squares = emit.elementwise([centred], centred.element, lambda b, v: b.mul(v[0], v[0]))
    variance = mean(emit, squares, axes, True)

    def body(block: Body, v: list[Scalar]) -> Scalar:
        root = block.op("math.sqrt", block.add(v[0], block.like(epsilon, v[0])))
        return block.div(block.like(1, root), root)

    return emit.elementwise([variance], variance.element, body)


def _scaled(
    emit: Emitter, x: Value, normal: Value, inverse: Value, scale: Value, bias: Value | None
) -> Value:
    """normal · inverse · scale + bias, in x's type."""
    work = normal.element
    extra = [] if bias is None else [bias]

    def body(block: Body, v: list[Scalar]) -> Scalar:
        value = block.mul(block.mul(v[0], v[1]), block.cast(v[2], work))
        if bias is not None:
            value = block.add(value, block.cast(v[3], work))
        return block.cast(value, x.element)

    result = emit.elementwise([normal, inverse, scale, *extra], x.element, body)
    if result.rank != x.rank:
        raise ConversionError(f"scale {scale.shape} does not broadcast to {x.shape}")
    emit.same_extents(result.extents, x.extents)
    return result


def _layer(context: Context, node: Node, inputs: Inputs) -> list[Value]:
    x, scale = floats(inputs, 0), required(inputs, 1)
    axes = range(axis_of(node.integer("axis", -1), x.rank), x.rank)
    emit = context.emit
    wide = emit.cast(x, x.element.compute)
    centre = mean(emit, wide, axes, True)
    centred = emit.elementwise([wide, centre], wide.element, lambda b, v: b.sub(v[0], v[1]))
    inverse = _variance_inverse(emit, centred, axes, node.number("epsilon", 1e-5))
    result = _scaled(emit, x, centred, inverse, scale, optional(inputs, 2))
    return [result, centre, inverse]


def _root_mean_square(context: Context, node: Node, inputs: Inputs) -> Value:
    x, scale = floats(inputs, 0), required(inputs, 1)
    axes = range(axis_of(node.integer("axis", -1), x.rank), x.rank)
    emit = context.emit
    wide = emit.cast(x, x.element.compute)
    inverse = _variance_inverse(emit, wide, axes, node.number("epsilon", 1e-5))
    return _scaled(emit, x, wide, inverse, scale, None)


OPERATORS: dict[tuple[str, str], Handler] = {
    ("", "BatchNormalization"): _batch,
    ("", "LayerNormalization"): _layer,
    ("", "RMSNormalization"): _root_mean_square,
}
