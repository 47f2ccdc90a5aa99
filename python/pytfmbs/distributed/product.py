"""The forward and backward pass of a layer that processes share, with the numbers of one process.

Column-wise, each process computes its outputs. Row-wise, each multiplies its inputs: the absolute
maximum of a row is taken over all processes before the row is quantized, and the int32 sums are added
before they are scaled. Maxima and sums of integers do not depend on their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from ..nn.fabric_layer import FabricLayer
from ..ops import torch_ops
from ..ops.dequantized import dequantized
from .gradients import linear_gradients, saved_for_backward
from .quantizing import Part
from .splits import INPUTS, OUTPUTS, Split, distributed


class Magnitudes:
    """The absolute maximum of each row of an input, of which every process holds a part; for modes
    without scales, whether it is NaN.

    Compared as integers, so that a NaN wins, together with a flag of each process's.
    """

    def __init__(self, input: Tensor, activation: str) -> None:
        wide = input.dtype == torch.float64
        input = input.detach()
        if activation != "int8":
            rows = torch.where(input.isnan().any(-1), torch.nan, 0.0)
        elif input.shape[-1] == 0:
            rows = input.new_zeros(input.shape[:-1])
        else:
            rows = input.abs().amax(-1)
        self._own = rows.to(torch.float64 if wide else torch.float32).reshape(-1)
        self._activation = activation

    def share(self, split: Split, flag: bool) -> tuple[Tensor, bool]:
        """The maxima over all processes, and whether a flag was set."""
        bits = torch.int64 if self._own.dtype == torch.float64 else torch.int32
        packed = torch.empty(self._own.numel() + 1, dtype=bits)
        packed[:-1] = self._own.view(bits)
        packed[-1] = int(flag)
        split.max_(packed)
        return packed[:-1].view(self._own.dtype), bool(packed[-1])

    @property
    def own(self) -> Tensor:
        return self._own


def row_scales(magnitudes: Tensor, activation: str) -> Tensor:
    """The rows' scales, NaN for a row that is."""
    if activation != "int8":
        return torch.where(magnitudes.isnan(), torch.nan, 1.0).to(magnitudes.dtype)
    _, scale = torch_ops.quantize_activation(magnitudes.reshape(-1, 1), activation)
    return torch.where(magnitudes.isfinite(), scale.reshape(-1), torch.nan)


