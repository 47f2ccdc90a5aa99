"""Layers whose input goes through an RMS norm first, as BitNet's does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .linear import TFMBSLinear
from .packed import TFMBSPackedLinear


class RMSNorm(nn.Module):
    """weight · (x / sqrt(mean(x²) + eps)): the mean in fp32, its result rounded to the input's dtype
    before it is multiplied, as transformers' LlamaRMSNorm does."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        """[..., features] to the same."""
        wide = input.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(input.dtype)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, eps={self.eps}"


class BitNetLinear(TFMBSLinear):
    """A ternary layer whose input goes through ``rms_norm`` first."""

    rms_norm: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return super().forward(self.rms_norm(input))


class BitNetPackedLinear(TFMBSPackedLinear):
    """A packed layer whose input goes through ``rms_norm`` first."""

    rms_norm: nn.Module

    @classmethod
    def from_linear(cls, linear: nn.Linear, **options: Any) -> BitNetPackedLinear:
        """A layer with the trits, the norm and the settings of a BitNetLinear."""
        if type(linear) is not BitNetLinear:
            raise TypeError(f"linear must be a BitNetLinear, not a {type(linear).__name__}")
        layer = cls._of_ternary(linear, options)
        layer.register_module("rms_norm", linear.rms_norm)
        assert isinstance(layer, BitNetPackedLinear)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]."""
        return super().forward(self.rms_norm(input))
