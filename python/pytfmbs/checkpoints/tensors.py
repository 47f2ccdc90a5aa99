"""What a checkpoint holds of a ternary layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..nn.bitnet import BitNetLinear, BitNetPackedLinear, RMSNorm
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from . import codes

Layer = TypeVar("Layer", TFMBSLinear, TFMBSPackedLinear)


@dataclass(frozen=True, eq=False)
class TernaryTensor:
    """A ternary layer: y = norm(x) (trits · scale)ᵀ + bias.

    name: of the layer, as the file has it, without ".weight".
    trits: int8, [out_features, in_features].
    scale: float32, [1], [out_features], or with a group size [out_features, ceil(in / group_size)].
    bias: [out_features], or None. What the layer adds, whatever the file's format does with it.
    rms_norm, rms_norm_eps: the weight of the norm that the layer's input goes through, or None.
    """

    name: str
    trits: Tensor
    scale: Tensor
    bias: Tensor | None = None
    group_size: int | None = None
    activation: str = "int8"
    rms_norm: Tensor | None = None
    rms_norm_eps: float | None = None

    @property
    def out_features(self) -> int:
        return int(self.trits.shape[0])

    @property
    def in_features(self) -> int:
        return int(self.trits.shape[1])

    def values(self) -> Tensor:
        """trits · scale, float32 [out_features, in_features]."""
        scale = self.scale
        if self.group_size is not None:
            scale = scale.repeat_interleave(self.group_size, dim=1)[:, : self.in_features]
        elif scale.numel() > 1:
            scale = scale.reshape(-1, 1)
        return self.trits.to(torch.float32) * scale

    def rows(self, order: Tensor) -> TernaryTensor:
        """The layer of these outputs, in this order."""
        trits = codes.empty_trits(len(order), self.in_features)
        return replace(
            self,
            trits=torch.index_select(self.trits, 0, order, out=trits),
            scale=self.scale if self.scale.numel() == 1 else self.scale[order],
            bias=None if self.bias is None else self.bias[order],
        )

    def packed_layer(self, **options: Any) -> TFMBSPackedLinear:
        """A layer for inference. options: TFMBSPackedLinear's."""
        kind = TFMBSPackedLinear if self.rms_norm is None else BitNetPackedLinear
        layer = kind.from_trits(
            self.trits,
            self.scale,
            self.bias,
            group_size=self.group_size,
            **{"activation": self.activation, **options},
        )
        return self._with_norm(layer)

    def trainable_layer(self, dtype: torch.dtype | None = None, **options: Any) -> TFMBSLinear:
        """A layer that trains and keeps the scale. dtype: of the weight; None is torch's default.
        Raises ArgumentError for group scales. options: TFMBSLinear's."""
        kind = TFMBSLinear if self.rms_norm is None else BitNetLinear
        layer = kind.from_trits(
            self.trits,
            self.scale,
            self.bias,
            dtype=dtype,
            **{"activation": self.activation, **options},
        )
        return self._with_norm(layer)

    def _with_norm(self, layer: Layer) -> Layer:
        if self.rms_norm is not None:
            assert self.rms_norm_eps is not None
            layer.register_module("rms_norm", RMSNorm(self.rms_norm.clone(), self.rms_norm_eps))
        return layer
