"""Operators that have no handler here, taken by ONNX's own definition of them as a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from ..emission.types import Value, onnx_type
from .onnx_graph import Node


def body(node: Node, inputs: Sequence[Value | None], opset: int) -> onnx.FunctionProto | None:
    """The definition of a node's operator for the opset, or None where ONNX gives none."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opset, node.domain)  # its stubs lack these
    except onnx.defs.SchemaError:
        return None
    plain = [v for v in schema.function_opset_versions if v <= opset]
    typed = [v for v in schema.context_dependent_function_opset_versions if v <= opset]
    if plain:
        data = schema.get_function_with_opset_version(max(plain))
    elif typed:
        data = schema.get_context_dependent_function_with_opset_version(
            max(typed), node.proto.SerializeToString(), [_type(v) for v in inputs]
        )
    else:
        return None
    function = onnx.FunctionProto()
    function.ParseFromString(data)
    return function if function.node else None


def _type(value: Value | None) -> bytes:
    if value is None:
        return b""
    sizes = [size if isinstance(size, int) else None for size in value.extents]
    proto = onnx.helper.make_tensor_type_proto(onnx_type(value.element), sizes)
    return bytes(proto.SerializeToString())


def instantiate(
    function: onnx.FunctionProto, node: Node, prefix: str
) -> tuple[list[onnx.NodeProto], list[str]]:
    """The definition's nodes with the call's inputs and attributes, every other name under the
    prefix; and what its outputs are called."""
    names = {"": ""}
    for place, name in enumerate(function.input):
        names[name] = node.inputs[place] if place < len(node.inputs) else ""
    attributes = {attribute.name: attribute for attribute in _defaults(node)}
    attributes |= {attribute.name: attribute for attribute in function.attribute_proto}
    attributes |= {attribute.name: attribute for attribute in node.proto.attribute}

    def renamed(name: str) -> str:
        return names.setdefault(name, prefix + name)

    nodes = []
    for proto in function.node:
        own = onnx.NodeProto(
            op_type=proto.op_type, domain=proto.domain, name=proto.name or proto.op_type
        )
        own.input.extend(map(renamed, proto.input))
        own.output.extend(map(renamed, proto.output))
        for attribute in proto.attribute:
            given = (
                attributes.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
            )
            if given is not None:
                own.attribute.add().CopyFrom(given)
                own.attribute[-1].name = attribute.name
        nodes.append(own)
    return nodes, [renamed(name) for name in function.output]


def _defaults(node: Node) -> list[onnx.AttributeProto]:
    schema = onnx.defs.get_schema(node.op_type, domain=node.domain)
    return [a.default_value for a in schema.attributes.values() if a.default_value.name]
