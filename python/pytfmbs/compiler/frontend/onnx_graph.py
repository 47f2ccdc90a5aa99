"""An ONNX model read, checked and put in order."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import google.protobuf.message  # type: ignore[import-untyped]
import numpy as np
import onnx
import onnx.inliner
from onnx import numpy_helper

from ..emission.types import Array, onnx_type_name
from ..errors import ConversionError, InvalidModelError

OWN_DOMAIN = "pytfmbs"
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
_LARGEST_RANK = 64
_WIDER = {"int4": np.int8, "int2": np.int8, "uint4": np.uint8, "uint2": np.uint8}


def load(source: onnx.ModelProto | str | os.PathLike[str]) -> onnx.ModelProto:
    """A model with its external data in memory. Raises InvalidModelError; OSError where the file
    itself cannot be read."""
    if isinstance(source, onnx.ModelProto):
        return source
    path = Path(source)
    data = path.read_bytes()
    try:
        model = onnx.load_from_string(data)
    except (google.protobuf.message.DecodeError, ValueError, RuntimeError, TypeError) as error:
        raise InvalidModelError(f"{path} is no ONNX file: {error}") from error
    if not model.HasField("graph"):
        raise InvalidModelError(f"{path} is no ONNX file: it has no graph")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, RuntimeError, TypeError, onnx.checker.ValidationError) as error:
        raise InvalidModelError(f"{path}: external data cannot be read: {error}") from error
    return model


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with calls of its own functions replaced by their bodies; the project's operator
    stays an operator."""
    if not model.functions:
        return model
    bodies: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for function in model.functions:
        calls = {(node.domain, node.op_type) for node in function.node}
        bodies.setdefault((function.domain, function.name), set()).update(calls)
    _check_no_recursion(bodies)
    kept = [
        (function.domain, function.name)
        for function in model.functions
        if function.domain == OWN_DOMAIN
    ]
    try:
        return onnx.inliner.inline_selected_functions(model, kept, exclude=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InvalidModelError(f"the model's functions cannot be inlined: {error}") from error


def _check_no_recursion(calls: Mapping[tuple[str, str], set[tuple[str, str]]]) -> None:
    done: set[tuple[str, str]] = set()
    for root in calls:
        path: list[tuple[str, str]] = []
        stack: list[tuple[tuple[str, str], Iterator[tuple[str, str]]]] = []
        if root in done:
            continue
        stack.append((root, iter(calls[root])))
        path.append(root)
        while stack:
            function, callees = stack[-1]
            callee = next((c for c in callees if c in calls and c not in done), None)
            if callee is None:
                done.add(function)
                stack.pop()
                path.pop()
            elif callee in path:
                raise InvalidModelError(f"function {callee[1]!r} calls itself")
            else:
                path.append(callee)
                stack.append((callee, iter(calls[callee])))


class Node:
    """A node, and its attributes as what they should be."""

    def __init__(self, proto: onnx.NodeProto, place: int) -> None:
        self.proto = proto
        self.place = place
        self.op_type = proto.op_type
        self.domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.inputs: list[str] = list(proto.input)
        self.outputs: list[str] = list(proto.output)
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    @property
    def name(self) -> str:
        """The node's name, or one made of what it gives."""
        return self.proto.name or f"{self.op_type} of {next(iter(self.outputs), '')!r}"

    def __repr__(self) -> str:
        return f"{self.op_type} node {self.name!r}"

    @property
    def metadata(self) -> dict[str, str]:
        return {entry.key: entry.value for entry in self.proto.metadata_props}

    @property
    def controls_flow(self) -> bool:
        graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        return self.op_type in _CONTROL_FLOW or any(
            attribute.type in graphs for attribute in self.proto.attribute
        )

    def has(self, name: str) -> bool:
        return name in self._attributes

    def integer(self, name: str, default: int | None = None) -> int:
        return int(self._read(name, onnx.AttributeProto.INT, default))

    def number(self, name: str, default: float | None = None) -> float:
        return float(self._read(name, onnx.AttributeProto.FLOAT, default))

    def flag(self, name: str, default: bool) -> bool:
        value = self.integer(name, int(default))
        if value not in (0, 1):
            raise ConversionError(f"attribute {name} is {value}; it must be 0 or 1")
        return bool(value)

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        return [int(v) for v in self._read(name, onnx.AttributeProto.INTS, default)]

    def numbers(self, name: str, default: Sequence[float] | None = None) -> list[float]:
        return [float(v) for v in self._read(name, onnx.AttributeProto.FLOATS, default)]

    def text(self, name: str, default: str | None = None) -> str:
        raw = self._read(name, onnx.AttributeProto.STRING, default)
        try:
            return raw if isinstance(raw, str) else bytes(raw).decode()
        except UnicodeDecodeError:
            raise ConversionError(f"attribute {name} is {raw!r}, which is no text") from None

    def tensor(self, name: str) -> Array:
        return tensor_array(self._read(name, onnx.AttributeProto.TENSOR, None), f"attribute {name}")

    def _read(self, name: str, kind: int, default: Any) -> Any:
        attribute = self._attributes.get(name)
        if attribute is None:
            if default is None:
                raise ConversionError(f"attribute {name} is missing")
            return default
        if attribute.type != kind:
            names = onnx.AttributeProto.AttributeType
            raise ConversionError(
                f"attribute {name} must be {names.Name(kind)}, not {names.Name(attribute.type)}"
            )
        return onnx.helper.get_attribute_value(attribute)


def tensor_array(tensor: onnx.TensorProto, what: str) -> Array:
    """A tensor's elements. Raises InvalidModelError where they do not fit its shape or type."""
    dims = list(tensor.dims)
    if any(size < 0 for size in dims) or math.prod(dims) > 2**62 or len(dims) > _LARGEST_RANK:
        raise InvalidModelError(f"{what} has shape {dims}, which no tensor has")
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InvalidModelError(
            f"{what} lies in an external file, and nothing says where that is: pass the path of "
            "the .onnx file, or load it with onnx.load"
        )
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, IndexError) as error:
        kind = onnx_type_name(tensor.data_type)
        raise InvalidModelError(
            f"{what}, {kind} of shape {dims}, cannot be read: {error}"
        ) from error
    if list(array.shape) != dims:
        raise InvalidModelError(f"{what} of shape {dims} holds {array.size} elements")
    # Integers of 4 and 2 bits are constants only here, and operators that take them take these too.
    wider = _WIDER.get(array.dtype.name)
    return array if wider is None else array.astype(wider)


