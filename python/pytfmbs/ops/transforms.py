"""The layers' ops under torch.func's transforms (function_transforms.py)."""

from __future__ import annotations

from . import torch_ops
from .function_transforms import as_function, differentiated

__all__ = ["differentiated", "linear", "linear_trits", "packed_linear"]

#: Called as the ops, with every argument.
linear = as_function(torch_ops.linear, torch_ops.LINEAR_FORMULA).apply
linear_trits = as_function(torch_ops.linear_trits, torch_ops.LINEAR_TRITS_FORMULA).apply
packed_linear = as_function(torch_ops.packed_linear, torch_ops.PACKED_LINEAR_FORMULA).apply
