"""Nodes whose inputs are all constants, computed now by onnx's reference implementation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx

from ..emission.types import Array
from .onnx_graph import Node

_LARGEST = 2**28  # elements of a result

#: Results of these have the size of their inputs' broadcast at most.
_BROADCASTING = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Min",
        "Max",
        "Mod",
        "Equal",
        "Less",
        "LessOrEqual",
        "Greater",
        "GreaterOrEqual",
        "And",
        "Or",
        "Xor",
        "Where",
        "Abs",
        "Ceil",
        "Cos",
        "Erf",
        "Exp",
        "Floor",
        "Identity",
        "Log",
        "Neg",
        "Not",
        "Reciprocal",
        "Round",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sqrt",
        "Tanh",
        "Cast",
        "Clip",
        "Relu",
        "IsNaN",
        "IsInf",
        "Transpose",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "Slice",
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ArgMax",
        "Trilu",
        "CumSum",
        "DequantizeLinear",
    ]
)
#: These too, but for their size, which is looked at first.
_SIZED = frozenset(("Gather", "Expand", "Range"))


def fold(node: Node, inputs: Sequence[Array | None], opset: int) -> list[Array] | None:
    """What a node gives, or None where it is not to be computed now."""
    if node.domain or (node.op_type not in _BROADCASTING and node.op_type not in _SIZED):
        return None
    arrays = [array for array in inputs if array is not None]
    if not arrays or _size(node.op_type, inputs, arrays) > _LARGEST:
        return None
    quick = _QUICK.get(node.op_type)
    try:
        with np.errstate(all="ignore"):
            if quick is not None and len(arrays) == 1:
                return [quick(node, arrays[0])]
            results = _reference(node, opset).run(
                None, {n: a for n, a in zip(node.inputs, inputs, strict=True) if a is not None}
            )
    except Exception:  # whatever it is: the operator's own check will say it better
        return None
    if any(not isinstance(r, np.ndarray | np.generic) for r in results):
        return None
    return [np.asarray(result) for result in results]


_SIZE_OF_FIRST = frozenset(("Reshape", "Slice", "Squeeze", "Unsqueeze", "DequantizeLinear"))


def _size(op_type: str, inputs: Sequence[Array | None], arrays: Sequence[Array]) -> int:
    if op_type == "Gather" and len(arrays) == 2:
        return arrays[0].size * max(1, arrays[1].size)
    if op_type == "Expand" and len(arrays) == 2:
        return max(1, arrays[0].size) * math.prod(max(1, int(v)) for v in arrays[1].reshape(-1))
    if op_type == "Range" and len(arrays) == 3 and all(a.size == 1 for a in arrays):
        start, limit, step = (float(a.reshape(-1)[0]) for a in arrays)
        count = (limit - start) / step if step else math.inf
        return int(max(0.0, count)) if math.isfinite(count) else _LARGEST + 1
    if op_type == "Concat":
        return sum(array.size for array in arrays)
    if op_type in _SIZE_OF_FIRST or op_type.startswith("Reduce"):
        return arrays[0].size
    try:
        return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
    except ValueError:
        return _LARGEST + 1


def _transposed(node: Node, array: Array) -> Array:
    order = node.integers("perm", list(reversed(range(array.ndim))))
    return np.ascontiguousarray(array.transpose(order))


#: What exporters do to weights, without the reference's start-up time.
_QUICK: dict[str, Any] = {
    "Identity": lambda node, array: array,
    "Transpose": _transposed,
}


@lru_cache(maxsize=1)
def _evaluator_class() -> Any:
    from onnx.reference import ReferenceEvaluator  # slow to import, and seldom needed

    return ReferenceEvaluator


def _reference(node: Node, opset: int) -> Any:
    graph = onnx.helper.make_graph(
        [node.proto],
        "fold",
        [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(node.inputs) if name],
        [onnx.ValueInfoProto(name=name) for name in node.outputs if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return _evaluator_class()(model)
