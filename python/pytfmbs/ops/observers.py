"""Who else wants to see an op: what torch's dispatcher would ask.

The one place that asks torch's private functions for it, for torch has no public ones (2.13); a
torch that lacks one of them is always asked to dispatch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


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
