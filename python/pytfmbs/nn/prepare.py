"""prepare: a model's weights, packed ahead of its first forward pass."""

from __future__ import annotations

from torch import nn

from .linear import TFMBSLinear


def prepare(model: nn.Module) -> nn.Module:
    """Quantizes and packs the weights of every ternary layer of a model now, and returns the model.

    How weights are packed depends on how many there are (``pytfmbs.set_weight_storage``). All of the
    model's are counted first, so its layers are packed alike; a layer that is packed otherwise than
    ``set_weight_storage`` and the kernels in use say is packed anew. No forward pass does that: it
    packs only weights that changed. Packed layers (``TFMBSPackedLinear``) are packed once and for
    all, and left as they are. Raises what a forward pass raises.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    layers = [module for module in model.modules() if isinstance(module, TFMBSLinear)]
    for layer in layers:
        layer._layer.expect_weights()
    for layer in layers:
        layer._pack()
    return model
