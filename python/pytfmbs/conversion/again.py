"""Options for layers that are ternary already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from ..errors import ConversionError
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from ..quantization import own_scale, quantizers
from ..quantization.fixed_scale import FixedScaleQuantizer


def apply_again(
    layers: Sequence[tuple[str, TFMBSLinear | TFMBSPackedLinear]], options: Mapping[str, Any]
) -> None:
    """Gives layers the options of another call of convert. Raises ConversionError where a layer cannot
    have them, and what TFMBSLinear raises; no layer has changed then."""
    changes = []
    for path, layer in layers:
        asked = {k: v for k, v in options.items() if not _has(layer, k, v)}
        if not asked:
            continue
        if isinstance(layer, TFMBSPackedLinear):
            raise ConversionError(
                path,
                type(layer).__name__,
                f"it is packed, and {_listed(asked)} would be another layer",
                "Call thaw first, or leave it out with filter_fn",
            )
        if "weight_quantizer" in asked and _has_fixed_scale(layer):
            raise ConversionError(
                path,
                type(layer).__name__,
                f"it keeps the scale that it was made with, and {_listed(asked)} would replace it",
                "Make a layer of its weight, or leave it out with filter_fn",
            )
        # Says what is wrong with an option, and goes.
        TFMBSLinear(1, 1, device="meta", **{k: v for k, v in asked.items() if k != "weight_addr"})
        changes.append((layer, asked))
    with ExitStack() as undo:
        for layer, asked in changes:
            undo.callback(layer._reconfigure(**asked))
        undo.pop_all()


def _has(layer: Any, option: str, value: Any) -> bool:
    if option == "weight_quantizer":
        wanted = quantizers.resolve(value)
        if isinstance(layer, TFMBSPackedLinear):  # ternary already: its trits and scale are its own
            return True
        if _has_fixed_scale(layer) and own_scale.own_scale(layer.weight) is not None:
            return quantizers.is_built_in(wanted)
        now = layer.__dict__.get("_quantizer_before", layer.weight_quantizer)
        return bool(now == wanted)
    if option == "fabric":
        return value is None or value is layer.fabric
    if option in ("weight_addr", "tile_mask"):
        return bool(getattr(layer, f"given_{option}") == value)
    return bool(getattr(layer, option, None) == value) if hasattr(layer, option) else False


def _has_fixed_scale(layer: nn.Module) -> bool:
    """Made with its scale, not by a quantizer that saw a ternary weight."""
    return (
        isinstance(layer, TFMBSLinear)
        and isinstance(layer.weight_quantizer, FixedScaleQuantizer)
        and "_quantizer_before" not in layer.__dict__
    )


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())
