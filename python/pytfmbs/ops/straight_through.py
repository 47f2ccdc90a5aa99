"""Straight-through gradients of a ternary linear layer.

The forward is y = x̂ ŵᵀ + b with x̂ and ŵ quantized and rescaled. The gradient takes both
quantizers for identities inside a window, and their scales for constants (Bengio et al. 2013;
Courbariaux et al. 2016):

    dL/dx = (g ŵ) · 1[|x| ≤ ste_clip]      dL/dw = (gᵀ x̂) · 1[|w| ≤ 1]      dL/db = Σ g

A NaN counts as inside. Of the input, x̂ as it was quantized is kept and a bit a value for the window;
of the weight the parameter itself, which is no copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .gradient_ops import (
    kept_activation,
    take_input_gradient,
    take_input_gradient_packed,
    take_input_gradient_trits,
    take_weight_gradient,
    take_weight_gradient_everywhere,
)


def keep(
    ctx: Any,
    input: Tensor,
    weight: Tensor,
    needs: tuple[bool, bool, bool],
    activation: str,
    ste_clip: float | None,
) -> tuple[Tensor | None, Tensor | None]:
    """What the gradients of input, weight and bias read: of the input, and the weight. The rest may be
    written in place meanwhile. ``ctx`` gets what is no tensor."""
    ctx.needs, ctx.activation = needs, activation
    ctx.dtypes = input.dtype, weight.dtype
    kept = _keep_input(ctx, input, ste_clip, needs[0], needs[1])
    return kept, storable(weight) if needs[0] or needs[1] else None


def _keep_input(
    ctx: Any, input: Tensor, ste_clip: float | None, needs_input: bool, values: bool
) -> Tensor | None:
    ctx.windowed = needs_input and ste_clip is not None
    if not (values or ctx.windowed):
        return None
    kept: Tensor = kept_activation(
        input.detach(), ctx.activation, ste_clip if ctx.windowed else None, values
    )
    return kept


def storable(tensor: Tensor) -> Tensor:
    """What autograd keeps: no inference tensor."""
    return tensor.clone() if tensor.is_inference() else tensor


def gradients(
    ctx: Any, grad: Tensor, kept: Tensor | None, weight: Tensor | None, identity: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of input, weight and bias, each None where not needed. ctx.quantizer: the weight quantizer's
    name. identity: of the layer, whose packed weights are read if they are this weight's still."""

    def of_input(grad: Tensor, window: Tensor | None, dtype: torch.dtype) -> Tensor:
        return take_input_gradient(
            grad, weight, window, identity, ctx.quantizer, ctx.activation, ctx.needs[1], dtype
        )

    return _gradients(ctx, grad, kept, of_input, _of_weight(ctx, kept, weight))


def gradients_of_trits(
    ctx: Any,
    grad: Tensor,
    kept: Tensor | None,
    weight: Tensor | None,
    trits: Tensor | None,
    scale: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The same with trits and scale that a quantizer in Python gave."""

    def of_input(grad: Tensor, window: Tensor | None, dtype: torch.dtype) -> Tensor:
        return take_input_gradient_trits(
            grad, trits, scale, window, ctx.activation, ctx.needs[1], dtype
        )

    return _gradients(ctx, grad, kept, of_input, _of_weight(ctx, kept, weight))


def _of_weight(ctx: Any, kept: Tensor | None, weight: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda grad: take_weight_gradient(grad, kept, weight, ctx.activation, ctx.windowed)


def _gradients(
    ctx: Any,
    grad: Tensor,
    kept: Tensor | None,
    of_input: Callable[[Tensor, Tensor | None, torch.dtype], Tensor],
    of_weight: Callable[[Tensor], Tensor],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    needs_input, needs_weight, needs_bias = ctx.needs
    grad = grad.to(_precision(ctx.dtypes[1]))
    grad_input = grad_weight = grad_bias = None
    if needs_input:
        grad_input = _input_gradient(ctx, grad, kept, of_input)
    if needs_weight:
        grad_weight = of_weight(grad)
    if needs_bias:
        grad_bias = _bias_gradient(grad).to(ctx.dtypes[1])
    return grad_input, grad_weight, grad_bias


def _precision(dtype: torch.dtype) -> torch.dtype:
    """In which products are computed: float32 for 16-bit floats, which then are rounded once."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _input_gradient(
    ctx: Any,
    grad: Tensor,
    kept: Tensor | None,
    of_input: Callable[[Tensor, Tensor | None, torch.dtype], Tensor],
) -> Tensor:
    dtype = ctx.dtypes[0]
    direct = dtype if _precision(dtype) == grad.dtype else grad.dtype
    return of_input(grad, kept if ctx.windowed else None, direct).to(dtype)


def _bias_gradient(grad: Tensor) -> Tensor:
    return grad if grad.dim() == 1 else grad.sum(tuple(range(grad.dim() - 1)))


def keep_packed(ctx: Any, input: Tensor, activation: str, ste_clip: float | None) -> Tensor | None:
    """What the gradient of a packed layer's input reads of the input."""
    ctx.activation = activation
    ctx.dtypes = input.dtype, input.dtype
    return _keep_input(ctx, input, ste_clip, ctx.needs_input_grad[0], False)


def packed_gradients(
    ctx: Any,
    grad: Tensor,
    kept: Tensor | None,
    panels: Tensor,
    scale: Tensor,
    form: tuple[str, int, int, int],
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Of input and bias. form: layout, out_features, in_features, group_size."""

    def of_input(grad: Tensor, window: Tensor | None, dtype: torch.dtype) -> Tensor:
        return take_input_gradient_packed(
            grad, panels, scale, window, *form, ctx.activation, False, dtype
        )

    grad = grad.to(_precision(ctx.dtypes[0]))
    return (
        _input_gradient(ctx, grad, kept, of_input) if needs[0] else None,
        _bias_gradient(grad) if needs[1] else None,
    )


def keep_gathered(
    ctx: Any,
    input: Tensor,
    dtype: torch.dtype,
    needs: tuple[bool, bool, bool],
    activation: str,
    ste_clip: float | None,
) -> Tensor | None:
    """What the gradients of input, weight and bias read of the input, where this process has the
    quantized weight and not its floats. dtype: theirs."""
    ctx.needs, ctx.activation = needs, activation
    ctx.dtypes = input.dtype, dtype
    return _keep_input(ctx, input, ste_clip, needs[0], needs[1])


def gathered_gradients(
    ctx: Any,
    grad: Tensor,
    kept: Tensor | None,
    panels: Tensor,
    scale: Tensor,
    form: tuple[str, int, int, int],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Of input, weight and bias; the weight's without its window, which needs the floats. form: as
    packed_gradients'."""

    def of_input(grad: Tensor, window: Tensor | None, dtype: torch.dtype) -> Tensor:
        return take_input_gradient_packed(
            grad, panels, scale, window, *form, ctx.activation, ctx.needs[1], dtype
        )

    def of_weight(grad: Tensor) -> Tensor:
        return take_weight_gradient_everywhere(
            grad, kept, form[1], form[2], ctx.dtypes[1], ctx.activation, ctx.windowed
        )

    return _gradients(ctx, grad, kept, of_input, of_weight)
