"""FixedScaleQuantizer: weights that are ternary already keep their own scale."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ArgumentError


def check_held(scale: Tensor, dtype: torch.dtype) -> None:
    """Raises ArgumentError where weights of a dtype, ± a scale, would not be that trit again."""
    rounded = scale.to(dtype).double()
    lost = ~(torch.isfinite(rounded) & (rounded > scale.double() / 2))
    if lost.any():
        name = str(dtype).removeprefix("torch.")
        raise ArgumentError(
            f"a weight of {name} does not hold the scale {scale[lost][0].item()}; use float32"
        )


class FixedScaleQuantizer:
    """trit = sign(w) where |w| > scale / 2, else 0; the scale, [1] or [out], is never recomputed.

    holds_trits: the weight is trits alone, without the scale: trit = sign(w) where |w| > 1/2.
    """

    name = "fixed"

    def __init__(self, scale: Tensor, holds_trits: bool = False) -> None:
        self.scale = scale
        self.holds_trits = holds_trits

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale
        wide = weight.to(torch.float64)
        threshold: Tensor | float = 0.5
        if not self.holds_trits:
            threshold = (scale.unsqueeze(1) if scale.numel() > 1 else scale).to(torch.float64) / 2
        trits = torch.sign(wide) * (wide.abs() > threshold)
        return torch.nan_to_num(trits, nan=0.0).to(torch.int8), scale
