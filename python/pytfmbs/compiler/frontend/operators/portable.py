"""Ternary layers that a file says in standard operators (docs/onnx.md, "Portable"), found again.

A MatMulInteger whose metadata holds a layer's hint is the anchor; the nodes around it are looked at
one by one, and only what computes exactly a layer is taken as one. Anything else stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from pytfmbs.onnx import metadata

from ...emission.layers import emit_layer, from_trits
from ...emission.types import F32, F64, Array, Value
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Graph, Node
from .ternary import given_layer

_FLOOR, _LIMIT = 1e-5, 127.0  # docs/python-api.md, "Activations"


@dataclass(frozen=True)
class PortableLayer:
    """A layer's nodes, and what they read."""

    hint: dict[str, Any]
    source: str  # X
    trits: Array  # int8 [outputs, depth]
    scale: Array
    bias: str | None
    target: int | None  # ONNX's number of Y's type, where a Cast gives it
    wide: bool  # in fp64
    product: Node
    last: Node
    inner: frozenset[int]  # places of the other nodes


class _MismatchError(Exception):
    """The nodes compute something else."""


class _Matcher:
    """Walks from a product to its ends, and notes the nodes on its way."""

    def __init__(self, graph: Graph, product: Node) -> None:
        self._graph = graph
        self._product = product
        self.taken: dict[int, Node] = {product.place: product}

    def match(self, hint: dict[str, Any]) -> PortableLayer:
        if len([name for name in self._product.inputs if name]) != 2:
            raise _MismatchError
        trits = self._graph.constant(self._product.inputs[1])
        if (
            trits is None
            or trits.dtype != np.int8
            or trits.ndim != 2
            or np.abs(trits).max(initial=0) > 1
        ):
            raise _MismatchError
        int8 = hint["activation"] == "int8"
        cast = self._from(self._product.inputs[0], "Cast")
        if cast.integer("to") != onnx.TensorProto.INT8:
            raise _MismatchError
        source, wide_x, top = self._int8(cast) if int8 else self._ternary(cast)
        working, value = self._next(self._product, "Cast")
        kind = working.integer("to")
        if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
            raise _MismatchError
        multiply, value = self._next_of(value, "Mul")
        scale = self._scale(_other(multiply, working.outputs[0]), wide_x, top, int8)
        bias, last, target = None, multiply, None
        add = self._graph.only_consumer(value)
        if add is not None and add.op_type == "Add" and self._is_part(add, hint):
            last = self._take(add)
            bias = self._uncast(_other(add, value))
            value = add.outputs[0]
        narrow = self._graph.only_consumer(value)
        if narrow is not None and narrow.op_type == "Cast" and self._is_part(narrow, hint):
            last = self._take(narrow)
            target = narrow.integer("to")
            kept = self._kept(narrow, hint)
            last = last if kept is None else self._take(kept)
        inner = frozenset(place for place in self.taken if place != last.place)
        wide = kind == onnx.TensorProto.DOUBLE
        return PortableLayer(
            hint, source, trits.T, scale, bias, target, wide, self._product, last, inner
        )

    # --- the parts ------------------------------------------------------------------------------

    def _ternary(self, cast: Node) -> tuple[str, str, str | None]:
        sign = self._from(cast.inputs[0], "Sign")
        wide_x = self._clean(sign.inputs[0], infinities=False)
        return self._uncast(wide_x), wide_x, None

    def _int8(self, cast: Node) -> tuple[str, str, str | None]:
        clip = self._from(cast.inputs[0], "Clip")
        bounds = [self._number(name) for name in clip.inputs[1:]]
        if bounds != [-_LIMIT, _LIMIT]:
            raise _MismatchError
        multiply = self._from(self._from(clip.inputs[0], "Round").inputs[0], "Mul")
        clean, factor = multiply.inputs
        divide = self._from(factor, "Div")
        if self._number(divide.inputs[0]) != _LIMIT:
            raise _MismatchError
        top = self._from(divide.inputs[1], "Max")
        floor = self._number(top.inputs[1])
        if len(top.inputs) != 2 or floor is None or np.float32(floor) != np.float32(_FLOOR):
            raise _MismatchError
        largest = self._from(top.inputs[0], "ReduceMax")
        self._rows(largest)
        if self._from(largest.inputs[0], "Abs").inputs[0] != clean:
            raise _MismatchError
        wide_x = self._clean(clean, infinities=True)
        return self._uncast(wide_x), wide_x, divide.inputs[1]

    def _clean(self, name: str, infinities: bool) -> str:
        """X of Where(bad, 0, X)."""
        where = self._from(name, "Where")
        if self._number(where.inputs[1]) != 0.0:
            raise _MismatchError
        self._bad(where.inputs[0], where.inputs[2], infinities)
        return where.inputs[2]

    def _bad(self, name: str, x: str, infinities: bool) -> None:
        if infinities:
            either = self._from(name, "Or")
            infinite = self._from(either.inputs[1], "IsInf")
            signs = [infinite.flag(f"detect_{sign}", True) for sign in ("negative", "positive")]
            if infinite.inputs[0] != x or not all(signs):
                raise _MismatchError
            name = either.inputs[0]
        if self._from(name, "IsNaN").inputs[0] != x:
            raise _MismatchError

    def _scale(self, name: str, x: str, top: str | None, int8: bool) -> Array:
        """The output scales of Where(bad rows, NaN, row scales · output scales)."""
        where = self._from(name, "Where")
        nan = self._number(where.inputs[1])
        if nan is None or not np.isnan(nan):
            raise _MismatchError
        rows = self._from(where.inputs[0], "Cast")
        largest = self._from(rows.inputs[0], "ReduceMax")
        self._rows(largest)
        flags = self._from(largest.inputs[0], "Cast")
        self._bad(flags.inputs[0], x, int8)
        if not int8:
            return self._vector(where.inputs[2])
        producer = self._graph.producer(where.inputs[2])
        if producer is not None and producer.op_type == "Mul":
            self._take(producer)
            self._row_scale(producer.inputs[0], top)
            return self._vector(producer.inputs[1])
        self._row_scale(where.inputs[2], top)
        return np.ones(1, np.float64)

    def _row_scale(self, name: str, top: str | None) -> None:
        divide = self._from(name, "Div")
        if divide.inputs[0] != top or self._number(divide.inputs[1]) != _LIMIT:
            raise _MismatchError

    def _rows(self, reduce: Node) -> None:
        """Checks that a reduction is along the last dimension, which stays."""
        axes = self._graph.constant(reduce.inputs[1]) if len(reduce.inputs) > 1 else None
        if axes is None or axes.tolist() != [-1] or not reduce.flag("keepdims", True):
            raise _MismatchError

    def _kept(self, narrow: Node, hint: dict[str, Any]) -> Node | None:
        """Max(Y, Y) after the last Cast, which keeps a float16 value rounded."""
        (value,) = narrow.outputs
        readers = self._graph.consumers(value)
        if len(readers) != 1 or value in self._graph.outputs:
            return None
        (kept,) = readers
        return kept if self._is_same_twice(kept) and self._is_part(kept, hint) else None

    def _is_same_twice(self, node: Node) -> bool:
        return node.op_type == "Max" and not node.domain and len(set(node.inputs)) == 1

    # --- steps ----------------------------------------------------------------------------------

    def _take(self, node: Node) -> Node:
        self.taken[node.place] = node
        return node

    def _is_part(self, node: Node, hint: dict[str, Any]) -> bool:
        return bool(metadata.layer(node.proto) == hint["layer"])

    def _from(self, name: str, op_type: str) -> Node:
        node = self._graph.producer(name)
        if node is None or node.domain or node.op_type != op_type:
            raise _MismatchError
        return self._take(node)

    def _next(self, node: Node, op_type: str) -> tuple[Node, str]:
        return self._next_of(node.outputs[0], op_type)

    def _next_of(self, name: str, op_type: str) -> tuple[Node, str]:
        node = self._graph.only_consumer(name)
        if node is None or node.domain or node.op_type != op_type:
            raise _MismatchError
        return self._take(node), node.outputs[0]

    def _uncast(self, name: str) -> str:
        """What a Cast of this layer was of, and Max(X, X) before it, or the value itself."""
        cast = self._graph.producer(name)
        if cast is None or cast.op_type != "Cast" or not self._is_mine(cast):
            return name
        source = self._take(cast).inputs[0]
        kept = self._graph.producer(source)
        if kept is None or not self._is_same_twice(kept) or not self._is_mine(kept):
            return source
        if metadata.role(kept.proto) != metadata.QUANTIZE:  # the end of another call of this layer
            return source
        return self._take(kept).inputs[0]

    def _is_mine(self, node: Node) -> bool:
        return self._is_part(node, {"layer": metadata.layer(self._product.proto)})

    def _number(self, name: str) -> float | None:
        array = self._graph.constant(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def _vector(self, name: str) -> Array:
        array = self._graph.constant(name)
        if array is None or array.ndim > 1 or array.dtype.kind != "f":
            raise _MismatchError
        return array.reshape(-1)


def _other(node: Node, name: str) -> str:
    if len(node.inputs) != 2 or name not in node.inputs:
        raise _MismatchError
    return node.inputs[1 - node.inputs.index(name)]


def find(graph: Graph) -> tuple[dict[int, PortableLayer], set[int]]:
    """Layers by the place of their last node, and the places of nodes that only they need."""
    layers: dict[int, PortableLayer] = {}
    for node, hint in _anchors(graph):
        try:
            layer = _Matcher(graph, node).match(hint)
        except (_MismatchError, ConversionError, IndexError, ValueError):
            continue
        layers[layer.last.place] = layer
    inner = {place for layer in layers.values() for place in layer.inner}
    # What others read stays, and so does what it is made of: backwards, as readers come later.
    for node in reversed(graph.nodes):
        if node.place in inner and any(
            name in graph.outputs
            or any(c.place not in inner and c.place not in layers for c in graph.consumers(name))
            for name in node.outputs
        ):
            inner.discard(node.place)
    return layers, inner


def _anchors(graph: Graph) -> Iterator[tuple[Node, dict[str, Any]]]:
    for node in graph.nodes:
        if (node.domain, node.op_type) != ("", "MatMulInteger"):
            continue
        try:
            hint = metadata.read(node.proto)
        except ValueError as error:
            raise ConversionError(str(error)) from error
        if hint is not None:
            yield node, hint


def emit_portable(context: Context, layer: PortableLayer) -> Value:
    """The layer's ops."""
    hint = layer.hint
    outputs, depth = layer.trits.shape
    if (hint["out_features"], hint["in_features"]) != (outputs, depth):
        raise ConversionError(
            f"metadata says {hint['out_features']} x {hint['in_features']} weights; they are "
            f"{outputs} x {depth}"
        )
    if layer.scale.size not in (1, outputs):
        raise ConversionError(f"{layer.scale.size} scales do not fit {outputs} outputs")
    weight = from_trits(np.ascontiguousarray(layer.trits), layer.scale)
    if abs(weight.sparsity - hint["sparsity"]) > 1e-9:
        raise ConversionError(
            f"metadata says sparsity {hint['sparsity']:.4f}; the weights' is {weight.sparsity:.4f}"
        )
    ternary = given_layer(
        context,
        layer.product,
        weight,
        name=hint["layer"],
        tile_mask=hint["tile_mask"],
        weight_addr=hint["weight_addr"],
        weight_quantizer=hint["weight_quantizer"],
        activation=hint["activation"],
    )
    x = context.find(layer.source)
    if x is None:
        raise ConversionError(f"its input {layer.source!r} is no tensor")
    working = F64 if layer.wide else F32
    if x.element.compute != working:
        x = context.emit.cast(x, working)
    return emit_layer(context.emit, ternary, x, _bias(context, layer, outputs), layer.target)


def _bias(context: Context, layer: PortableLayer, outputs: int) -> Value | None:
    if layer.bias is None:
        return None
    bias = context.find(layer.bias)
    if bias is None or bias.extents != (outputs,) or not bias.element.is_float:
        raise ConversionError(f"bias {layer.bias!r} must be floats of [{outputs}]")
    return bias
