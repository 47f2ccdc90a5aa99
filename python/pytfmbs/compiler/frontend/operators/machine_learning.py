"""Operators of ai.onnx.ml that skl2onnx writes for linear models and preprocessing."""

from __future__ import annotations

import math

import numpy as np

from ...emission.scalars import Body, Scalar
from ...emission.structure import gather, matmul, reshape
from ...emission.types import F32, F64, I64, Value, constant, fits
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node
from .activations import sigmoid
from .elementwise import apply, apply_binary
from .operands import Handler, Inputs, required
from .reduction import NORMS, divided_by_norm, softmax
from .ternary import float_layer

DOMAIN = "ai.onnx.ml"


def _as_float(context: Context, value: Value) -> Value:
    """What these operators compute in: doubles stay, everything else is fp32."""
    return value if value.element is F64 else context.emit.cast(value, F32)


def _scaler(context: Context, node: Node, inputs: Inputs) -> Value:
    """(x - offset) · scale, of features or of all."""
    x = context.emit.cast(required(inputs, 0), F32)
    offset = constant(np.array(node.numbers("offset", [0.0]), np.float32))
    scale = constant(np.array(node.numbers("scale", [1.0]), np.float32))

    def body(block: Body, v: list[Scalar]) -> Scalar:
        return block.mul(block.sub(v[0], v[1]), v[2])

    result = context.emit.elementwise([x, offset, scale], F32, body)
    if not fits(result.extents, x.extents):
        raise ConversionError(f"offset {offset.shape} and scale {scale.shape} do not fit {x.shape}")
    context.emit.same_extents(result.extents, x.extents)
    return result


def _linear_scores(context: Context, node: Node, x: Value, outputs: int) -> Value:
    x = context.emit.cast(x, F32)
    if x.rank == 1:
        x = reshape(context.emit, x, (1, *x.extents))
    coefficients = np.array(node.numbers("coefficients"), np.float32)
    if x.rank != 2 or outputs < 1 or coefficients.size == 0 or coefficients.size % outputs:
        raise ConversionError(
            f"{coefficients.size} coefficients of {outputs} outputs do not fit input {x.shape}"
        )
    weight = coefficients.reshape(outputs, -1)
    intercepts = node.numbers("intercepts", [])
    if intercepts and len(intercepts) != outputs:
        raise ConversionError(f"there are {len(intercepts)} intercepts for {outputs} outputs")
    bias = constant(np.array(intercepts, np.float32)) if intercepts else None
    if context.options.keep_floats:
        scores = matmul(context.emit, x, constant(np.ascontiguousarray(weight.T)))
        return scores if bias is None else apply_binary(context, scores, bias, Body.add)
    return float_layer(context, node, x, weight, (f"{node.place}:coefficients", True), 1.0, bias)


def _transformed(context: Context, node: Node, scores: Value) -> Value:
    kind = node.text("post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return apply(context, scores, sigmoid)
    if kind == "SOFTMAX":
        return softmax(context.emit, scores, [1])
    raise context.unsupported(node, f"its post_transform is {kind!r}")


def _linear_regressor(context: Context, node: Node, inputs: Inputs) -> Value:
    scores = _linear_scores(context, node, required(inputs, 0), node.integer("targets", 1))
    return _transformed(context, node, scores)


def _linear_classifier(context: Context, node: Node, inputs: Inputs) -> list[Value | None]:
    labels = node.integers("classlabels_ints", [])
    strings = 0
    if node.has("classlabels_strings"):
        strings = len(node._read("classlabels_strings", 8, None))
    outputs = len(node.numbers("intercepts", [])) or len(labels) or strings
    if outputs == 1 and max(len(labels), strings) > 1:
        raise context.unsupported(node, "it has one score for two classes")
    scores = _linear_scores(context, node, required(inputs, 0), outputs)
    label: Value | None = None
    if labels:
        if len(labels) != outputs:
            raise ConversionError(f"there are {len(labels)} labels for {outputs} outputs")
        label = _labels(context, scores, np.array(labels, np.int64))
    # Labels that are strings are no tensor here: whoever reads them is told so.
    return [label, _transformed(context, node, scores)]


def _labels(
    context: Context, scores: Value, labels: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> Value:
    """The label of each row's greatest score, the first of equals."""
    emit = context.emit
    best = emit.filled((scores.extents[0],), -math.inf, scores.element)
    place = emit.filled((scores.extents[0],), 0, I64)

    def body(block: Body, v: list[Scalar]) -> tuple[Scalar, Scalar]:
        here = block.number(block.index(1))
        better = block.compare("gt", v[0], v[1])
        return block.select(better, v[0], v[1]), block.select(better, here, v[2])

    _, winner = emit.loops(
        ["parallel", "reduction"], [(scores, (0, 1))], [(best, (0,)), (place, (0,))], body
    )
    return gather(emit, constant(labels), winner, 0)


def _normalizer(context: Context, node: Node, inputs: Inputs) -> Value:
    x = context.emit.cast(required(inputs, 0), F32)
    kind = node.text("norm", "MAX")
    if kind not in NORMS or x.rank == 0:
        raise ConversionError(f"attribute norm is {kind!r}; allowed are {', '.join(NORMS)}")
    return divided_by_norm(context, x, [x.rank - 1], NORMS[kind])


def _array_feature_extractor(context: Context, node: Node, inputs: Inputs) -> Value:
    """The features with given numbers, of the last dimension."""
    x, indices = required(inputs, 0), required(inputs, 1)
    if x.rank == 0 or indices.element.kind != "signed":
        raise ConversionError(f"it takes int64 indices, not {indices.element.name}")
    emit = context.emit
    flat = reshape(emit, indices, (emit.product(indices.extents),))
    if x.rank == 1:
        x = reshape(emit, x, (1, *x.extents))
    size = x.extents[-1]
    if flat.constant is not None:
        last = size - 1 if isinstance(size, int) else np.iinfo(np.int64).max
        wrong = flat.constant[(flat.constant < 0) | (flat.constant > last)]
        if wrong.size:
            raise ConversionError(f"index {wrong[0]} is outside the features of {x.shape}")
    return gather(emit, x, flat, x.rank - 1)


def _zip_map(context: Context, node: Node, inputs: Inputs) -> Value:
    raise context.unsupported(
        node,
        "it gives dictionaries, not tensors; choose its input as output instead: "
        f"outputs=[{node.inputs[0]!r}], on the command line --output-names {node.inputs[0]} "
        "(or export with zipmap=False)",
    )


def _binarizer(context: Context, node: Node, inputs: Inputs) -> Value:
    x = _as_float(context, required(inputs, 0))
    threshold = node.number("threshold", 0.0)
    return apply(
        context,
        x,
        lambda b, v: b.select(b.compare("gt", v, b.like(threshold, v)), b.like(1, v), b.like(0, v)),
    )


OPERATORS: dict[tuple[str, str], Handler] = {
    (DOMAIN, "Scaler"): _scaler,
    (DOMAIN, "LinearRegressor"): _linear_regressor,
    (DOMAIN, "LinearClassifier"): _linear_classifier,
    (DOMAIN, "Normalizer"): _normalizer,
    (DOMAIN, "ArrayFeatureExtractor"): _array_feature_extractor,
    (DOMAIN, "ZipMap"): _zip_map,
    (DOMAIN, "Binarizer"): _binarizer,
}
