"""transformers' BitNet layers as ternary layers, with their scales and norms.

transformers is not imported: its classes are known by name.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConversionError
from ..nn.bitnet import BitNetLinear
from ..nn.linear import TFMBSLinear
from ..quantization.fixed_scale import FixedScaleQuantizer

_MODULE = "transformers.integrations.bitnet"
_ROWS_A_BYTE = 4  # trits of a byte of BitLinear's weight, each of another quarter of the rows


def kind(module: nn.Module) -> str | None:
    """ "AutoBitLinear" or "BitLinear" for a layer of these classes of transformers, else None."""
    for base in type(module).__mro__:
        if base.__module__ == _MODULE and base.__name__ in ("AutoBitLinear", "BitLinear"):
            return base.__name__ if base is type(module) else None
    return None


def ternary_layer(module: Any, path: str, options: dict[str, Any]) -> TFMBSLinear:
    """The ternary layer of an AutoBitLinear or a BitLinear: int8 activations, and weights by their
    absmean ("online") or as the trits and the scale that are stored. Raises ConversionError for
    options that would give other numbers."""
    asked = {
        "activation": options.get("activation", "int8"),
        "weight_quantizer": getattr(
            options.get("weight_quantizer"), "name", options.get("weight_quantizer", "absmean")
        ),
    }
    for option, wanted in (("activation", "int8"), ("weight_quantizer", "absmean")):
        if asked[option] != wanted:
            raise ConversionError(
                path,
                type(module).__name__,
                f"a BitNet layer has {option}={wanted!r}, and {asked[option]!r} was asked for",
                f"Pass {option}={wanted!r}, or leave the layer out with filter_fn",
            )
    online = kind(module) == "AutoBitLinear" and module.online_quant
    if not online and kind(module) == "AutoBitLinear" and module.bias is not None:
        raise ConversionError(
            path,
            type(module).__name__,
            "its scale multiplies its bias too, and a ternary layer's does not",
            "Multiply the bias by weight_scale and make the layer with TFMBSLinear.from_trits",
        )
    weight, scale, bias = module.weight, None, module.bias
    if not online:
        scale = module.weight_scale.detach().to(torch.float32).reshape(-1)
    if kind(module) == "BitLinear":
        scale = None if scale is None else 1 / scale  # which it divides by
        trits = unpacked(weight, module.dtype or torch.get_default_dtype())
        if trits.shape[0] != module.out_features:
            raise ConversionError(
                path,
                "BitLinear",
                f"its {module.out_features} outputs are no multiple of {_ROWS_A_BYTE}, so its "
                "packed weight has rows of none",
                "Leave it out with filter_fn",
            )
        weight = nn.Parameter(trits, requires_grad=False)
        bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    norm = getattr(module, "rms_norm", None)
    made = (TFMBSLinear if norm is None else BitNetLinear)(
        module.in_features,
        module.out_features,
        bias is not None,
        device="meta",
        dtype=weight.dtype,
        **{
            "name": path,
            "activation": "int8",
            **options,
            "weight_quantizer": "absmean" if scale is None else FixedScaleQuantizer(scale, True),
        },
    )
    made._keeps_own_scale = False  # the mean is part of these layers' numbers
    made._parameters.update(weight=weight, bias=bias)
    if scale is not None:
        made.register_buffer("weight_scale", scale)
        made._register_load_state_dict_pre_hook(
            functools.partial(_unpack_on_load, divides=kind(module) == "BitLinear"),
            with_module=True,
        )
    if norm is not None:
        made.register_module("rms_norm", norm)
    return made.train(module.training)


def unpacked(packed: Tensor, dtype: torch.dtype) -> Tensor:
    """The trits, [4 * rows, in], of uint8 [rows, in]: bits 2i and 2i + 1 are those of quarter i, plus
    1."""
    if packed.device.type == "meta":
        return torch.empty(
            packed.shape[0] * _ROWS_A_BYTE, *packed.shape[1:], dtype=dtype, device="meta"
        )
    quarters = [(packed >> 2 * i) & 3 for i in range(_ROWS_A_BYTE)]
    return torch.cat(quarters).to(dtype) - 1


def _unpack_on_load(
    layer: nn.Module, state: dict[str, Any], prefix: str, *_: Any, divides: bool
) -> None:
    """Takes a packed checkpoint's weight, and the scale of layers that divide by it."""
    weight = state.get(prefix + "weight")
    if not isinstance(weight, Tensor) or weight.dtype != torch.uint8:
        return
    state[prefix + "weight"] = unpacked(weight, layer.weight.dtype)  # type: ignore[arg-type]
    scale = state.get(prefix + "weight_scale")
    if divides and isinstance(scale, Tensor):
        state[prefix + "weight_scale"] = 1 / scale.to(torch.float32)
