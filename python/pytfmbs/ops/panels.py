"""Packed weights in memory of their own: one copy, written where it stays."""

from __future__ import annotations

from torch import Tensor

from .. import _fabric
from . import torch_ops


def empty_panels(layout: str, outputs: int, inputs: int) -> Tensor:
    """Uninitialized uint8 memory for panels of that shape.

    Not torch's: its allocator is malloc, which leaves a hole beside each matrix of megabytes.
    """
    return _fabric.weight_memory(_fabric.panel_bytes(layout, outputs, inputs))


def panels_of_trits(trits: Tensor, layout: str) -> Tensor:
    """Panels of a matrix of int8 trits. Raises ArgumentError for a value that is no trit."""
    panels = empty_panels(layout, *trits.shape)
    torch_ops.panels_of_trits(trits, layout, panels)
    return panels


def panels_of_rows(packed: Tensor, inputs: int, layout: str) -> Tensor:
    """Panels of rows of PT-5. Raises EncodingError for a byte that is no code."""
    panels = empty_panels(layout, packed.shape[0], inputs)
    torch_ops.panels_of_rows(packed, inputs, layout, panels)
    return panels
