"""Ops of training, namespace ``tfmbs``: what is kept of an input, and the straight-through gradients.

All are pure: they touch no device. ``kept`` is a uint8 tensor of the input's leading dimensions, a row
of bytes for each row of the input (cpp/linear/include/tfmbs/linear/kept_activations.hpp).

``torch.ops.tfmbs.kept_activation(input, activation, ste_clip, values)``
    The quantized values (``values``), and where ``ste_clip`` is given which of them are inside the
    window; or the latter alone.
``torch.ops.tfmbs.unkept(kept, activation, windowed, values, in_features, dtype)``
    Both as floats: values times scale, and 1 inside and 0 outside; each empty where it was not kept.
``torch.ops.tfmbs.input_gradient(grad, weight, kept, identity, quantizer, activation, values, dtype)``
    (grad ŵ) inside the window of ``kept``. ``grad`` is float32, or float64 where ``dtype``, the
    result's, is.
``torch.ops.tfmbs.input_gradient_trits``, ``input_gradient_packed``
    The same of weights that are quantized already.
``torch.ops.tfmbs.weight_gradient(grad, kept, weight, activation, windowed)``
    (gradᵀ x̂) inside the weight's own window, of the weight's dtype.
``torch.ops.tfmbs.weight_gradient_everywhere(grad, kept, out_features, in_features, dtype, activation,
windowed)``
    gradᵀ x̂, for a weight that only other processes hold in floats. They apply the window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import forward_mode
from .dequantized import dequantized, dequantized_panels
from .function_transforms import as_function, differentiated

kept_activation = torch.ops.tfmbs.kept_activation.default
unkept = torch.ops.tfmbs.unkept.default
input_gradient = torch.ops.tfmbs.input_gradient.default
input_gradient_trits = torch.ops.tfmbs.input_gradient_trits.default
input_gradient_packed = torch.ops.tfmbs.input_gradient_packed.default
weight_gradient = torch.ops.tfmbs.weight_gradient.default
weight_gradient_everywhere = torch.ops.tfmbs.weight_gradient_everywhere.default

_library = torch.library.Library("tfmbs", "FRAGMENT")  # lives as long as its kernels

#: |w| above which a weight gets no gradient: kWeightWindow of gradients.hpp.
WEIGHT_CLIP = 1.0


def outside(value: Tensor, clip: float) -> Tensor:
    """Where the gradient does not pass. A NaN is inside."""
    return value.abs() > clip


# --- fakes ---------------------------------------------------------------------------------------


def _row_bytes(activation: str, values: bool, windowed: bool, depth: int) -> int:
    """KeptLayout::row_bytes."""
    if values and activation == "ternary":
        return -(-depth // 24) * 7
    bits = -(-depth // 8) if windowed else 0
    return depth + bits + 8 if values else bits


@torch.library.register_fake("tfmbs::kept_activation")
def _(input: Tensor, activation: str, ste_clip: float | None, values: bool) -> Tensor:
    width = _row_bytes(activation, values, ste_clip is not None, input.shape[-1])
    return input.new_empty((*input.shape[:-1], width), dtype=torch.uint8)


@torch.library.register_fake("tfmbs::unkept")
def _(
    kept: Tensor,
    activation: str,
    windowed: bool,
    values: bool,
    in_features: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    shape = (*kept.shape[:-1], in_features)
    return (
        kept.new_empty(shape if values else (0,), dtype=dtype),
        kept.new_empty(shape if windowed else (0,), dtype=dtype),
    )


@torch.library.register_fake("tfmbs::input_gradient")
def _(
    grad: Tensor,
    weight: Tensor,
    kept: Tensor | None,
    identity: Tensor,
    quantizer: str,
    activation: str,
    values: bool,
    dtype: torch.dtype,
) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], weight.shape[1]), dtype=dtype)


@torch.library.register_fake("tfmbs::input_gradient_trits")
def _(
    grad: Tensor,
    trits: Tensor,
    scale: Tensor,
    kept: Tensor | None,
    activation: str,
    values: bool,
    dtype: torch.dtype,
) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], trits.shape[1]), dtype=dtype)


@torch.library.register_fake("tfmbs::input_gradient_packed")
def _(
    grad: Tensor,
    panels: Tensor,
    scale: Tensor,
    kept: Tensor | None,
    layout: str,
    out_features: int,
    in_features: int,
    group_size: int,
    activation: str,
    values: bool,
    dtype: torch.dtype,
) -> Tensor:
    return grad.new_empty((*grad.shape[:-1], in_features), dtype=dtype)


@torch.library.register_fake("tfmbs::weight_gradient")
def _(grad: Tensor, kept: Tensor, weight: Tensor, activation: str, windowed: bool) -> Tensor:
    return weight.new_empty(weight.shape)


@torch.library.register_fake("tfmbs::weight_gradient_everywhere")
def _(
    grad: Tensor,
    kept: Tensor,
    out_features: int,
    in_features: int,
    dtype: torch.dtype,
    activation: str,
    windowed: bool,
) -> Tensor:
    return grad.new_empty((out_features, in_features), dtype=dtype)


# --- their own gradients -------------------------------------------------------------------------
# Each is linear in grad, and a constant in all else.


def _inside(
    kept: Tensor | None, activation: str, values: bool, depth: int, dtype: torch.dtype
) -> Tensor | float:
    if kept is None:
        return 1.0
    inside: Tensor = unkept(kept, activation, True, values, depth, dtype)[1]
    return inside


def _input_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, weight, kept, _, ctx.quantizer, ctx.activation, ctx.values, _ = inputs
    ctx.dtype = grad.dtype
    ctx.save_for_backward(weight, kept)


def _input_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    weight, kept = ctx.saved_tensors
    trits, scale = torch.ops.tfmbs.quantize_weight.default(weight, ctx.quantizer)
    return _back_through(ctx, upstream, dequantized(trits, scale, ctx.dtype), kept, 7)


def _back_through(
    ctx: Any, upstream: Tensor, weight: Tensor, kept: Tensor | None, others: int
) -> tuple[Any, ...]:
    inside = _inside(kept, ctx.activation, ctx.values, weight.shape[1], ctx.dtype)
    return ((upstream.to(ctx.dtype) * inside).matmul(weight.t()), *[None] * others)


def _input_trits_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, trits, scale, kept, ctx.activation, ctx.values, _ = inputs
    ctx.dtype = grad.dtype
    ctx.save_for_backward(trits, scale, kept)


def _input_trits_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    trits, scale, kept = ctx.saved_tensors
    return _back_through(ctx, upstream, dequantized(trits, scale, ctx.dtype), kept, 6)


def _input_packed_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, panels, scale, kept, *ctx.form, ctx.activation, ctx.values, _ = inputs
    ctx.dtype = grad.dtype
    ctx.save_for_backward(panels, scale, kept)


def _input_packed_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    panels, scale, kept = ctx.saved_tensors
    layout, outputs, inputs, group = ctx.form
    weight = dequantized_panels(panels, scale, layout, outputs, inputs, group, ctx.dtype)
    return _back_through(ctx, upstream, weight, kept, 10)


def _weight_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, kept, weight, ctx.activation, ctx.windowed = inputs
    ctx.dtype = grad.dtype
    ctx.save_for_backward(kept, weight)


def _weight_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    kept, weight = ctx.saved_tensors
    quantized, _ = unkept(kept, ctx.activation, ctx.windowed, True, weight.shape[1], ctx.dtype)
    inside = upstream.to(ctx.dtype) * ~outside(weight, WEIGHT_CLIP)
    return quantized.matmul(inside.t()), None, None, None, None


def _everywhere_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, kept, _, ctx.depth, _, ctx.activation, ctx.windowed = inputs
    ctx.dtype = grad.dtype
    ctx.save_for_backward(kept)


def _everywhere_backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
    (kept,) = ctx.saved_tensors
    quantized, _ = unkept(kept, ctx.activation, ctx.windowed, True, ctx.depth, ctx.dtype)
    return (quantized.matmul(upstream.to(ctx.dtype).t()), *[None] * 6)


def _register(
    op: Any, setup: Callable[..., Any], backward: Callable[..., Any]
) -> Callable[..., Tensor]:
    """The op as a backward pass calls it."""
    torch.library.register_autograd(op, backward, setup_context=setup)
    forward_mode.refuse_in(op, backward, setup, _library)
    transformed = as_function(op, (setup, backward)).apply

    def call(*args: Any) -> Tensor:
        traced = torch.compiler.is_compiling()
        return (transformed if not traced and differentiated() else op)(*args)  # type: ignore[no-any-return]

    return call


take_input_gradient = _register(input_gradient, _input_setup, _input_backward)
take_input_gradient_trits = _register(
    input_gradient_trits, _input_trits_setup, _input_trits_backward
)
take_input_gradient_packed = _register(
    input_gradient_packed, _input_packed_setup, _input_packed_backward
)
take_weight_gradient = _register(weight_gradient, _weight_setup, _weight_backward)
take_weight_gradient_everywhere = _register(
    weight_gradient_everywhere, _everywhere_setup, _everywhere_backward
)
