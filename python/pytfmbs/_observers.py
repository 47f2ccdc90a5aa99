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


_dispatch_modes = _private("_C._len_torch_dispatch_stack")
_function_modes = _private("_C._len_torch_function_stack")
_transforms = _private("_C._functorch.peek_interpreter_stack")  # vmap, grad, jvp
_autocast = _private("_C._is_any_autocast_enabled")
_profiler = _private("_C._autograd._profiler_enabled")
_jit_trace = _private("_C._get_tracing_state")


def is_observed() -> bool:
    """Whether a mode, a transform, autocast, a profiler or a tracer would see an op that is
    dispatched now. Callbacks that belong to no profiler (ExecutionTraceObserver alone) cannot be
    asked for."""
    return bool(
        _dispatch_modes()
        or _function_modes()
        or _transforms() is not None
        or _autocast()
        or _profiler()
        or _jit_trace() is not None
    )
