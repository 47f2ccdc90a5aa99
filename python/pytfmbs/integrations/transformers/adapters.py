"""LoRA of peft on packed layers."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora.layer import Linear, LoraVariant
from torch import Tensor

from ...errors import ArgumentError
from ...nn.bitnet import BitNetPackedLinear
from ...nn.packed import TFMBSPackedLinear


class PackedLora(Linear):
    """A packed layer and its adapters: y = ternary(x) + scaling · B A x. The packed layer stays as it
    is, so adapters are not merged."""

    def __init__(
        self, base_layer: Any, adapter_name: str, config: LoraConfig, **kwargs: Any
    ) -> None:
        if (
            not isinstance(config.init_lora_weights, bool)
            and config.init_lora_weights != "gaussian"
        ):
            raise ArgumentError(
                f"init_lora_weights is {config.init_lora_weights!r}, which changes the float weight; a "
                "packed layer has none. Use True, False or 'gaussian'"
            )
        base_layer.qweight = torch.empty(0, dtype=torch.uint8)  # by which peft knows its device
        super().__init__(base_layer, adapter_name, config=config, **kwargs)

    def resolve_lora_variant(self, *, config: LoraConfig, **kwargs: Any) -> LoraVariant | None:
        variant = super().resolve_lora_variant(config=config, **kwargs)
        if variant is not None:
            raise ArgumentError(
                f"a {type(variant).__name__} computes with the float weight, and a packed layer has "
                "none. Use plain LoRA, or pytfmbs.thaw the model first"
            )
        return None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ArgumentError(
            "an adapter cannot be merged into a packed layer: the sum is not ternary. Keep the adapter "
            "beside it"
        )

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def get_base_weight(self) -> Tensor:
        base = self.get_base_layer()
        assert isinstance(base, TFMBSPackedLinear)
        return base.dequantized_weight()


def enable_lora(config: LoraConfig) -> LoraConfig:
    """Makes a LoraConfig take packed layers, and returns it."""
    config._register_custom_module({TFMBSPackedLinear: PackedLora, BitNetPackedLinear: PackedLora})
    return config
