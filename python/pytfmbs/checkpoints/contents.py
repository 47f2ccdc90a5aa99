"""What a writer writes: a model with ternary layers, or another checkpoint, one tensor at a time."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from ..errors import CheckpointError
from ..nn.bitnet import BitNetLinear, BitNetPackedLinear
from ..nn.fabric_layer import FabricLayer
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from .modules import Place, places
from .reader import Checkpoint
from .tensors import TernaryTensor

_WRITTEN = (TFMBSLinear, TFMBSPackedLinear, BitNetLinear, BitNetPackedLinear)


@dataclass(frozen=True, eq=False)
class LayerFacts:
    """A ternary layer without its trits. bias: not yet of a float32 dtype."""

    out_features: int
    in_features: int
    scale: Tensor
    bias: Tensor | None
    group_size: int | None
    activation: str
    rms_norm: Tensor | None
    rms_norm_eps: float | None

    @classmethod
    def of(cls, tensor: TernaryTensor) -> LayerFacts:
        return cls(
            tensor.out_features, tensor.in_features, tensor.scale, tensor.bias, tensor.group_size,
            tensor.activation, tensor.rms_norm, tensor.rms_norm_eps,
        )  # fmt: skip

    @classmethod
    def of_layer(cls, layer: Any) -> LayerFacts:
        packed = isinstance(layer, TFMBSPackedLinear)
        scale: Tensor = layer.scale if packed else layer.packed_weight()[1]
        norm, eps = _norm(layer)
        return cls(
            layer.out_features, layer.in_features, scale.detach(),
            None if layer.bias is None else layer.bias.detach(),
            layer.group_size if packed else None, layer.activation, norm, eps,
        )  # fmt: skip


class Contents(ABC):
    """Names are those of a state_dict in transformers. A tensor is made when it is asked for, and not
    kept."""

    #: The source, for messages.
    file: str
    #: config.json without quantization_config; {} where there is none.
    config: dict[str, Any]
    layer_names: list[str]
    tensor_names: list[str]
    #: The linear layers that stay float.
    float_linears: list[str]
    #: The folder whose tokenizer belongs to it, or None.
    folder: Path | None = None

    @abstractmethod
    def facts(self, name: str) -> LayerFacts: ...

    @abstractmethod
    def layer(self, name: str) -> TernaryTensor: ...

    @abstractmethod
    def tensor(self, name: str) -> Tensor: ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one of the other tensors."""
        return tuple(self.tensor(name).shape)

    def packed_layer(self, name: str) -> TFMBSPackedLinear:
        return self.layer(name).packed_layer()

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The other tensors."""
        for name in self.tensor_names:
            yield name, self.tensor(name)


class ModelContents(Contents):
    """A model in memory. path: where it is to be written, for messages. Raises CheckpointError for
    ternary layers that have no place in a file."""

    def __init__(self, model: nn.Module, path: Path) -> None:
        self.file = str(path)
        self.layers = written_layers(model, path)
        self.config = _model_config(model)
        self.layer_names = list(self.layers)
        self.float_linears = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name not in self.layers
        ]
        self._places: dict[str, Place] = {}
        seen: set[int] = set()
        for place in places(model, self.layers):  # shared tensors under their first name
            if id(place.tensor) not in seen:
                seen.add(id(place.tensor))
                self._places[place.key] = place
        self.tensor_names = list(self._places)

    def facts(self, name: str) -> LayerFacts:
        return LayerFacts.of_layer(self.layers[name])

    def layer(self, name: str) -> TernaryTensor:
        return ternary_tensor(name, self.layers[name])

    def packed_layer(self, name: str) -> TFMBSPackedLinear:
        layer = self.layers[name]
        return layer if isinstance(layer, TFMBSPackedLinear) else super().packed_layer(name)

    def tensor(self, name: str) -> Tensor:
        return self._places[name].tensor.detach().contiguous()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._places[name].tensor.shape)


class CheckpointContents(Contents):
    """A folder of safetensors. config: its config.json. out_features: of layers whose file does not
    say them, by name."""

    def __init__(
        self, reader: Checkpoint, config: dict[str, Any], out_features: dict[str, int]
    ) -> None:
        self.reader, self.file, self._outputs = reader, reader.file, out_features
        self.config = {key: config[key] for key in config if key != "quantization_config"}
        self.layer_names, self.tensor_names = reader.layer_names, reader.tensor_names
        path = Path(reader.file)
        self.folder = path if path.is_dir() else path.parent
        # An output head with the embedding's weight has no tensor of its own.
        heads = [] if "lm_head" in self.layer_names or not self.config else ["lm_head"]
        self.float_linears = heads + [
            name.removesuffix(".weight")
            for name in self.tensor_names
            if name.endswith(".weight") and name != "lm_head.weight" and len(self.shape(name)) == 2
        ]

    def facts(self, name: str) -> LayerFacts:
        return LayerFacts.of(self.layer(name))

    def layer(self, name: str) -> TernaryTensor:
        return self.reader.layer(name, self._outputs.get(name))

    def tensor(self, name: str) -> Tensor:
        return self.reader.tensor(name)


def ternary_tensor(name: str, layer: FabricLayer) -> TernaryTensor:
    """What a checkpoint holds of a ternary layer."""
    assert isinstance(layer, (TFMBSLinear, TFMBSPackedLinear))
    packed = isinstance(layer, TFMBSPackedLinear)
    trits, scale = layer.quantized_weight() if packed else layer.packed_weight()
    norm, eps = _norm(layer)
    bias = None if layer.bias is None else layer.bias.detach()
    group = layer.group_size if isinstance(layer, TFMBSPackedLinear) else None
    return TernaryTensor(name, trits, scale, bias, group, layer.activation, norm, eps)


def refuse(file: str, tensor: str | None, reason: str, remedy: str) -> NoReturn:
    raise CheckpointError(file, tensor, reason, remedy)


def _norm(layer: FabricLayer) -> tuple[Tensor | None, float | None]:
    norm = getattr(layer, "rms_norm", None)
    if norm is None:
        return None, None
    eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))  # ours, transformers'
    return norm.weight.detach(), eps


def written_layers(model: nn.Module, path: Path) -> dict[str, FabricLayer]:
    """The ternary layers of a model. Raises CheckpointError for one that no format of ours holds."""
    found: dict[str, FabricLayer] = {}
    for name, module in model.named_modules():
        if not isinstance(module, FabricLayer):
            continue
        if type(module) not in _WRITTEN or not name:
            kind = type(module).__name__
            reason = (
                f"a {kind} is not written" if name else "the model is one layer, without a name"
            )
            refuse(str(path), name, reason, "Put TFMBSLinear into a model instead")
        if isinstance(module, TFMBSLinear) and not module.has_float32_scales():
            refuse(
                str(path), name, "its scales are float64", "Convert the model with .float() first"
            )
        found[name] = module
    return found


def _model_config(model: nn.Module) -> dict[str, Any]:
    """A transformers model's configuration, without an earlier quantization's."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_json_string"):
        return {}
    made: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    made.pop("quantization_config", None)
    return {**made, "architectures": [type(model).__name__]}
