"""Weights that a file holds as trits in QDQ form: DequantizeLinear of constants that are -1, 0, +1
once their zero point is subtracted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..emission.types import Array
from ..errors import ConversionError
from .onnx_graph import Graph, Node

_PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True)
class TernaryMatrix:
    """trits · scale, element by element; both of one shape, the scale broadcast."""

    trits: Array  # int8
    scale: Array

    def transposed(self) -> TernaryMatrix:
        return TernaryMatrix(self.trits.T, self.scale.T)


@dataclass(frozen=True)
class TernaryProducts:
    """Products whose weights are such matrices."""

    #: Weights as a layer holds them, [outputs, depth] and [outputs], by the product's place.
    weights: Mapping[int, TernaryMatrix]
    #: Places of nodes that only these products read.
    inner: frozenset[int]


def find(graph: Graph) -> TernaryProducts:
    """MatMul and Gemm nodes whose second input is a ternary matrix with a scale that a layer can
    hold: one, or one an output. Others, blocked ones among them, stay products of floats."""
    matrices: dict[str, TernaryMatrix] = {}
    weights: dict[int, TernaryMatrix] = {}
    makers: list[Node] = []
    for node in graph.nodes:
        if node.domain or not node.inputs:
            continue
        if node.op_type in _PRODUCTS and len(node.inputs) > 1:
            matrix = matrices.get(node.inputs[1])
            fitting = None if matrix is None else _as_layer(node, matrix)
            if fitting is not None:
                weights[node.place] = fitting
            continue
        made = _matrix(graph, node, matrices)
        if made is not None:
            matrices[node.outputs[0]] = made
            makers.append(node)
    inner: set[int] = set()
    for node in reversed(makers):  # readers come later
        name = node.outputs[0]
        if name not in graph.outputs and all(
            reader.place in inner or (reader.place in weights and reader.inputs.count(name) == 1)
            for reader in graph.consumers(name)
        ):
            inner.add(node.place)
    return TernaryProducts(weights, frozenset(inner))


def _matrix(
    graph: Graph, node: Node, matrices: Mapping[str, TernaryMatrix]
) -> TernaryMatrix | None:
    if node.op_type == "DequantizeLinear":
        try:
            return _dequantized(graph, node)
        except (ConversionError, ValueError, IndexError):
            return None  # the operator's own check says it better
    source = matrices.get(node.inputs[0])
    if source is None:
        return None
    if node.op_type == "Identity":
        return source
    if node.op_type == "Transpose" and node.integers("perm", [1, 0]) == [1, 0]:
        return source.transposed()
    return None


def _dequantized(graph: Graph, node: Node) -> TernaryMatrix | None:
    integers, scale = (graph.constant(name) for name in node.inputs[:2])
    zero = graph.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
    if integers is None or scale is None or integers.ndim != 2 or integers.size == 0:
        return None
    if integers.dtype.kind not in "iu" or scale.dtype.kind not in "fV":
        return None
    if len(node.inputs) > 2 and node.inputs[2] and zero is None:
        return None
    axis, block = node.integer("axis", 1) % 2, node.integer("block_size", 0)
    trits = integers.astype(np.int32)
    if zero is not None:
        trits = trits - _spread(zero.astype(np.int32), trits.shape, axis, block)
    if np.abs(trits).max() > 1:
        return None
    return TernaryMatrix(trits.astype(np.int8), _spread(scale, trits.shape, axis, block))


def _spread(values: Array, shape: tuple[int, ...], axis: int, block: int) -> Array:
    """A scale or zero point of each element. Raises ValueError where it does not fit."""
    if values.size == 1 and values.ndim < 2:
        values = values.reshape(1, 1)
    elif values.ndim == 1 and not block:
        values = values.reshape((-1, 1) if axis == 0 else (1, -1))
    elif block:
        values = np.repeat(values, block, axis)[tuple(slice(size) for size in shape)]
    return np.broadcast_to(values, shape)


def _as_layer(node: Node, matrix: TernaryMatrix) -> TernaryMatrix | None:
    """The matrix as [outputs, depth] with one scale a row; None where a row has several."""
    as_given = node.op_type == "Gemm" and node.flag("transB", False)
    oriented = matrix if as_given else matrix.transposed()
    column = oriented.scale[:, 0]
    if (oriented.scale != column[:, None]).any():
        return None
    scale = column[:1] if (column == column[0]).all() else column
    return TernaryMatrix(np.ascontiguousarray(oriented.trits), np.ascontiguousarray(scale))
