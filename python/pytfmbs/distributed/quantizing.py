"""This process's part of a weight, quantized by statistics of the whole weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _fabric
from ..ops import torch_ops
from ..ops.panels import panels_of_trits
from ..quantization import quantizers
from ..quantization.fixed_scale import FixedScaleQuantizer
from ..quantization.quantizers import WeightQuantizer
from .splits import INPUTS, Split


class Part(NamedTuple):
    """A part of a weight, ready for the kernels.

    scale: of the part's outputs, [1] or [outputs], NaN for an output that is; with groups the scales
        of all inputs, in the kernels' order.
    factor: what a trit stands for in the gradient: as scale, without the NaNs.
    padding: zeros before a row's own inputs, so that its groups begin where the whole row's do.
    """

    panels: Tensor
    scales: Tensor  # what packed_linear takes
    layout: str
    outputs: int
    inputs: int
    group_size: int
    padding: int
    scale: Tensor
    factor: Tensor


def quantized_part(
    quantizer: WeightQuantizer, local: Tensor, split: Split, whole: Callable[[], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Trits and scale of this process's part, and which outputs hold a NaN anywhere, as uint8. All
    processes of the mesh must call it.

    local: the part, [outputs, inputs]. whole: gives the whole weight, for a quantizer of the user's.
    """
    wide = local.dtype == torch.float64
    kind = quantizers.spec_name(quantizer)
    whole_rows = split.dim != INPUTS
    nans: Tensor | None = None
    if kind == "sign":
        trits, nans = torch_ops.trits_above(local, torch.zeros(1, dtype=torch.float64))
        scale = torch.ones(1, dtype=torch.float64 if wide else torch.float32)
    elif kind == "absmean":
        sums = torch_ops.weight_magnitudes(local, False)
        if split.dim is not None:
            split.sum_(sums)
        thresholds, scale = torch_ops.weight_rule(sums, kind, wide)
        trits, nans = torch_ops.trits_above(local, thresholds)
    elif kind == "twn":
        sums = torch_ops.weight_magnitudes(local, True)
        thresholds, _ = torch_ops.weight_rule(sums if whole_rows else split.sum_(sums), kind, wide)
        above = torch_ops.weight_magnitudes(local, True, thresholds)
        _, scale = torch_ops.weight_rule(above if whole_rows else split.sum_(above), kind, wide)
        trits, nans = torch_ops.trits_above(local, thresholds)
    elif type(quantizer) is FixedScaleQuantizer:
        scale = split.outputs_of(quantizer.scale)
        level = torch.ones(1) if quantizer.holds_trits else scale
        trits, nans = torch_ops.trits_above(local, level.double() / 2)
    else:  # any function of the whole weight
        trits, scale = quantizers.apply(quantizer, whole())
        quantizers.check_trits(trits)
        scale = split.outputs_of(scale)
        if split.dim is not None:
            trits = trits[split.part] if whole_rows else trits[:, split.part]
        trits = trits.contiguous()
    if nans is None:
        nans = local.isnan().any(1).to(torch.uint8)
    return trits, scale, nans if whole_rows else split.max_(nans)


def packed_part(trits: Tensor, scale: Tensor, nans: Tensor, activation: str) -> Part:
    """A part of a trainable layer's weight."""
    layout = _fabric.packing_layout(activation, "auto")
    whole = scale
    if bool(nans.any()):
        whole = torch.where(nans.bool(), torch.nan, scale.expand(nans.shape[0]))
    return Part(
        panels=panels_of_trits(trits, layout),
        scales=whole.to(torch.float32),
        layout=layout,
        outputs=trits.shape[0],
        inputs=trits.shape[1],
        group_size=0,
        padding=0,
        scale=whole,
        factor=scale,
    )
