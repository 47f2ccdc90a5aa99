"""The operators that can be taken, a module a family; the one list of them."""

from __future__ import annotations

from collections.abc import Mapping

from . import (
    activations,
    elementwise,
    indexing,
    linear,
    machine_learning,
    normalization,
    quantization,
    reduction,
    shape,
    ternary,
    windows,
)
from .operands import Handler

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
    **quantization.OPERATORS,
    **windows.OPERATORS,
}
