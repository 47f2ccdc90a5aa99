"""Library ops under torch.func's transforms: grad, vjp, jacrev, and vmap around them.

The autograd formula of a library op is unknown to them (torch 2.13): they want an autograd.Function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import forward_mode

Formula = tuple[Callable[..., Any], Callable[..., Any]]


def as_function(op: Callable[..., Any], formula: Formula) -> type[torch.autograd.Function]:
    """An op with its formula (what is kept for backward, and backward). Called with every argument."""
    setup, backward = formula

    class Transformed(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> Any:
            return op(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            setup(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return backward(ctx, *grads)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            forward_mode.refuse(str(op))

    return Transformed


_functorch = getattr(torch._C, "_functorch", None)
_top = getattr(_functorch, "peek_interpreter_stack", lambda: None)
_stack = getattr(_functorch, "get_interpreter_stack", lambda: None)


def differentiated() -> bool:
    """Whether a transform that takes derivatives runs now."""
    if _top() is None:
        return False
    return any(level.key().name in ("Grad", "Jvp") for level in _stack() or ())
