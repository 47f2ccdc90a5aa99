"""FSDP2 with trits on the wire: what each process sends of its part of a weight, and what it makes of
all parts.

FSDP2 asks a parameter's local tensor for ``fsdp_pre_all_gather`` and ``fsdp_post_all_gather``
(torch/distributed/fsdp/_fully_shard/_fsdp_param.py) and gathers whatever the first gives. A process sends
its rows as PT-5, 1.6 bits a weight, and a byte for each row: whether it holds a NaN. With "twn", whose
scales differ by row, the float32 scale takes that byte's place, negative for a row with a NaN.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Shard

from .. import _fabric, errors
from ..nn.linear import TFMBSLinear
from ..ops import torch_ops
from ..ops.gradient_ops import WEIGHT_CLIP, outside
from ..quantization.fixed_scale import FixedScaleQuantizer
from . import gathered
from .gathered import GatheredTrits, Trits
from .quantizing import quantized_part
from .splits import OUTPUTS, Split, local_part


class _Wire:
    """FSDP2's two hooks for one layer.

    dtype: in which FSDP2 would have gathered the weight. Its values are rounded to it before they
    are quantized, so that the numbers are those of a gathered float weight.
    """

    def __init__(self, layer: TFMBSLinear, dtype: torch.dtype) -> None:
        self._layer, self._dtype = layer, dtype
        self._outputs, self._inputs = layer.out_features, layer.in_features

    def send(self, mesh: DeviceMesh) -> tuple[tuple[Tensor, ...], Tensor]:
        """fsdp_pre_all_gather: codes, and what there is of each row. All processes of the mesh call it."""
        split = Split(mesh, OUTPUTS, self._outputs, self._inputs)
        local = local_part(cast(DTensor, self._layer.weight)).to(self._dtype)
        with torch.no_grad():
            trits, scale, nans = quantized_part(
                self._layer.weight_quantizer, local, split, _no_whole_weight
            )
            codes = torch_ops.rows_of_trits(trits)
            notes = nans.reshape(-1, 1)
            if self._scales_by_row:
                noted = torch.where(nans.bool(), -scale, scale)
                notes = noted.reshape(-1, 1).view(torch.uint8)
            rows = -(-self._outputs // mesh.size())
            return (_padded(codes, rows), _padded(notes, rows)), self._whole_scale(scale)

    def receive(
        self,
        gathered: tuple[Tensor, ...],
        scale: Tensor,
        param_dtype: torch.dtype,
        *,
        out: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...]] | None:
        """fsdp_post_all_gather: the unsharded parameter, and the memory that FSDP2 frees when it
        reshards; or that of ``out`` filled again."""
        if param_dtype != self._dtype:
            raise RuntimeError(
                f"layer {self._layer.name!r}: FSDP2 computes in {param_dtype}, and its trits were made of "
                f"{self._dtype}. Give gather_trits the mixed precision policy's param_dtype"
            )
        codes, notes = (part[: self._outputs] for part in gathered)
        if self._scales_by_row:
            noted = notes.contiguous().view(torch.float32).reshape(-1)
            nans, factor = noted.signbit(), noted.abs()
        else:
            nans, factor = notes.reshape(-1).bool(), scale
        has_nans = bool(nans.any())
        scale = torch.where(nans, torch.nan, factor.expand(self._outputs)) if has_nans else factor
        if out is None:
            layout = _fabric.packing_layout(self._layer.activation, "auto")
            trits = Trits.empty(layout, self._outputs, self._inputs)
            trits.fill(codes, scale, factor)
            return GatheredTrits(trits, self._dtype), (trits.panels,)
        if not isinstance(out, GatheredTrits):
            raise RuntimeError(
                f"layer {self._layer.name!r} gathered floats before it was asked to gather trits: call "
                "gather_trits before the first forward pass, after the model has got its weights"
            )
        out.trits.fill(codes, scale, factor)
        return None

    @property
    def _scales_by_row(self) -> bool:
        return self._layer._quantizer_name == "twn"

    def _whole_scale(self, scale: Tensor) -> Tensor:
        """What needs no gathering: one scale for all, or those that each process has."""
        quantizer = self._layer.weight_quantizer
        if isinstance(quantizer, FixedScaleQuantizer):
            return quantizer.scale.float().reshape(-1)
        return scale

    def keep_window(self, weight: Tensor) -> None:
        """After the gradients are reduced and scattered: no gradient outside the weight's own
        window, which needs the floats."""
        with torch.no_grad():
            local = local_part(cast(DTensor, weight)).to(self._dtype)
            grad = local_part(cast(DTensor, weight.grad))
            grad.masked_fill_(outside(local, WEIGHT_CLIP), 0)


def _no_whole_weight() -> Tensor:
    raise AssertionError("checked by gather_trits")


def _padded(values: Tensor, rows: int) -> Tensor:
    missing = rows - values.shape[0]
    return nn.functional.pad(values, (0, 0, 0, missing)) if missing else values


def gather_trits(model: nn.Module, param_dtype: torch.dtype | None = None) -> list[str]:
    """Has FSDP2 gather the trits of ternary layers, 1.6 bits a weight, in place of their floats.

    Call it after ``fully_shard`` and after the model has got its weights, in every process. The
    numbers do not change: losses, gradients and weights are those of gathered floats, bit for bit.
    Each process goes on holding its part of the floats, which the optimizer updates.

    Args:
        model: with TFMBSLinear layers that ``fully_shard`` has taken.
        param_dtype: of the MixedPrecisionPolicy, if there is one with a param_dtype.

    Returns: the paths of the layers.

    Raises:
        ArgumentError: there is no such layer, or one that cannot gather trits: of float64, with a
            quantizer of the user's, which sees whole weights, or sharded in another dimension.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    layers = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, TFMBSLinear) and isinstance(module.weight, DTensor)
    }
    if not layers or not any(isinstance(module, FSDPModule) for module in model.modules()):
        raise errors.ArgumentError(
            "the model has no TFMBSLinear that fully_shard has taken: call fully_shard(model) first"
        )
    for path, layer in layers.items():
        _check(path, layer, param_dtype)
    gathered.register()
    for layer in layers.values():
        _attach(layer, param_dtype or layer.weight.dtype)
    return list(layers)


