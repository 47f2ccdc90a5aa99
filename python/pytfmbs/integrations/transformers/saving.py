"""What save_pretrained writes of a model with ternary layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...checkpoints.contents import LayerFacts, ternary_tensor, written_layers
from ...checkpoints.saving import own_entry, own_tensors
from ...conversion import bitnet
from ...errors import CheckpointError
from ...nn.fabric_layer import FabricLayer
from ...nn.linear import TFMBSLinear
from ...quantization.quantizers import is_built_in
from .config import TFMBSConfig


def saved_state(model: Any) -> dict[str, Tensor] | None:
    """The tensors that save_pretrained writes, as they are written: packed layers as PT-5, layers that
    train on with their float weights. The model's configuration names its layers from then on.

    None for a model with adapters, of which save_pretrained writes these alone. Raises CheckpointError
    for a layer that is not written.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        return None
    entries = layer_entries(model)
    state: dict[str, Tensor] = model.state_dict()
    packed: dict[str, FabricLayer] = {
        name: layer
        for name, layer in ternary_layers(model).items()
        if isinstance(layer, TFMBSLinear) and "weight_quantizer" not in entries[name]
    }
    for name, layer in packed.items():
        for part in ("weight", "weight_scale", "bias"):
            state.pop(f"{name}.{part}", None)
        state.update(own_tensors(name, ternary_tensor(name, layer).packed_layer()))
    _use_own_config(model)
    model.config.quantization_config = TFMBSConfig(layers=entries)
    return state


def layer_entries(model: Any) -> dict[str, dict[str, Any]]:
    """What config.json says of a model's ternary layers. Raises CheckpointError for one that is not
    written, and for layers that another quantization made."""
    file = str(getattr(model.config, "name_or_path", "") or type(model).__name__)
    other = getattr(getattr(model, "hf_quantizer", None), "other", None)
    if other is not None:
        method = other.quantization_config.quant_method
        method = getattr(method, "value", method)
        left = [path for path, module in model.named_modules() if bitnet.kind(module) is not None]
        if method != "bitnet" or left:
            raise CheckpointError(
                file,
                left[0] if left else None,
                f"the model has layers of the quantization method {method!r} beside ternary ones",
                "Convert all of its layers, or save them with pytfmbs.checkpoints",
            )
    return {name: _entry(layer) for name, layer in written_layers(model, Path(file)).items()}


def _entry(layer: FabricLayer) -> dict[str, Any]:
    entry = own_entry(LayerFacts.of_layer(layer))
    if isinstance(layer, TFMBSLinear) and is_built_in(layer.weight_quantizer):
        entry["weight_quantizer"] = layer.weight_quantizer.name
        if layer.ste_clip is not None:
            entry["ste_clip"] = layer.ste_clip
    return entry


def ternary_layers(model: nn.Module) -> dict[str, FabricLayer]:
    return {name: m for name, m in model.named_modules() if isinstance(m, FabricLayer)}


def _use_own_config(model: Any) -> None:
    """A configuration may be another model's too, which is float."""
    if getattr(model.config, "_tfmbs_model", None) == id(model):
        return
    before, own = model.config, copy.deepcopy(model.config)
    own._tfmbs_model = id(model)
    for module in model.modules():
        if module.__dict__.get("config") is before:
            module.config = own
