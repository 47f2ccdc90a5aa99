"""Helpers that take any nn.Linear by its float weight, and would give other numbers for a ternary one.

Each is refused by name where it touches a layer: none of them asks the layer.
"""

from __future__ import annotations

import sys
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_buffer_registration_hook
from torch.nn.utils.fusion import fuse_linear_bn_eval

from .fabric_layer import FabricLayer


def check_assigned_weight(layer: nn.Module, weight: nn.Parameter | None) -> None:
    """Called by ``register_parameter``, which nn.Module.__setattr__ called. Raises TypeError."""
    if sys._getframe(3).f_code is fuse_linear_bn_eval.__code__:
        raise TypeError(
            "torch.nn.utils.fusion.fuse_linear_bn_eval cannot fold a batch norm into a "
            f"{type(layer).__name__}: the folded weights would be made ternary anew. Keep the batch "
            "norm, or fold it into the nn.Linear before the conversion"
        )
    if weight is not None and type(weight.data).__module__.partition(".")[0] == "torchao":
        raise TypeError(
            f"torchao's {type(weight.data).__name__} cannot be the weight of a "
            f"{type(layer).__name__}, which quantizes it itself. Exclude the layer with quantize_'s "
            "filter_fn"
        )


def _on_buffer(module: nn.Module, name: str, buffer: Any) -> None:
    if type(module).__module__ != "torch.utils.mkldnn" or name != "weight":
        return
    source = sys._getframe(2).f_locals.get("dense_module")
    if isinstance(source, FabricLayer):
        raise TypeError(
            f"torch.utils.mkldnn.to_mkldnn cannot take layer {source.name!r} "
            f"({type(source).__name__}): its product would be one of floats. Convert the rest of the "
            "model by parts"
        )


def register() -> None:
    """Has torch tell of every buffer that a module gets, from now on."""
    register_module_buffer_registration_hook(_on_buffer)