def _check(path: str, layer: TFMBSLinear, param_dtype: torch.dtype | None) -> None:
    def refuse(reason: str) -> None:
        raise errors.ArgumentError(
            f"layer {path!r} cannot gather trits: {reason}. Shard it by a fully_shard of its own and "
            "leave it out, or convert it otherwise"
        )

    weight: Any = layer.weight
    if torch.float64 in (weight.dtype, param_dtype):
        refuse("its scales are float64, and packed ones float32")
    if _quantizes_whole_weights(layer):
        refuse(f"its quantizer {layer.weight_quantizer!r} sees the whole weight")
    sharded = [placement for placement in weight.placements if not placement.is_replicate()]
    if len(sharded) != 1 or type(sharded[0]) is not Shard or sharded[0].dim != OUTPUTS:
        refuse(f"its weight is placed as {weight.placements}, and only rows can be gathered")


def _quantizes_whole_weights(layer: TFMBSLinear) -> bool:
    return layer._custom and type(layer.weight_quantizer) is not FixedScaleQuantizer


def _held_by(weight: DTensor) -> Any:
    """The tensor that FSDP2 asks for its hooks. to_local() gives another handle of it."""
    return weight._local_tensor


def _attach(layer: TFMBSLinear, dtype: torch.dtype) -> None:
    wire = _Wire(layer, dtype)
    weight: Any = layer.weight
    local = _held_by(weight)
    local.fsdp_pre_all_gather = wire.send
    local.fsdp_post_all_gather = wire.receive
    if weight.requires_grad:
        weight.register_post_accumulate_grad_hook(wire.keep_window)
    layer.register_state_dict_post_hook(_plain_weight)


def _plain_weight(layer: TFMBSLinear, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """A state holds the floats alone: the hooks would be written with them."""
    weight = state.get(prefix + "weight")
    if isinstance(weight, DTensor):
        local = _held_by(weight)
        if hasattr(local, "fsdp_pre_all_gather"):
            plain = local.view(local.shape)
            state[prefix + "weight"] = DTensor(plain, weight._spec, requires_grad=False)
