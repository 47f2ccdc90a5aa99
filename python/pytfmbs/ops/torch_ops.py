"""The torch ops, namespace ``tfmbs``: fakes, autograd and effects around cpp/torch_ops.

Ops of a layer share three kinds of arguments. ``identity`` (identity.py) is a uint8 vector: what the
layer is called on its device, as data, so that equal blocks share one compiled graph and a program
exported with it runs in any process. ``quantizer``, ``activation`` and ``ste_clip`` change the numbers
or the gradients. ``training`` says that changes of the weight are seen by content.

``torch.ops.tfmbs.linear(input, weight, bias, identity, quantizer, activation, ste_clip, training,
out_dtype)``
    A ternary linear layer.
``torch.ops.tfmbs.linear_relu(...)``
    The same and a ReLU, in one pass over the output.
``torch.ops.tfmbs.linear_trits(input, weight, trits, scale, bias, identity, activation, ste_clip,
out_dtype)``
    ``linear`` with weights that are quantized already.
``torch.ops.tfmbs.prefetch``, ``prefetch_trits``
    Load a layer's weights into Bank A; True if they are resident.
``torch.ops.tfmbs.pack``, ``pack_trits``
    Pack a layer's weights ahead of its first forward pass.
``torch.ops.tfmbs.packed_linear(input, panels, scale, bias, identity, layout, out_features,
in_features, group_size, activation, ste_clip, out_dtype)``
    A layer whose weights are packed: ``panels`` (uint8) and ``scale`` (fp32) as the kernels read
    them. ``group_size`` 0: one scale, or one an output.
``torch.ops.tfmbs.panels_of_trits``, ``panels_of_rows``, ``trits_of_panels``, ``rows_of_panels``,
``rows_of_trits``, ``ordered_scales``, ``scale_rows``
    Between trits, the rows of files (PT-5, each aligned to a byte) and what ``packed_linear`` takes.
    The first two write panels into ``out``, so that their caller chooses the memory: panels.py.
``torch.ops.tfmbs.quantize_weight(weight, quantizer)``, ``quantize_activation(input, activation,
magnitudes)``
    The quantizers alone: int8 values and their scales. These are pure. ``magnitudes``, [rows], are
    for rows of which other processes hold the rest: its absolute maximum.
``torch.ops.tfmbs.packed_sums(input, magnitudes, panels, scale, identity, layout, out_features,
in_features, group_size, activation)``
    ``packed_linear`` without scales and bias: the exact sums, int32 [groups, ..., out_features]. Those
    of processes that each hold a part of the inputs may be added.
``torch.ops.tfmbs.scaled_sums(sums, row_scale, scale, bias, in_features, group_size, wide, dtype)``
    What ``packed_linear`` makes of such sums. A scale that is NaN makes its row or output NaN.
    ``wide``: in fp64.
``torch.ops.tfmbs.weight_magnitudes(weight, by_output, thresholds)``
    Exact sums of |w|, int64 [1 or out_features, words], of the weights above a threshold, if one is
    given. Those of parts of a weight may be added.
``torch.ops.tfmbs.weight_rule(magnitudes, quantizer, wide)``
    The thresholds (float64) and scales that "absmean" or "twn" takes from such sums. "twn" takes the
    scale from the sums above its threshold.
``torch.ops.tfmbs.trits_above(weight, thresholds)``
    Trits, int8, and which outputs hold a NaN, uint8.
``torch.ops.tfmbs_onnx.linear(input, weight, bias, layer, out_dtype)``
    What a layer is while torch.onnx.export traces it: without effect, for the exporter knows no
    ordered effects, and without a kernel. ``layer`` is the whole specification as text. pytfmbs.onnx
    translates it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from .. import _fabric
from . import forward_mode, gradient_ops, straight_through
from .dequantized import dequantized_panels as dequantized_panels
from .straight_through import storable

_library = torch.library.Library("tfmbs", "FRAGMENT")  # lives as long as its kernels

linear = torch.ops.tfmbs.linear.default
linear_relu = torch.ops.tfmbs.linear_relu.default
linear_trits = torch.ops.tfmbs.linear_trits.default
prefetch = torch.ops.tfmbs.prefetch.default
prefetch_trits = torch.ops.tfmbs.prefetch_trits.default
pack = torch.ops.tfmbs.pack.default
pack_trits = torch.ops.tfmbs.pack_trits.default
packed_linear = torch.ops.tfmbs.packed_linear.default
prefetch_packed = torch.ops.tfmbs.prefetch_packed.default
panels_of_trits = torch.ops.tfmbs.panels_of_trits.default
panels_of_rows = torch.ops.tfmbs.panels_of_rows.default
trits_of_panels = torch.ops.tfmbs.trits_of_panels.default
rows_of_panels = torch.ops.tfmbs.rows_of_panels.default
rows_of_trits = torch.ops.tfmbs.rows_of_trits.default
ordered_scales = torch.ops.tfmbs.ordered_scales.default
scale_rows = torch.ops.tfmbs.scale_rows.default
quantize_weight = torch.ops.tfmbs.quantize_weight.default
quantize_activation = torch.ops.tfmbs.quantize_activation.default
packed_sums = torch.ops.tfmbs.packed_sums.default
scaled_sums = torch.ops.tfmbs.scaled_sums.default
weight_magnitudes = torch.ops.tfmbs.weight_magnitudes.default
weight_rule = torch.ops.tfmbs.weight_rule.default
trits_above = torch.ops.tfmbs.trits_above.default
# Of training: gradient_ops.py.
kept_activation = gradient_ops.kept_activation
unkept = gradient_ops.unkept
input_gradient = gradient_ops.input_gradient
input_gradient_trits = gradient_ops.input_gradient_trits
input_gradient_packed = gradient_ops.input_gradient_packed
weight_gradient = gradient_ops.weight_gradient
weight_gradient_everywhere = gradient_ops.weight_gradient_everywhere

torch.library.define(
    "tfmbs_onnx::linear",
    "(Tensor input, Tensor weight, Tensor? bias, str layer, ScalarType? out_dtype=None) -> Tensor",
)
onnx_linear = torch.ops.tfmbs_onnx.linear.default

_DEVICE_OPS = (
    "linear",
    "linear_relu",
    "linear_trits",
    "prefetch",
    "prefetch_trits",
    "pack",
    "pack_trits",
    "packed_linear",
    "packed_sums",
    "prefetch_packed",
)


def _register_ordered_effects() -> None:
    """Keeps torch.compile from dropping, merging or reordering ops that the device sees.

    torch.library has no public call for it yet (2.13); this is the one place that uses the private
    one.
    """
    from torch._library.effects import EffectType

    for name in _DEVICE_OPS:
        torch.library._register_effectful_op(f"tfmbs::{name}", EffectType.ORDERED)


# --- fakes ---------------------------------------------------------------------------------------


def fake_output(
    input: Tensor, weight: Tensor, bias: Tensor | None, out_dtype: torch.dtype | None
) -> Tensor:
    """A tensor of the output's shape and dtype. Raises what nn.Linear raises."""
    if input.device != weight.device:  # a weight on meta that nothing has loaded
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {input.device} and "
            f"{weight.device}"
        )
    if out_dtype is not None:  # as autocast does
        input, weight = input.to(out_dtype), weight.to(out_dtype)
        if bias is not None and bias.dtype != torch.float64:  # autocast leaves fp64 as it is
            bias = bias.to(out_dtype)
    # nn.Linear's own checks, in its words
    return input.new_empty(torch.nn.functional.linear(input, weight, bias).shape)


