"""Trits and integers times their scales, as floats."""

from __future__ import annotations

import torch
from torch import Tensor


def dequantized(values: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """values · scale in dtype; scale is [1], [rows] (one a row of a matrix), or has a last
    dimension of 1."""
    if scale.dim() == 1 and values.dim() == 2:
        scale = scale.unsqueeze(1)
    return values.to(dtype) * scale.to(dtype)


def dequantized_panels(
    panels: Tensor,
    scale: Tensor,
    layout: str,
    out_features: int,
    in_features: int,
    group_size: int,
    dtype: torch.dtype,
) -> Tensor:
    """The weights of a packed layer as floats, [out_features, in_features]."""
    ops = torch.ops.tfmbs
    trits = ops.trits_of_panels.default(panels, layout, out_features, in_features)
    if group_size == 0:
        return dequantized(trits, scale, dtype)
    rows = ops.scale_rows.default(scale, out_features, in_features, group_size)
    each = rows.repeat_interleave(group_size, dim=1)[:, :in_features]
    weight: Tensor = trits.to(dtype) * each.to(dtype)
    return weight
