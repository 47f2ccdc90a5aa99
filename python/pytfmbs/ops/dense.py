"""Whether a tensor is one that this package's C++ reads: strided, with all of its memory there."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError


def check_layout(tensor: object, what: str) -> None:
    """Raises ArgumentError for a sparse or nested tensor; torch's own dispatcher would name
    backends instead."""
    if not isinstance(tensor, Tensor):
        return
    if tensor.is_nested:
        raise ArgumentError(f"{what}: a nested tensor; a ternary layer takes one of a single shape")
    if tensor.layout != torch.strided:
        raise ArgumentError(
            f"{what}: layout {tensor.layout}; a ternary layer takes torch.strided, as to_dense() gives"
        )


def exceeds_storage(tensor: Tensor) -> bool:
    """Whether a CPU tensor's storage was freed, or shrank below what sizes and strides reach.
    False where it cannot be asked: in a functorch transform, for one."""
    if tensor.is_nested or tensor.device.type != "cpu" or tensor.layout != torch.strided:
        return False
    if tensor.numel() == 0:
        return False
    try:
        held = tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return False
    steps = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.storage_offset() + steps + 1) * tensor.element_size() > held
