"""TFMBSConfig: what ``quantization_config`` says, of from_pretrained's argument and of config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from ...checkpoints.own import METHOD, VERSION
from ...errors import ArgumentError
from ...quantization import quantizers
from ...quantization.quantizers import WeightQuantizer

_ACTIVATIONS = ("int8", "ternary")


class TFMBSConfig(QuantizationConfigMixin):
    """How from_pretrained makes a float model ternary. A ternary checkpoint brings its own.

    weight_quantizer, activation: as TFMBSLinear's.
    modules_to_not_convert: linear layers that stay float, besides output heads and adapters; as
        transformers reads such names: a regular expression of a name's beginning, or a name's end.
    output_heads: makes output heads ternary too.
    trainable: TFMBSLinears with the float weights, for training. Otherwise packed layers; the float
        weights are dropped as they arrive.
    packing: of packed layers.
    layers: by name, what config.json says of a ternary checkpoint's layers (docs/checkpoints.md).
    bitnet: the configuration of a BitNet checkpoint, as ``from_pretrained`` of this package passes it.
    """

    def __init__(
        self,
        weight_quantizer: str | WeightQuantizer = "absmean",
        activation: str = "int8",
        modules_to_not_convert: Sequence[str] | None = None,
        *,
        output_heads: bool = False,
        trainable: bool = False,
        packing: str = "auto",
        layers: dict[str, dict[str, Any]] | None = None,
        bitnet: dict[str, Any] | None = None,
        version: int = VERSION,
    ) -> None:
        quantizers.resolve(weight_quantizer)
        if activation not in _ACTIVATIONS:
            raise ArgumentError(f"activation is {activation!r}; allowed are {_ACTIVATIONS}")
        if isinstance(modules_to_not_convert, str):
            raise ArgumentError("modules_to_not_convert is a string; it must be a list of names")
        self.quant_method: Any = METHOD
        self.weight_quantizer, self.activation = weight_quantizer, activation
        self.modules_to_not_convert = list(modules_to_not_convert or ())
        self.output_heads, self.trainable, self.packing = output_heads, trainable, packing
        self.layers, self.bitnet, self.version = layers, bitnet, version

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """As config.json has it, where further keys mean nothing."""
        names = (
            "weight_quantizer", "activation", "modules_to_not_convert", "output_heads", "trainable",
            "packing", "layers", "bitnet", "version",
        )  # fmt: skip
        config = cls(**{name: config_dict[name] for name in names if name in config_dict})
        return (config, kwargs) if return_unused_kwargs else config

    def to_dict(self) -> dict[str, Any]:
        """As config.json has it: of a ternary model its layers, else the options."""
        if self.layers is not None:
            return {"quant_method": METHOD, "version": self.version, "layers": self.layers}
        options = {
            **self.__dict__,
            "weight_quantizer": quantizers.resolve(self.weight_quantizer).name,
        }
        return {name: value for name, value in options.items() if value is not None}
