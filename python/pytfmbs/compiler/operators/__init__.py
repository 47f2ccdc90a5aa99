"""The operators that can be taken, a module a family; the one list of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ..types import Value
from . import (
    activations,
    elementwise,
    indexing,
    linear,
    machine_learning,
    normalization,
    reduction,
    shape,
    ternary,
)

#: Called with the context, the node and its inputs (None where one is left out); gives the
#: node's outputs, or its only one.
Handler: TypeAlias = Callable[
    [Any, Any, Sequence[Value | None]], Value | Sequence[Value | None]
]

#: By domain ("" is ONNX's own) and operator.
OPERATORS: Mapping[tuple[str, str], Handler] = {
    **elementwise.OPERATORS,
    **activations.OPERATORS,
    **shape.OPERATORS,
    **indexing.OPERATORS,
    **reduction.OPERATORS,
    **normalization.OPERATORS,
    **linear.OPERATORS,
    **ternary.OPERATORS,
    **machine_learning.OPERATORS,
}
