"""TFMBSLinearFunction: the fabric in the autograd graph, for code that brings its own
parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from . import _fabric, errors, ops
from .linear import TFMBSLinear
from .straight_through import dequantized, linear_gradients

_STE_CLIP = 1.0


@lru_cache(maxsize=256)
def _shared_layer(out_features: int, in_features: int) -> _fabric.Layer:
    """The default device's layer for calls without one, one a shape."""
    name = f"TFMBSLinearFunction.{in_features}x{out_features}"
    return _fabric.Layer(
        _fabric.Fabric(), name, out_features, in_features, "sign", "ternary", None, None, _STE_CLIP
    )


class TFMBSLinearFunction(torch.autograd.Function):
    """``apply(input, weight, bias=None, layer=None)``: a ternary linear product with
    straight-through gradients.

    input: [..., in]. weight: [out, in]. bias: [out] or None. Returns [..., out].
    layer: a TFMBSLinear whose quantizers, device and name are used; None is sign weights and
    ternary activations on the default device. Bad input raises what nn.Linear raises; FabricError
    is the device's own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        layer: TFMBSLinear | None = None,
    ) -> Tensor:
        try:
            if layer is None:
                torch.nn.functional.linear(
                    input.new_empty(0, *input.shape[-1:]), weight, bias
                )  # shapes and dtypes
                spec = _shared_layer(*weight.shape).spec
                trits, scale = ops.quantize_weight(weight, "sign")
                output = ops.linear(input, weight, bias, spec, True)
            else:
                spec = layer._spec
                trits, scale = layer.weight_quantizer(weight)
                if layer._custom:
                    output = ops.linear_trits(input, weight, trits, scale, bias, spec)
                else:
                    output = ops.linear(input, weight, bias, spec, layer.training)
        except RuntimeError as error:
            if (own := errors.from_op(error)) is not None:
                raise own from None
            torch.nn.functional.linear(input, weight, bias)  # raises, in its own type and words
            raise
        _, ctx.activation, ctx.ste_clip = ops.quantization_of(spec)
        ctx.save_for_backward(input, weight, trits, scale)
        return output  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, trits, scale = ctx.saved_tensors
        values, input_scale = ops.quantize_activation(input, ctx.activation)
        gradients = linear_gradients(
            grads[0],
            input,
            weight,
            dequantized(values, input_scale, input.dtype),
            dequantized(trits, scale, weight.dtype),
            ctx.ste_clip,
            ctx.needs_input_grad[:3],
        )
        return (*gradients, None)
