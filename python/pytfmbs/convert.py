"""convert: the nn.Linears of any model, on the fabric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .linear import TFMBSLinear

#: Called with a module and its path in the model; True swaps it.
FilterFunction = Callable[[nn.Module, str], bool]


def convert(
    model: nn.Module, filter_fn: FilterFunction | None = None, **layer_options: Any
) -> nn.Module:
    """Swaps the nn.Linears of a model for TFMBSLinears, in place, and returns the model.

    The parameters are kept, not copied: optimizers, tied weights and ``state_dict`` go on as
    before. Each layer is named after its path in the model. A module that appears twice is swapped
    once.

    model: any module; an nn.Linear itself gives a TFMBSLinear.
    filter_fn: which to swap (module, path); None swaps every module whose type is nn.Linear.
    layer_options: for every TFMBSLinear (``weight_quantizer``, ``activation``, ``fabric``, ...).
    Raises what TFMBSLinear raises; layers swapped before the error stay swapped.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    chosen = [
        (path, module)
        for path, module in model.named_modules()
        if type(module) is nn.Linear and (filter_fn is None or filter_fn(module, path))
    ]
    swapped = {module: _swap(module, path or "linear", layer_options) for path, module in chosen}
    if isinstance(model, nn.Linear) and model in swapped:
        return swapped[model]
    for parent in list(model.modules()):
        for child_name, child in parent.named_children():
            if isinstance(child, nn.Linear) and child in swapped:
                setattr(parent, child_name, swapped[child])
    return model


def _swap(linear: nn.Linear, path: str, options: dict[str, Any]) -> TFMBSLinear:
    layer = TFMBSLinear(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        device="meta",  # no memory and no initialization for parameters that are replaced at once
        dtype=linear.weight.dtype,
        **{"name": path, **options},
    )
    layer.weight = linear.weight
    layer.bias = linear.bias
    layer.train(linear.training)
    return layer
