"""Operators on shape tensors: what exporters write for dynamic sizes, worked out as extents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ...emission.emitter import Emitter
from ...emission.types import I64, Extent, Value, constant, extents_of
from ..onnx_graph import Node

_ARITHMETIC: dict[str, Literal["add", "sub", "mul", "floordiv", "min", "max"]] = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "floordiv",
    "Min": "min",
    "Max": "max",
}


def evaluate(emit: Emitter, node: Node, inputs: Sequence[Value | None]) -> Value | None:
    """A node's result where it is a vector of extents that follows from its inputs; else None."""
    if node.domain or not any(v is not None and v.elements is not None for v in inputs):
        return None
    first = inputs[0]
    if first is None:
        return None
    parts = [None if v is None else extents_of(v) for v in inputs]
    if node.op_type in ("Identity", "Cast") and first.elements is not None:
        same = node.op_type == "Identity" or node.integer("to") == 7  # INT64
        return first if same else None
    if node.op_type in _ARITHMETIC and len(inputs) == 2:
        return _binary(emit, _ARITHMETIC[node.op_type], inputs, parts)
    own = parts[0]
    if own is None:
        return None
    if node.op_type == "Concat" and all(v is not None and v.rank == 1 for v in inputs):
        joined: list[Extent] = []
        for part in parts:
            if part is None:
                return None
            joined.extend(part)
        return _vector(joined)
    if node.op_type == "Gather" and first.rank == 1 and inputs[1] is not None:
        return _gather(own, inputs[1])
    if node.op_type in ("Squeeze", "Unsqueeze", "Reshape") and len(own) == 1:
        return _one(node, own[0], first, inputs)
    if node.op_type == "Slice" and first.rank == 1:
        return _slice(own, node, parts)
    if node.op_type == "ReduceProd" and first.rank == 1:
        keep = node.flag("keepdims", True)
        product = emit.product(own)
        return _vector([product]) if keep else _scalar(product)
    return None


def _binary(
    emit: Emitter,
    operation: Literal["add", "sub", "mul", "floordiv", "min", "max"],
    inputs: Sequence[Value | None],
    parts: Sequence[tuple[Extent, ...] | None],
) -> Value | None:
    left, right = parts
    if (
        left is None
        or right is None
        or 1 not in (len(left), len(right), 1 + len(left) - len(right))
    ):
        return None
    size = max(len(left), len(right))
    left, right = (p * size if len(p) == 1 else p for p in (left, right))
    if operation == "floordiv" and not all(isinstance(v, int) and v > 0 for v in right):
        return None
    results = [emit.extent(operation, a, b) for a, b in zip(left, right, strict=True)]
    if all(v is not None and v.rank == 0 for v in inputs):
        return _scalar(results[0])
    return _vector(results)


def _gather(own: tuple[Extent, ...], indices: Value) -> Value | None:
    places = extents_of(indices)
    if places is None or not all(isinstance(p, int) and -len(own) <= p < len(own) for p in places):
        return None
    picked = [own[p] for p in places if isinstance(p, int)]
    return _scalar(picked[0]) if indices.rank == 0 else _vector(picked)


def _one(node: Node, size: Extent, first: Value, inputs: Sequence[Value | None]) -> Value | None:
    """One size as a scalar, or as a vector of one."""
    if node.op_type == "Squeeze":
        return _scalar(size)
    if node.op_type == "Unsqueeze":
        return _vector([size]) if first.rank == 0 else None
    target = inputs[1].constant if len(inputs) > 1 and inputs[1] is not None else None
    if target is None or target.shape not in ((0,), (1,)):
        return None
    return _vector([size]) if target.size else _scalar(size)


def _slice(
    own: tuple[Extent, ...], node: Node, parts: Sequence[tuple[Extent, ...] | None]
) -> Value | None:
    numbers = [p[0] for p in (*parts[1:3], *parts[4:5]) if p is not None and len(p) == 1]
    if len(parts) < 3 or len(numbers) != len(parts) - 1 - (len(parts) > 3):
        return None
    bounds = [n for n in numbers if isinstance(n, int)]
    if len(bounds) != len(numbers) or (len(bounds) == 3 and bounds[2] == 0):
        return None
    step = bounds[2] if len(bounds) == 3 else 1
    return _vector(list(own[slice(bounds[0], bounds[1], step)]))


def _scalar(extent: Extent) -> Value:
    if isinstance(extent, int):
        return constant(np.array(extent, np.int64))
    return Value(I64, (), elements=(extent,))


def _vector(extents: Sequence[Extent]) -> Value:
    if all(isinstance(extent, int) for extent in extents):
        return constant(np.array(extents, np.int64))
    return Value(I64, (len(extents),), elements=tuple(extents))
