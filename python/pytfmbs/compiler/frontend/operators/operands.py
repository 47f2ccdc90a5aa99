"""Inputs of nodes, checked: what every handler begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from ...emission.types import Array, Value
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import Node

Inputs: TypeAlias = Sequence[Value | None]

#: Called with the context, the node and its inputs (None where one is left out); gives the node's
#: outputs, or its only one.
Handler: TypeAlias = Callable[[Any, Any, Inputs], "Value | Sequence[Value | None]"]


def required(inputs: Inputs, place: int) -> Value:
    """An input that must be there."""
    value = optional(inputs, place)
    if value is None:
        raise ConversionError(f"input {place} is missing")
    return value


def optional(inputs: Inputs, place: int) -> Value | None:
    return inputs[place] if place < len(inputs) else None


def floats(inputs: Inputs, place: int) -> Value:
    """An input that must be of floats."""
    value = required(inputs, place)
    if not value.element.is_float:
        raise ConversionError(f"input {place} is of {value.element.name}; it must be floats")
    return value


def same_element(values: Sequence[Value]) -> None:
    """Raises ConversionError where element types differ."""
    kinds = {value.element for value in values}
    if len(kinds) > 1:
        names = ", ".join(value.element.name for value in values)
        raise ConversionError(f"inputs are of {names}; they must be of one type")


def array(context: Context, node: Node, value: Value, what: str) -> Array:
    """The elements of an input that has to be constant."""
    if value.constant is None:
        raise context.unsupported(node, f"{what} is computed by the model; it must be a constant")
    return value.constant


def integers(context: Context, node: Node, value: Value, what: str) -> list[int]:
    """The same, of integers in a vector or scalar."""
    values = array(context, node, value, what)
    if values.ndim > 1 or values.dtype.kind not in "iu":
        raise ConversionError(
            f"{what} must be a vector of integers, not {value.element.name} {value.shape}"
        )
    return [int(v) for v in values.reshape(-1)]


def axes(context: Context, node: Node, inputs: Inputs, place: int) -> list[int] | None:
    """Axes as newer versions give them, in an input, or as older ones, in an attribute; None where
    neither is there."""
    value = optional(inputs, place)
    if value is not None:
        return integers(context, node, value, "the list of axes")
    return node.integers("axes") if node.has("axes") else None


def scalar(context: Context, node: Node, value: Value, what: str) -> float:
    """A constant of one element."""
    values = array(context, node, value, what)
    if values.size != 1:
        raise ConversionError(f"{what} must be one number, not {value.shape}")
    return float(values.reshape(-1)[0])
