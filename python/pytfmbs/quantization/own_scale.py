"""Weights that are ternary already: the scale that they hold."""

from __future__ import annotations

import torch
from torch import Tensor

from .fixed_scale import FixedScaleQuantizer
from .quantizers import WeightQuantizer

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_LEAST = 8  # values above 0 in size that share a scale, on average: fewer may be ternary by chance
_CHUNK = 1 << 20  # values that are compared at once, to bound the memory of a check


def own_scale(weight: Tensor) -> Tensor | None:
    """The scale s, [1] or [out], of a weight whose values are all -s, 0 or +s; None for any other.

    weight: [out, in]. float32, or float64 where the weight is. Only zeros have no scale. Most
    weights are told by their first row.
    """
    if weight.dim() != 2 or weight.numel() == 0 or weight.dtype not in _DTYPES:
        return None
    if type(weight.data) is not Tensor or weight.device.type != "cpu":
        return None
    weight = weight.detach()
    if not _is_ternary(weight[:1]):
        return None
    rows = max(1, _CHUNK // weight.shape[1])
    if not all(_is_ternary(weight[start : start + rows]) for start in range(0, len(weight), rows)):
        return None
    scale = torch.maximum(weight.amax(1), -weight.amin(1))
    used = scale > 0
    if not bool(used.any()):
        return None
    scale = torch.where(used, scale, scale.max())  # a row of zeros has any scale
    if bool((scale == scale[0]).all()):
        scale = scale[:1].clone()
    if int(torch.count_nonzero(weight)) < _LEAST * scale.numel():
        return None
    return scale if scale.dtype == torch.float64 else scale.float()


def group_size(weight: Tensor) -> int | None:
    """The number of inputs that share a scale in a weight that is ternary by groups of its rows; None
    where it is not, or has one scale a row. The largest of 256, 128, 64 and 32."""
    if weight.dim() != 2 or weight.numel() == 0 or weight.dtype not in _DTYPES:
        return None
    if type(weight.data) is not Tensor or weight.device.type != "cpu" or weight.shape[1] < 64:
        return None
    weight = weight.detach()
    for size in (256, 128, 64, 32):
        inputs = weight.shape[1]
        if inputs <= size or inputs % size or not _is_ternary(weight[0].reshape(-1, size)):
            continue
        if _is_ternary(weight.reshape(-1, size)):
            groups = weight.numel() // size
            return size if int(torch.count_nonzero(weight)) >= _LEAST * groups else None
    return None


def keeping_own_scale(quantizer: WeightQuantizer, weight: Tensor) -> FixedScaleQuantizer | None:
    """A quantizer that keeps the scale of a weight that is ternary already; None where the weight is
    not, or the quantizer gives the weight back as it is."""
    scale = own_scale(weight)
    if scale is None:
        return None
    with torch.no_grad():
        trits, found = quantizer(weight.detach())
        each = found.reshape(-1, 1).to(weight.dtype)
        if torch.equal(trits.to(weight.dtype) * each, weight):
            return None
    return FixedScaleQuantizer(scale)


def _is_ternary(rows: Tensor) -> bool:
    size = rows.abs()
    top = size.amax(1, keepdim=True)
    return bool(((size == 0) | ((size == top) & torch.isfinite(size))).all())
