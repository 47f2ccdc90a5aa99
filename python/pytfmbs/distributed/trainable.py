"""Trainable layers whose weight is a DTensor."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..nn import sharding
from ..nn.linear import TFMBSLinear
from ..ops import torch_ops
from ..quantization.fixed_scale import FixedScaleQuantizer
from ..quantization.kept_weight import KeptWeight
from .product import Call, Magnitudes, compute, local_input
from .quantizing import Part, packed_part, quantized_part
from .splits import INPUTS, Split, local_part


class _Kept(NamedTuple):
    of: KeptWeight  # of the local part, whose version tells of writes to it alone
    version: int | None  # the DTensor's, which tells of writes to all of it
    part: Part


def _version(weight: DTensor) -> int | None:
    return None if weight.is_inference() else weight._version


def _quantized(layer: TFMBSLinear, weight: DTensor, split: Split) -> tuple[Tensor, Tensor, Tensor]:
    def whole() -> Tensor:
        return cast(DTensor, weight.detach()).full_tensor()

    return quantized_part(layer.weight_quantizer, local_part(weight), split, whole)


class _Distributed:
    def forward(
        self, layer: TFMBSLinear, input: Tensor, weight: DTensor, bias: Tensor | None
    ) -> Tensor:
        split = Split.of(weight)
        layer._enter_part(*split.shape)
        local = local_input(layer, input, split)
        out_dtype = None
        if torch.is_autocast_enabled("cpu"):
            out_dtype = torch_ops.autocast_dtype(local, local_part(weight))
        if out_dtype is None and local.dtype != weight.dtype:
            raise RuntimeError(
                f"layer {layer.name!r}: the input is {local.dtype}, the weight {weight.dtype}"
            )
        kept = self._kept(layer, weight)
        stale = kept is None
        magnitudes: Tensor | None = None
        if split.dim == INPUTS:
            magnitudes, stale = Magnitudes(local, layer.activation).share(split, stale)
        elif self._needs_others(layer, split) and not layer.training:
            stale = bool(split.max_(torch.tensor([int(stale)])))
        part = self._part(layer, weight, split) if stale or kept is None else kept.part
        return compute(Call(layer, split, part, magnitudes, out_dtype), local, weight, bias)

    def quantized_weight(self, layer: TFMBSLinear, weight: DTensor) -> tuple[Tensor, Tensor]:
        trits, scale, _ = _quantized(layer, weight, Split.of(weight))
        return trits, scale

    @staticmethod
    def _needs_others(layer: TFMBSLinear, split: Split) -> bool:
        """Whether quantizing outputs talks to other processes. They must then all do it or none."""
        if split.dim is None or type(layer.weight_quantizer) is FixedScaleQuantizer:
            return False
        return layer._quantizer_name in ("absmean", "custom")

    @staticmethod
    def _kept(layer: TFMBSLinear, weight: DTensor) -> _Kept | None:
        """What was packed, if the weight has not changed since. In training it is packed anew."""
        kept: _Kept | None = layer.__dict__.get("_kept_shard")
        if kept is None or layer.training or kept.version != _version(weight):
            return None
        # Each to_local() of an inference tensor or in a graph is another view.
        same = kept.of._replace(weight=local_part(weight))
        return kept if same.is_of(same.weight, layer.weight_quantizer) else None

    @staticmethod
    def _part(layer: TFMBSLinear, weight: DTensor, split: Split) -> Part:
        with torch.no_grad():
            trits, scale, nans = _quantized(layer, weight, split)
            part = packed_part(trits, scale, nans, layer.activation)
            kept: Any = None
            if not layer.training:
                kept = KeptWeight.of(local_part(weight), layer.weight_quantizer, trits[:0], scale)
        layer.__dict__["_kept_shard"] = (
            None if kept is None else _Kept(kept, _version(weight), part)
        )
        return part


def register() -> None:
    """Has trainable layers compute with DTensor weights."""
    sharding.KINDS.setdefault(DTensor, _Distributed())
