"""TFMBSLinearFunction: the fabric in the autograd graph, for code that brings its own
parameters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _fabric, errors
from ..ops import forward_mode, straight_through, torch_ops
from ..ops.dense import check_layout
from ..ops.identity import identity_tensor
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

    generate_vmap_rule = True

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        layer: TFMBSLinear | None = None,
    ) -> Tensor:
        if layer is not None and not isinstance(layer, TFMBSLinear):
            raise TypeError(f"layer must be a TFMBSLinear or None, not {type(layer).__name__}")
        out_dtype = None
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
                return torch_ops.linear(  # type: ignore[no-any-return]
                    input, weight, bias, identity, "sign", "ternary", _STE_CLIP, True, out_dtype
                )
            identity, activation, window = layer._own_identity, layer.activation, layer._window
            if layer._custom:
                trits, scale = quantizers.apply(layer.weight_quantizer, weight)
                return torch_ops.linear_trits(  # type: ignore[no-any-return]
                    input, weight, trits, scale, bias, identity, activation, window, out_dtype
                )
            by_content = (
                layer.training or type(weight) is not torch.nn.Parameter or layer._is_shared(weight)
            )
            return torch_ops.linear(  # type: ignore[no-any-return]
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

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, *rest = inputs  # bias and layer may not have been given
        layer = rest[1] if len(rest) > 1 else None
        ctx.arguments = len(inputs)
        activation, clip = "ternary", _STE_CLIP
        if layer is None:
            ctx.quantizer, ctx.custom = "sign", None
            identity = _shared_layer(*weight.shape)[1]
        else:
            activation, clip = layer.activation, layer._window
            ctx.quantizer = layer._quantizer_name
            ctx.custom = layer.weight_quantizer if layer._custom else None
            identity = layer._own_identity
        needs = (*ctx.needs_input_grad, False)[:3]
        kept = straight_through.keep(ctx, input, weight, needs, activation, clip)
        ctx.save_for_backward(*kept, straight_through.storable(identity))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        kept, weight, identity = ctx.saved_tensors
        if ctx.custom is None:
            found = straight_through.gradients(ctx, grads[0], kept, weight, identity)
        else:
            trits = scale = None
            if ctx.needs[0]:
                trits, scale = quantizers.apply(ctx.custom, weight)
            found = straight_through.gradients_of_trits(ctx, grads[0], kept, weight, trits, scale)
        return (*found, None)[: ctx.arguments]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        forward_mode.refuse("TFMBSLinearFunction")