@dataclass
class Call:
    """A forward pass. magnitudes: of all processes, row-wise."""

    layer: FabricLayer
    split: Split
    part: Part
    magnitudes: Tensor | None
    out_dtype: torch.dtype | None  # autocast's

    def output(self, input: Tensor, bias: Tensor | None) -> Tensor:
        part, layer = self.part, self.layer
        key = (part.layout, part.outputs, part.inputs, part.group_size, layer.activation)
        wide = input.dtype == torch.float64
        if self.split.dim != INPUTS and part.scale.dtype == torch.float32:
            return torch_ops.packed_linear(  # type: ignore[no-any-return]
                input,
                part.panels,
                part.scales,
                bias,
                layer._own_identity,
                *key,
                layer._window,
                self.out_dtype,
            )
        magnitudes = self.magnitudes
        if magnitudes is None:
            magnitudes = Magnitudes(input, layer.activation).own
        if part.padding:
            input = nn.functional.pad(input, (part.padding, 0))
        sums = torch_ops.packed_sums(
            input, magnitudes, part.panels, part.scales, layer._own_identity, *key
        )
        if self.split.dim == INPUTS:
            sums = self._add(sums)
        return torch_ops.scaled_sums(  # type: ignore[no-any-return]
            sums,
            row_scales(magnitudes, layer.activation),
            part.scale,
            bias,
            self.split.inputs,
            part.group_size,
            wide,
            self.out_dtype or input.dtype,
        )

    def _add(self, sums: Tensor) -> Tensor:
        size = self.part.group_size
        if size:
            groups = -(-self.split.inputs // size)
            first = self.split.part.start // size
            own, sums = sums, sums.new_zeros((groups, *sums.shape[1:]))
            sums[first : first + own.shape[0]] = own
        return self.split.sum_(sums)

    def weight(self, dtype: torch.dtype) -> Tensor:
        """What the part's trits stand for."""
        part = self.part
        trits = torch_ops.trits_of_panels(part.panels, part.layout, part.outputs, part.inputs)
        if part.group_size == 0:
            return dequantized(trits, part.factor, dtype)
        inputs = self.split.inputs if self.split.dim == INPUTS else part.inputs
        rows = torch_ops.scale_rows(part.factor, part.outputs, inputs, part.group_size)
        first = 0
        if self.split.dim == INPUTS:
            first = self.split.part.start
        each = rows.repeat_interleave(part.group_size, dim=1)
        trits = trits[:, part.padding :]
        scales: Tensor = each[:, first : first + trits.shape[1]].to(dtype)
        weights: Tensor = trits.to(dtype) * scales
        return weights


class _Product(torch.autograd.Function):
    """Of this process's parts. weight: None for a packed layer."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call
    ) -> Tensor:
        ctx.call, ctx.needs = call, ctx.needs_input_grad[:3]
        ctx.dtypes = (input.dtype, input.dtype if weight is None else weight.dtype)
        ctx.bias_dtype = None if bias is None else bias.dtype
        clip = call.layer._window
        if weight is None:
            windowed = ctx.needs[0] and clip is not None
            ctx.save_for_backward(input if windowed else None, None)
        else:
            ctx.save_for_backward(*saved_for_backward(input, weight, clip, ctx.needs))
        return call.output(input, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        call: Call = ctx.call
        input, weight = ctx.saved_tensors
        quantized_input = None
        if ctx.needs[1]:
            values, scale = torch_ops.quantize_activation(
                input, call.layer.activation, call.magnitudes
            )
            quantized_input = dequantized(values, scale, input.dtype)
        of_input, of_weight, of_bias = linear_gradients(
            grads[0],
            input,
            weight,
            quantized_input,
            call.weight(ctx.dtypes[1]) if ctx.needs[0] else None,
            call.layer._window,
            ctx.needs,
            ctx.dtypes,
        )
        if of_bias is not None:
            of_bias = of_bias.to(ctx.bias_dtype)
        return of_input, of_weight, of_bias, None


def local_input(layer: FabricLayer, input: Any, split: Split) -> Tensor:
    """This process's part of an input. Raises TypeError for one that is not distributed, and
    RuntimeError for one of another size."""
    if not isinstance(input, DTensor):
        raise TypeError(
            f"layer {layer.name!r} is shared by processes: its input must be a DTensor, which "
            "parallelize_module's styles make of a tensor"
        )
    placement = split.input_placement(input.ndim)
    if input.placements != (placement,):
        input = input.redistribute(split.mesh, [placement])
    gradient = Partial() if split.dim == OUTPUTS else placement
    local: Tensor = input.to_local(grad_placements=[gradient])
    local = local.wait() if hasattr(local, "wait") else local
    inputs = split.shape[1]
    if local.ndim == 0 or local.shape[-1] != inputs:
        raise RuntimeError(
            f"layer {layer.name!r}: this process's part of the input has {tuple(local.shape)} values; "
            f"its part of the weight takes {inputs} in the last dimension"
        )
    return local


def compute(call: Call, input: Tensor, weight: DTensor | None, bias: Any) -> DTensor:
    """The output, distributed."""
    local_bias = bias.to_local() if isinstance(bias, DTensor) else bias
    local_weight = None if weight is None else weight.to_local()
    output: Tensor = _Product.apply(input, local_weight, local_bias, call)
    split = call.split
    placement = Shard(output.ndim - 1) if split.dim == OUTPUTS else Replicate()
    return distributed(output, split.mesh, placement, *output.shape[:-1], split.outputs)
