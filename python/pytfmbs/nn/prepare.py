"""prepare: a model's weights, packed ahead of its first forward pass."""

from __future__ import annotations

from torch import nn

from .linear import TFMBSLinear


def prepare(model: nn.Module) -> nn.Module:
    """Quantizes and packs the weights of every ternary layer of a model now, and returns the model.

    The packing depends on the number of weights (``pytfmbs.set_weight_storage``). So all weights of
    the model are counted first, and all layers are packed alike. A layer whose packing is no longer
    the one for the mode and ISA variant in use is packed again; a forward pass never does that.
    ``TFMBSPackedLinear`` layers stay as they are. Raises what a forward pass raises.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    layers = [module for module in model.modules() if isinstance(module, TFMBSLinear)]
    for layer in layers:
        layer._layer.expect_weights()
    for layer in layers:
        layer._pack()
    return model
