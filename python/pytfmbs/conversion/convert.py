"""convert: the nn.Linears of any model, on the fabric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from ..nn.linear import TFMBSLinear
from .swap import move_hooks, replace_modules

#: Called with a module and its path in the model; True swaps it.
FilterFunction = Callable[[nn.Module, str], bool]


def convert(
    model: nn.Module, filter_fn: FilterFunction | None = None, **layer_options: Any
) -> nn.Module:
    """Swaps the nn.Linears of a model for TFMBSLinears, in place, and returns the model.

    The parameters are kept, not copied: optimizers, tied weights and ``state_dict`` go on as
    before. Each layer is named after its path in the model. A module that appears twice is swapped
    once.

    model: any module; an nn.Linear itself gives a TFMBSLinear. Hooks move along.
    filter_fn: which to swap (module, path). None swaps every module whose type is nn.Linear; a
        subclass, whose own ways would be lost, is swapped only where the filter says so.
    layer_options: for every TFMBSLinear (``weight_quantizer``, ``activation``, ``fabric``, ...).
    Raises what TFMBSLinear raises, and TypeError for a module whose weight is no parameter of its
    shape (lazy or parametrized); the model is as before then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(f"filter_fn must be callable or None, not {type(filter_fn).__name__}")
    chosen = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not isinstance(module, TFMBSLinear)
        and (type(module) is nn.Linear if filter_fn is None else filter_fn(module, path))
    ]
    swapped: dict[nn.Module, nn.Module] = {
        module: _swap(module, path or "linear", layer_options) for path, module in chosen
    }
    return replace_modules(model, swapped)


def _swap(linear: nn.Linear, path: str, options: dict[str, Any]) -> TFMBSLinear:
    weight = linear._parameters.get("weight")
    shape = (linear.out_features, linear.in_features)
    if weight is None or is_lazy(weight) or tuple(weight.shape) != shape:
        raise TypeError(
            f"{path!r}: the weight of this {type(linear).__name__} is no parameter of shape {shape} "
            "(lazy or parametrized?)"
        )
    layer = TFMBSLinear(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        device="meta",  # no memory and no initialization for parameters that are replaced at once
        dtype=weight.dtype,
        **{"name": path, **options},
    )
    layer.weight = weight
    layer.bias = linear.bias
    layer.train(linear.training)
    move_hooks(linear, layer)
    return layer
