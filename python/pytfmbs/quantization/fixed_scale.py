"""FixedScaleQuantizer: weights that are ternary already keep their own scale."""

from __future__ import annotations

import torch
from torch import Tensor


class FixedScaleQuantizer:
    """trit = sign(w) where |w| > scale / 2, else 0; the scale, [1] or [out], is never recomputed."""

    name = "fixed"

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale
        threshold = (scale.unsqueeze(1) if scale.numel() > 1 else scale).to(torch.float64) / 2
        wide = weight.to(torch.float64)
        trits = torch.sign(wide) * (wide.abs() > threshold)
        return torch.nan_to_num(trits, nan=0.0).to(torch.int8), scale
