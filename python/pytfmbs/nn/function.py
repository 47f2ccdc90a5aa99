"""TFMBSLinearFunction: the fabric in the autograd graph, for code that brings its own
parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _fabric, errors
from ..ops import torch_ops
from ..ops.dense import check_layout
from ..ops.identity import identity_tensor
from ..ops.straight_through import dequantized, linear_gradients
from ..quantization import quantizers
from .linear import TFMBSLinear

_STE_CLIP = 1.0


@lru_cache(maxsize=256)
def _shared_layer(out_features: int, in_features: int) -> tuple[_fabric.Layer, Tensor]:
    """The default device's layer for calls without one, one a shape, and its identity."""
    name = f"TFMBSLinearFunction.{in_features}x{out_features}"
    layer = _fabric.Layer(
        _fabric.Fabric(), name, out_features, in_features, "sign", "ternary", None, None
    )
    return layer, identity_tensor(layer.identity)


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
        if layer is not None and not isinstance(layer, TFMBSLinear):
            raise TypeError(f"layer must be a TFMBSLinear or None, not {type(layer).__name__}")
        out_dtype = None
        window: float | None
        try:
            if torch.is_autocast_enabled("cpu"):
                out_dtype = torch_ops.autocast_dtype(input, weight)
            if layer is None:
                # Before a shape gets a layer: nn.Linear's checks, and its errors.
                if weight.dim() == 1:  # F.linear takes a vector, and gives a dot product
                    raise TypeError(f"weight must be a matrix, not of shape {tuple(weight.shape)}")
                torch_ops.fake_output(
                    input.new_empty(0, *input.shape[-1:]), weight, bias, out_dtype
                )
                _, identity = _shared_layer(*weight.shape)
                activation, window = "ternary", _STE_CLIP
                trits, scale = torch_ops.quantize_weight(weight, "sign")
                output = torch_ops.linear(
                    input, weight, bias, identity, "sign", activation, window, True, out_dtype
                )
            else:
                identity, activation, window = layer._own_identity, layer.activation, layer._window
                trits, scale = quantizers.apply(layer.weight_quantizer, weight)
                if layer._custom:
                    output = torch_ops.linear_trits(
                        input, weight, trits, scale, bias, identity, activation, window, out_dtype
                    )
                else:
                    by_content = layer.training or type(weight) is not torch.nn.Parameter
                    output = torch_ops.linear(
                        input,
                        weight,
                        bias,
                        identity,
                        layer._quantizer_name,
                        activation,
                        window,
                        by_content,
                        out_dtype,
                    )
        except (AttributeError, RuntimeError, TypeError) as error:
            errors.raise_own(error)
            check_layout(input, "input")
            torch.nn.functional.linear(input, weight, bias)  # raises, in its own type and words
            raise
        ctx.activation, ctx.ste_clip = activation, window
        ctx.save_for_backward(input, weight, trits, scale)
        return output  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, trits, scale = ctx.saved_tensors
        needs = (*ctx.needs_input_grad, False)[:3]  # bias and layer may not have been given
        values, input_scale = torch_ops.quantize_activation(input, ctx.activation)
        gradients = linear_gradients(
            grads[0],
            input,
            weight,
            dequantized(values, input_scale, input.dtype),
            dequantized(trits, scale, weight.dtype),
            ctx.ste_clip,
            needs,
        )
        return (*gradients, None)[: len(ctx.needs_input_grad)]
