"""attach: converted models of transformers, and save_pretrained."""

from __future__ import annotations

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from .config import TFMBSConfig
from .quantizer import TFMBSHfQuantizer
from .saving import ternary_layers


def attach(model: nn.Module) -> nn.Module:
    """Makes save_pretrained of a transformers model write its ternary layers, and returns the model.

    convert, freeze, thaw and load_into do this for the models that they are given. Call it where they
    were given a part of one: ``pytfmbs.convert(model.model.layers); attach(model)``.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and ternary_layers(module):
            theirs = getattr(module, "hf_quantizer", None)
            if not isinstance(theirs, TFMBSHfQuantizer):
                made = TFMBSHfQuantizer(TFMBSConfig(layers={}))
                made.other = theirs
                module.__dict__["hf_quantizer"] = made
    return model
