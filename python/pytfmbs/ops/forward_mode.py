"""Forward-mode derivatives (jvp, jacfwd, dual numbers) are refused: torch takes an op without a formula
for a constant where no input requires a gradient, and would give zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad


def refuse_in(
    op: torch._ops.OpOverload,
    backward: Callable[..., Any],
    setup: Callable[..., Any],
    library: torch.library.Library,
) -> None:
    """Has an op raise NotImplementedError for an input with a tangent; for all else it keeps the
    gradient that torch.library.register_autograd gave it."""
    from torch._library.autograd import Info, make_autograd_impl

    kernel = make_autograd_impl(op, Info(backward, setup))

    def checked(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        if forward_ad._current_level >= 0:
            _check(op, args)
        return kernel(keyset, *args, **kwargs)

    library.impl(op._schema.name.split("::")[1], checked, "AutogradCPU", with_keyset=True)


def _check(op: torch._ops.OpOverload, args: tuple[Any, ...]) -> None:
    for value in args:
        if isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None:
            refuse(op.name())


def refuse(what: str) -> NoReturn:
    raise NotImplementedError(
        f"{what} has no forward-mode derivative, for a straight-through gradient is defined "
        "backward. Use reverse mode: backward(), torch.func.grad, vjp or jacrev"
    )
