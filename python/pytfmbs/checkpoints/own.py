"""pytfmbs's own checkpoints: safetensors with row-aligned PT-5, as TFMBSPackedLinear.state_dict has it.

``config.json`` has ``quantization_config``: quant_method "tfmbs", version 1, and ``layers``, by name:
in_features, activation, and where they apply group_size and rms_norm_eps. A layer with
weight_quantizer is one that trains on: the file has its float weight.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from .. import _fabric
from ..errors import EncodingError
from ..nn.packed import GROUP_SIZES
from ..quantization.quantizers import BUILT_IN
from . import codes
from .files import TensorFiles
from .reader import Checkpoint
from .tensors import TernaryTensor

METHOD, VERSION = "tfmbs", 1
_QUANTIZER = "weight_quantizer"
_AGAIN = "Save the model again"
_ACTIVATIONS = ("int8", "ternary")


class OwnCheckpoint(Checkpoint):
    format = METHOD

    def __init__(self, files: TensorFiles) -> None:
        self.files = files
        config = files.config["quantization_config"]
        if config.get("version") != VERSION:
            self._refuse(None, f"its version is {config.get('version')!r}; {VERSION} is read",
                         "Update pytfmbs, or save the model again")  # fmt: skip
        layers = config.get("layers")
        if not isinstance(layers, dict):
            self._refuse(None, "config.json: quantization_config.layers is missing")
        for name, layer in layers.items():
            self._check_entry(name, layer)
        self._layers: dict[str, dict[str, Any]] = layers
        self.layer_names = list(layers)
        own = {
            f"{name}.{part}"
            for name, layer in layers.items()
            for part in (("weight", "bias") if _QUANTIZER in layer else ("packed", "scale", "bias"))
        }
        own |= {f"{n}.rms_norm.weight" for n, layer in layers.items() if "rms_norm_eps" in layer}
        self.tensor_names = [name for name in files.names() if name not in own]
        for name in self.tensor_names:
            if name.endswith(".packed"):
                self._refuse(name, "config.json does not name its layer")

    def _check_entry(self, name: str, layer: Any) -> None:
        where = f"config.json: the entry of layer {name!r} "
        if not isinstance(layer, dict):
            self._refuse(None, where + "is no object")
        inputs, group = layer.get("in_features"), layer.get("group_size")
        if type(inputs) is not int or not 0 < inputs <= _fabric.MAX_DEPTH:
            self._refuse(None, where + f"has in_features {inputs!r}")
        if group is not None and (type(group) is not int or group not in GROUP_SIZES):
            self._refuse(None, where + f"has group_size {group!r}; allowed are {GROUP_SIZES}")
        if layer.get("activation") not in _ACTIVATIONS:
            self._refuse(None, where + f"has activation {layer.get('activation')!r}")
        if _QUANTIZER in layer and (layer[_QUANTIZER] not in [*BUILT_IN] or group is not None):
            self._refuse(None, where + f"has {_QUANTIZER} {layer[_QUANTIZER]!r}")
        eps = layer.get("rms_norm_eps", 0)
        if type(eps) not in (int, float) or not math.isfinite(eps) or eps < 0:
            self._refuse(None, where + f"has rms_norm_eps {eps!r}")

    @property
    def file(self) -> str:
        return str(self.files.path)

    def tensor(self, name: str) -> Tensor:
        return self.files.tensor(name)

    def forget(self) -> None:
        self.files.forget()

    def layer(self, name: str, out_features: int | None = None) -> TernaryTensor:
        if name not in self._layers:
            self._refuse(f"{name}.packed", "the checkpoint has no such ternary layer")
        entry = self._layers[name]
        inputs, group = entry["in_features"], entry.get("group_size")
        trains_on = _QUANTIZER in entry
        key = f"{name}.weight" if trains_on else f"{name}.packed"
        if trains_on:
            trits, scale = self._quantized(key, inputs, entry[_QUANTIZER])
        else:
            trits = self._trits(key, inputs)
            scale = self._scale(f"{name}.scale", trits.shape[0], inputs, group)
        outputs = trits.shape[0]
        if out_features not in (None, outputs):
            self._refuse(key, f"it has {outputs} outputs, not {out_features}")
        bias = norm = None
        if f"{name}.bias" in self.files:
            bias = self.files.floats(f"{name}.bias", (outputs,))
        if "rms_norm_eps" in entry:
            norm = self.files.floats(f"{name}.rms_norm.weight", (inputs,))
        eps = None if norm is None else float(entry["rms_norm_eps"])
        return TernaryTensor(name, trits, scale, bias, group, entry["activation"], norm, eps)

    def _quantized(self, key: str, inputs: int, quantizer: str) -> tuple[Tensor, Tensor]:
        shape = self.files.shape(key)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != inputs:
            self._refuse(key, f"its shape is {shape}; rows of {inputs} are needed")
        weight = self.files.floats(key, shape)
        if not bool(torch.isfinite(weight).all()):
            self._refuse(key, "it holds values that are not finite")
        trits, scale = BUILT_IN[quantizer](weight)
        return trits, scale.to(torch.float32)

    def _scale(self, key: str, outputs: int, inputs: int, group: int | None) -> Tensor:
        shape = self.files.shape(key)
        allowed = [(1,), (outputs,)] if group is None else [(outputs, -(-inputs // group))]
        if self.files.dtype(key) != "F32" or shape not in allowed:
            self._refuse(
                key,
                f"it is {self.files.dtype(key)} of shape {shape}; F32 of shape "
                f"{' or '.join(map(str, allowed))} is needed",
            )
        return self.files.tensor(key)

    def _trits(self, key: str, inputs: int) -> Tensor:
        shape, dtype = self.files.shape(key), self.files.dtype(key)
        row = -(-inputs // _fabric.TRITS_PER_BYTE)
        if dtype != "U8" or len(shape) != 2 or shape[0] == 0 or shape[1] != row:
            self._refuse(key, f"it is {dtype} of shape {shape}; U8 of rows of {row} is needed")
        wide = codes.empty_trits(shape[0], row * _fabric.TRITS_PER_BYTE)
        try:
            _fabric.unpack_pt5_into(
                self.files.tensor(key).reshape(-1).numpy(), wide.view(-1).numpy()
            )
        except EncodingError as error:
            self._refuse(key, str(error), _AGAIN, error.offset)
        padding = wide[:, inputs:] != 0
        if bool(padding.any()):
            line = int(padding.any(dim=1).to(torch.uint8).argmax())
            offset = line * row + row - 1
            self._refuse(key, f"row {line} has weights beyond input {inputs}", _AGAIN, offset)
        if wide.shape[1] == inputs:
            return wide
        return codes.empty_trits(shape[0], inputs).copy_(wide[:, :inputs])

    def _refuse(
        self, tensor: str | None, reason: str, remedy: str = _AGAIN, offset: int | None = None
    ) -> NoReturn:
        raise self.files.error(tensor, reason, remedy, offset)