@torch.library.register_fake("tfmbs::linear_relu")
@torch.library.register_fake("tfmbs::linear")
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    identity: Tensor,
    quantizer: str,
    activation: str,
    ste_clip: float | None,
    training: bool,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    return fake_output(input, weight, bias, out_dtype)


@torch.library.register_fake("tfmbs::linear_trits")
def _(
    input: Tensor,
    weight: Tensor,
    trits: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    identity: Tensor,
    activation: str,
    ste_clip: float | None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    return fake_output(input, weight, bias, out_dtype)


@torch.library.register_fake("tfmbs_onnx::linear")
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    layer: str,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    return fake_output(input, weight, bias, out_dtype)


@torch.library.register_fake("tfmbs::pack")
@torch.library.register_fake("tfmbs::prefetch")
def _(weight: Tensor, identity: Tensor, quantizer: str, activation: str, training: bool) -> bool:
    return True


@torch.library.register_fake("tfmbs::pack_trits")
@torch.library.register_fake("tfmbs::prefetch_trits")
def _(weight: Tensor, trits: Tensor, scale: Tensor, identity: Tensor, activation: str) -> bool:
    return True


@torch.library.register_fake("tfmbs::packed_linear")
def _(
    input: Tensor,
    panels: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    identity: Tensor,
    layout: str,
    out_features: int,
    in_features: int,
    group_size: int,
    activation: str,
    ste_clip: float | None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    if input.device != panels.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {input.device} and "
            f"{panels.device}"
        )
    return fake_output(input, input.new_empty((out_features, in_features)), None, out_dtype)


@torch.library.register_fake("tfmbs::prefetch_packed")
def _(
    panels: Tensor,
    scale: Tensor,
    identity: Tensor,
    layout: str,
    out_features: int,
    in_features: int,
    group_size: int,
    activation: str,
) -> bool:
    return True


@torch.library.register_fake("tfmbs::panels_of_trits")
def _(trits: Tensor, layout: str, out: Tensor) -> None:
    pass


@torch.library.register_fake("tfmbs::panels_of_rows")
def _(packed: Tensor, in_features: int, layout: str, out: Tensor) -> None:
    pass


@torch.library.register_fake("tfmbs::trits_of_panels")
def _(panels: Tensor, layout: str, out_features: int, in_features: int) -> Tensor:
    return panels.new_empty((out_features, in_features), dtype=torch.int8)


@torch.library.register_fake("tfmbs::rows_of_panels")
def _(panels: Tensor, layout: str, out_features: int, in_features: int) -> Tensor:
    return panels.new_empty((out_features, -(-in_features // _fabric.TRITS_PER_BYTE)))


@torch.library.register_fake("tfmbs::rows_of_trits")
def _(trits: Tensor) -> Tensor:
    width = -(-trits.shape[1] // _fabric.TRITS_PER_BYTE)
    return trits.new_empty((trits.shape[0], width), dtype=torch.uint8)


@torch.library.register_fake("tfmbs::ordered_scales")
def _(scale: Tensor, in_features: int, group_size: int) -> Tensor:
    return scale.new_empty((-(-scale.shape[0] // 64) * 64 * -(-in_features // group_size),))


@torch.library.register_fake("tfmbs::scale_rows")
def _(ordered: Tensor, out_features: int, in_features: int, group_size: int) -> Tensor:
    return ordered.new_empty((out_features, -(-in_features // group_size)))


def _scale_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@torch.library.register_fake("tfmbs::quantize_weight")
def _(weight: Tensor, quantizer: str) -> tuple[Tensor, Tensor]:
    scales = weight.shape[0] if quantizer == "twn" else 1
    return (
        weight.new_empty(weight.shape, dtype=torch.int8),
        weight.new_empty((scales,), dtype=_scale_dtype(weight.dtype)),
    )


@torch.library.register_fake("tfmbs::quantize_activation")
def _(input: Tensor, activation: str, magnitudes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return (
        input.new_empty(input.shape, dtype=torch.int8),
        input.new_empty((*input.shape[:-1], 1), dtype=_scale_dtype(input.dtype)),
    )


@torch.library.register_fake("tfmbs::packed_sums")
def _(
    input: Tensor,
    magnitudes: Tensor | None,
    panels: Tensor,
    scale: Tensor,
    identity: Tensor,
    layout: str,
    out_features: int,
    in_features: int,
    group_size: int,
    activation: str,
) -> Tensor:
    groups = -(-in_features // group_size) if group_size else 1
    return input.new_empty((groups, *input.shape[:-1], out_features), dtype=torch.int32)


@torch.library.register_fake("tfmbs::scaled_sums")
def _(
    sums: Tensor,
    row_scale: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    in_features: int,
    group_size: int,
    wide: bool,
    dtype: torch.dtype,
) -> Tensor:
    return sums.new_empty(sums.shape[1:], dtype=dtype)


@torch.library.register_fake("tfmbs::weight_magnitudes")
def _(weight: Tensor, by_output: bool, thresholds: Tensor | None = None) -> Tensor:
    words = 70 if weight.dtype == torch.float64 else 13
    return weight.new_empty((weight.shape[0] if by_output else 1, words), dtype=torch.int64)


@torch.library.register_fake("tfmbs::weight_rule")
def _(magnitudes: Tensor, quantizer: str, wide: bool) -> tuple[Tensor, Tensor]:
    sums = (magnitudes.shape[0],)
    scale = torch.float64 if wide else torch.float32
    return magnitudes.new_empty(sums, dtype=torch.float64), magnitudes.new_empty(sums, dtype=scale)


@torch.library.register_fake("tfmbs::trits_above")
def _(weight: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    return (
        weight.new_empty(weight.shape, dtype=torch.int8),
        weight.new_empty(weight.shape[:1], dtype=torch.uint8),
    )


def autocast_dtype(input: Tensor, weight: Tensor) -> torch.dtype | None:
    """What nn.Linear returns under an autocast that is on, or None where autocast leaves it
    alone."""
    eligible = (torch.float32, torch.bfloat16, torch.float16)
    if isinstance(input, Tensor) and input.dtype in eligible and weight.dtype in eligible:
        return torch.get_autocast_dtype("cpu")
    return None


# --- autograd ------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], bias: int, ste_clip: float | None) -> Any:
    """bias: its place among the op's arguments."""
    needs = ctx.needs_input_grad
    wanted = (needs[0], needs[1], needs[bias])
    return straight_through.keep(ctx, inputs[0], inputs[1], wanted, ctx.activation, ste_clip)


def _linear_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    identity, ctx.quantizer, ctx.activation, ste_clip = inputs[3:7]
    ctx.save_for_backward(*_keep(ctx, inputs, 2, ste_clip), storable(identity))


def _linear_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return (*straight_through.gradients(ctx, grad, *ctx.saved_tensors), *[None] * 6)


def _linear_relu_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    identity, ctx.quantizer, ctx.activation, ste_clip = inputs[3:7]
    ctx.save_for_backward(*_keep(ctx, inputs, 2, ste_clip), storable(identity), output)


def _linear_relu_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    *saved, output = ctx.saved_tensors
    # relu's own: where the output is not above 0 nothing flows, and a NaN lets it through
    grad = torch.ops.aten.threshold_backward(grad, output, 0)
    return (*straight_through.gradients(ctx, grad, *saved), *[None] * 6)


def _linear_trits_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    trits, scale = inputs[2:4]
    ctx.activation, ste_clip = inputs[6:8]
    kept, weight = _keep(ctx, inputs, 4, ste_clip)
    read = ctx.needs[0]  # by the input's gradient alone, as the weight is by its own
    weight = weight if ctx.needs[1] else None
    ctx.save_for_backward(kept, weight, trits if read else None, scale if read else None)


def _linear_trits_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = straight_through.gradients_of_trits(ctx, grad, *ctx.saved_tensors)
    return found[0], found[1], None, None, found[2], None, None, None, None


def _packed_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, panels, scale, bias = inputs[:4]
    ctx.form, activation, ste_clip = inputs[5:9], inputs[9], inputs[10]
    ctx.bias_dtype = None if bias is None else bias.dtype
    kept = straight_through.keep_packed(ctx, input, activation, ste_clip)
    # Autograd keeps no inference tensors, and they are constant.
    ctx.constants = [t if t.is_inference() else None for t in (panels, scale)]
    ctx.save_for_backward(kept, *(None if t.is_inference() else t for t in (panels, scale)))


def _packed_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    needs = (ctx.needs_input_grad[0], ctx.needs_input_grad[3])
    kept, *saved = ctx.saved_tensors
    panels, scale = (c if k is None else k for c, k in zip(ctx.constants, saved, strict=True))
    grad_input, grad_bias = straight_through.packed_gradients(
        ctx, grad, kept, panels, scale, ctx.form, needs
    )
    if grad_bias is not None:
        grad_bias = grad_bias.to(ctx.bias_dtype)
    return (grad_input, None, None, grad_bias, *[None] * 8)


# What is kept for backward, and backward.
LINEAR_FORMULA = (_linear_setup, _linear_backward)
LINEAR_TRITS_FORMULA = (_linear_trits_setup, _linear_trits_backward)
PACKED_LINEAR_FORMULA = (_packed_setup, _packed_backward)
for _op, (_setup, _backward) in (
    (linear, LINEAR_FORMULA),
    (linear_relu, (_linear_relu_setup, _linear_relu_backward)),
    (linear_trits, LINEAR_TRITS_FORMULA),
    (packed_linear, PACKED_LINEAR_FORMULA),
):
    torch.library.register_autograd(_op, _backward, setup_context=_setup)
    forward_mode.refuse_in(_op, _backward, _setup, _library)
_register_ordered_effects()


# --- autocast ------------------------------------------------------------------------------------


def _register_autocast() -> None:
    """Under autocast the ops give nn.Linear's dtype. The dispatcher calls these only then, so a
    forward need not ask: asking takes as long as a small product."""
    key = torch._C.DispatchKey.AutocastCPU
    beyond = torch._C.DispatchKeySet(key)

    def register(op: Any, arguments: int) -> None:
        def under_autocast(*args: Any) -> Tensor:
            out_dtype = args[arguments] if len(args) > arguments else None
            if out_dtype is None:
                # A packed layer's weight has no float type of its own.
                weight = args[0] if op is packed_linear else args[1]
                out_dtype = autocast_dtype(args[0], weight)
            with torch._C._ExcludeDispatchKeyGuard(beyond):
                return op(*args[:arguments], out_dtype)  # type: ignore[no-any-return]

        op.py_impl(key)(under_autocast)
        _library.impl(op._schema.name.split("::")[1], under_autocast, "AutocastCPU")

    register(linear, 8)
    register(linear_relu, 8)
    register(linear_trits, 8)
    register(packed_linear, 11)


_register_autocast()


# --- observers -----------------------------------------------------------------------------------


@register_flop_formula(
    [torch.ops.tfmbs.linear, torch.ops.tfmbs.linear_relu, torch.ops.tfmbs.linear_trits]
)
def _flops(input: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """2 M N K, as nn.Linear's: what the product is, not what zero-skip spares."""
    return int(2 * math.prod(input) * weight[0])


@register_flop_formula(torch.ops.tfmbs.packed_linear)
def _packed_flops(input: Any, *arguments: Any, out_shape: Any = None, **__: Any) -> int:
    out_features = arguments[5]
    return int(2 * math.prod(input) * out_features)


@register_flop_formula([torch.ops.tfmbs.input_gradient, torch.ops.tfmbs.input_gradient_trits])
def _input_gradient_flops(grad: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of backward's products, as nn.Linear's."""
    return int(2 * math.prod(grad) * weight[1])


@register_flop_formula(torch.ops.tfmbs.input_gradient_packed)
def _packed_gradient_flops(grad: Any, *arguments: Any, out_shape: Any = None, **__: Any) -> int:
    in_features = arguments[5]
    return int(2 * math.prod(grad) * in_features)


@register_flop_formula(torch.ops.tfmbs.weight_gradient_everywhere)
def _weight_gradient_everywhere_flops(
    grad: Any,
    kept: Any,
    out_features: int,
    in_features: int,
    *_: Any,
    out_shape: Any = None,
    **__: Any,
) -> int:
    return int(2 * math.prod(grad) * in_features)


@register_flop_formula(torch.ops.tfmbs.weight_gradient)
def _weight_gradient_flops(
    grad: Any, kept: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return int(2 * math.prod(grad) * weight[1])
