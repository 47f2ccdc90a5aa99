"""Who else wants to see an op: what torch's dispatcher would ask.

The one place that asks torch's private functions for it, for torch has no public ones (2.13); a
torch that lacks one of them is always asked to dispatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef


def _always() -> bool:
    return True


def _private(path: str) -> Callable[[], Any]:
    found: Any = torch
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if callable(found) else _always


# Each says by what is neither None nor false that an op that is dispatched now would be seen: by
# autograd, a mode, a transform (vmap, grad, jvp), autocast, a profiler or a tracer. Callbacks that
# belong to no profiler (ExecutionTraceObserver alone) cannot be asked for.
# _fabric.Layer.direct_forward asks them all, in C, where that takes half the time.
QUESTIONS: tuple[Callable[[], Any], ...] = (
    torch.is_grad_enabled,
    _private("_C._len_torch_dispatch_stack"),
    _private("_C._len_torch_function_stack"),
    _private("_C._functorch.peek_interpreter_stack"),
    _private("_C._is_any_autocast_enabled"),
    _private("_C._autograd._profiler_enabled"),
    _private("_C._is_tracing"),
)

#: Whether a profiler of torch records.
profiler_enabled: Callable[[], bool] = getattr(
    torch._C._autograd, "_profiler_enabled", lambda: False
)

_use_count = getattr(torch._C, "_storage_Use_Count", None)


def storage_holders(tensor: torch.Tensor) -> int:
    """References to a tensor's storage, its own among them; 1 where torch does not say."""
    if _use_count is None:
        return 1
    storage = tensor.untyped_storage()
    return int(_use_count(storage._cdata)) - 1  # `storage` is one


def storage_reference(tensor: torch.Tensor | None) -> StorageWeakRef | None:
    """What tells a tensor's present storage from every other, without holding it."""
    if tensor is None or type(tensor.data) is not torch.Tensor:
        return None
    try:
        return StorageWeakRef(tensor.untyped_storage())
    except (NotImplementedError, RuntimeError):  # inside a transform of torch.func
        return None


def is_storage_of(reference: StorageWeakRef | None, tensor: torch.Tensor) -> bool:
    return reference is not None and reference.cdata == tensor.untyped_storage()._cdata


#: A module's dictionary, and the name in it that is -1 unless dual numbers (forward mode) are in use.
FORWARD_MODE = (vars(torch.autograd.forward_ad), "_current_level")
