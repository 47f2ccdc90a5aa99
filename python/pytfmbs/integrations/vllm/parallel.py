"""A layer whose inputs are split over ranks: the same numbers as on one rank.

A token's largest magnitude is all-reduced before it quantizes, and the exact sums are all-reduced
before scales and bias. Scales and bias are then applied on every rank as the kernels do: in fp32,
rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from vllm.distributed import get_tp_group

from ...ops import torch_ops

_LARGEST_QUANTIZED = 127
_FLOOR = 1e-5  # of a token's largest magnitude, as the kernels'
#: Integers up to this magnitude are exact in float32, and so are their sums.
_EXACT = 1 << 24


def _all_maximum(local: Tensor) -> Tensor:
    """[..., 1] of every rank to their maximum."""
    return get_tp_group().all_gather(local, dim=-1).amax(-1, keepdim=True)  # type: ignore[no-any-return]


def _all_sums(local: Tensor, all_inputs: int) -> Tensor:
    """The ranks' int32 sums, added up, in float32."""
    group = get_tp_group()
    if all_inputs * _LARGEST_QUANTIZED <= _EXACT:
        # vLLM's shared memory adds floats only, and these exactly.
        return group.all_reduce(local.to(torch.float32))  # type: ignore[no-any-return]
    torch.distributed.all_reduce(local, group=group.device_group)
    return local.to(torch.float32)


@torch.library.custom_op("tfmbs_vllm::row_parallel_linear", mutates_args=())
def row_parallel_linear(
    x: Tensor,
    panels: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    identity: Tensor,
    layout: str,
    outputs: int,
    inputs: int,
    all_inputs: int,
) -> Tensor:
    """[..., inputs of this rank] to [..., outputs], the same on every rank."""
    largest = x.to(torch.float32).abs().amax(-1, keepdim=True)
    # A maximum over ranks may lose a NaN, and keeps an infinity.
    largest = _all_maximum(torch.where(largest.isfinite(), largest, torch.inf))
    finite = largest.isfinite()
    top = largest.clamp(min=_FLOOR)
    unit = torch.full_like(top, _LARGEST_QUANTIZED)
    sums = torch_ops.packed_sums(
        x, largest.flatten().double(), panels, scales, identity, layout, outputs, inputs, 0, "int8"
    )[0]
    made = _all_sums(sums, all_inputs) * ((top / unit) * scales)
    made = torch.where(finite, made, torch.nan)
    if bias is not None:
        made = made + bias.to(torch.float32)
    return made.to(x.dtype)


@row_parallel_linear.register_fake
def _(
    x: Tensor,
    panels: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    identity: Tensor,
    layout: str,
    outputs: int,
    inputs: int,
    all_inputs: int,
) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))