class Graph:
    """The main graph: nodes that the wanted outputs need, each after what it reads."""

    def __init__(self, model: onnx.ModelProto, outputs: Sequence[str] | None) -> None:
        _check_texts(model.graph)
        model = inline_functions(model)
        self.proto = model.graph
        self.opsets = _opsets(model)
        self._initializers = {t.name: t for t in self.proto.initializer}
        if self.proto.sparse_initializer:
            raise InvalidModelError(
                f"initializer {self.proto.sparse_initializer[0].values.name!r} is sparse; only "
                "dense ones can be taken"
            )
        self.inputs = [i for i in self.proto.input if i.name not in self._initializers]
        all_nodes = [Node(proto, place) for place, proto in enumerate(self.proto.node)]
        self._producers = self._find_producers(all_nodes)
        self.outputs = self._wanted(outputs)
        self.nodes = self._ordered()
        self._consumers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                self._consumers.setdefault(name, []).append(node)

    @property
    def initializer_names(self) -> list[str]:
        return list(self._initializers)

    def initializer(self, name: str) -> Array:
        return tensor_array(self._initializers[name], f"initializer {name!r}")

    def is_initializer(self, name: str) -> bool:
        return name in self._initializers

    def constant(self, name: str) -> Array | None:
        """The elements of an initializer or of a Constant node; None of anything else."""
        if self.is_initializer(name):
            return self.initializer(name)
        node = self.producer(name)
        if node is not None and (node.domain, node.op_type) == ("", "Constant"):
            return node.tensor("value") if node.has("value") else None
        return None

    def producer(self, name: str) -> Node | None:
        return self._producers.get(name)

    def consumers(self, name: str) -> list[Node]:
        return self._consumers.get(name, [])

    def only_consumer(self, name: str) -> Node | None:
        """The node that reads a value, where it is one and nobody else sees the value."""
        consumers = self.consumers(name)
        one = len(consumers) == 1 and consumers[0].inputs.count(name) == 1
        return consumers[0] if one and name not in self.outputs else None

    def outputs_fed_by(self, node: Node) -> tuple[str, ...]:
        """The wanted outputs that need a node."""
        reached = set(node.outputs)
        for later in self.nodes:
            if reached.intersection(later.inputs):
                reached.update(later.outputs)
        return tuple(name for name in self.outputs if name in reached)

    def opset(self, domain: str) -> int:
        return self.opsets.get(domain, 1)

    def _find_producers(self, nodes: Sequence[Node]) -> dict[str, Node]:
        producers: dict[str, Node] = {}
        taken = {i.name for i in self.inputs}
        if len(taken) != len(self.inputs):
            raise InvalidModelError("two graph inputs have one name")
        for node in nodes:
            for name in node.outputs:
                if not name:
                    continue
                if name in producers or name in taken or name in self._initializers:
                    raise InvalidModelError(f"{node!r} gives {name!r}, which is defined already")
                producers[name] = node
        return producers

    def _known(self, name: str) -> bool:
        return (
            name in self._producers
            or name in self._initializers
            or any(i.name == name for i in self.inputs)
        )

    def _wanted(self, outputs: Sequence[str] | None) -> list[str]:
        own = [output.name for output in self.proto.output]
        wanted = own if outputs is None else list(outputs)
        if not wanted:
            raise InvalidModelError("the graph has no outputs")
        for name in wanted:
            if not isinstance(name, str) or not self._known(name):
                raise InvalidModelError(
                    f"output {name!r} is no value of the graph; its outputs are {own}"
                )
        return wanted

    def _ordered(self) -> list[Node]:
        """Depth first from the outputs, without recursion; then in the file's order as far as that
        is an order, so that the module reads like the file."""
        needed: dict[int, Node] = {}
        stack = [self._producers[name] for name in self.outputs if name in self._producers]
        while stack:
            node = stack.pop()
            if node.place in needed:
                continue
            needed[node.place] = node
            for name in node.inputs:
                if name and not self._known(name):
                    raise InvalidModelError(
                        f"{node!r} reads {name!r}, which nothing defines (a missing initializer?)"
                    )
                producer = self._producers.get(name)
                if producer is not None:
                    stack.append(producer)
        waits = {
            place: {p.place for name in node.inputs if (p := self._producers.get(name)) is not None}
            for place, node in needed.items()
        }
        readers: dict[int, list[int]] = {}
        for place, sources in waits.items():
            for source in sources:
                readers.setdefault(source, []).append(place)
        ready = [place for place, sources in waits.items() if not sources]
        heapq.heapify(ready)
        ordered: list[Node] = []
        while ready:
            place = heapq.heappop(ready)
            ordered.append(needed[place])
            for reader in readers.get(place, ()):
                waits[reader].discard(place)
                if not waits[reader]:
                    heapq.heappush(ready, reader)
        if len(ordered) < len(needed):
            caught = next(node for place, node in sorted(needed.items()) if waits[place])
            raise InvalidModelError(f"the graph has a cycle through {caught!r}")
        return ordered


def _check_texts(graph: onnx.GraphProto) -> None:
    """Raises InvalidModelError for a name that is no UTF-8, which protobuf gives as bytes."""
    texts: list[Any] = []
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
        texts += [text for entry in node.metadata_props for text in (entry.key, entry.value)]
    texts += [tensor.name for tensor in graph.initializer]
    for info in (*graph.input, *graph.output):
        texts.append(info.name)
        texts += [dim.dim_param for dim in info.type.tensor_type.shape.dim]
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise InvalidModelError(f"the name {wrong!r} is no UTF-8")


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        opsets[domain] = max(int(entry.version), opsets.get(domain, 0))
    if "" not in opsets and any(n.domain in ("", "ai.onnx") for n in model.graph.node):
        raise InvalidModelError("the model names no version of ONNX's own operators (opset_import)")
    return opsets
