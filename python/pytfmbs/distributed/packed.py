"""Packed layers that processes share: each holds its part of the trits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from .. import _fabric, errors
from ..nn.packed import TFMBSPackedLinear
from ..ops import torch_ops
from ..ops.panels import panels_of_rows, panels_of_trits
from .product import Call, Magnitudes, compute, local_input
from .quantizing import Part
from .splits import INPUTS, OUTPUTS, Split, distributed


class PackedShare:
    """What a packed layer is of a larger one. The layer itself is of this process's part: its
    ``out_features``, ``in_features``, trits and state in memory.

    scale: of the whole weight: [1], [outputs] or [outputs, groups].
    """

    def __init__(self, split: Split, group_size: int, scale: Tensor) -> None:
        self.split, self.size = split, group_size
        self.adopt_scale(scale)

    def adopt_scale(self, scale: Tensor) -> None:
        """Keeps what scales the added sums, row-wise."""
        self._each = scale.numel() > 1  # a scale for each output, without groups
        self._scale: Tensor | None = None
        if self._cuts_rows:
            self._scale = scale.float().reshape(-1)
        if self._cuts_rows and self.size:
            self._scale = torch_ops.ordered_scales(
                scale.float().contiguous(), self.split.inputs, self.size
            )

    @property
    def padding(self) -> int:
        """Zeros before a row's own inputs: its first group begins where the whole row's does."""
        return self.split.part.start % self.size if self._cuts_rows and self.size else 0

    @property
    def _cuts_rows(self) -> bool:
        return self.split.dim == INPUTS

    def local_shape(self) -> tuple[int, int]:
        outputs, inputs = self.split.shape
        return outputs, self.padding + inputs

    def local_scale(self, scale: Tensor) -> Tensor:
        """Of a whole weight's scale, what the layer holds."""
        if not self.size and not self._each:
            return scale.reshape(-1)
        if self.split.dim == OUTPUTS:
            return scale[self.split.part]
        if self.size:
            first = self.split.part.start // self.size
            return scale[:, first : first + -(-self.local_shape()[1] // self.size)]
        return scale

    # --- the forward pass ---------------------------------------------------------------------

    def forward(self, layer: TFMBSPackedLinear, input: Tensor) -> Tensor:
        local = local_input(layer, input, self.split)
        out_dtype = None
        if torch.is_autocast_enabled("cpu"):
            out_dtype = torch_ops.autocast_dtype(local, local)
        magnitudes = None
        if self._cuts_rows:
            magnitudes, _ = Magnitudes(local, layer.activation).share(self.split, False)
        scale = layer._scales if self._scale is None else self._scale
        part = Part(
            panels=layer._panels,
            scales=layer._scales,
            layout=layer._layout,
            outputs=layer.out_features,
            inputs=layer.in_features,
            group_size=self.size,
            padding=self.padding,
            scale=scale,
            factor=scale,
        )
        call = Call(layer, self.split, part, magnitudes, out_dtype)
        return compute(call, local, None, layer.bias)

    # --- the state ----------------------------------------------------------------------------

    def state(self, layer: TFMBSPackedLinear) -> tuple[Tensor, Tensor]:
        """``packed`` and ``scale`` of the whole weight, distributed by rows whatever the split is, so
        that any number of processes can load them. All processes must call it."""
        split = self.split
        row_bytes = -(-split.inputs // _fabric.TRITS_PER_BYTE)
        packed, scale = layer.packed, layer.scale.clone()
        if self._cuts_rows:
            trits, _ = layer.quantized_weight()
            trits = trits[:, self.padding :].contiguous()
            shape = (split.outputs, split.inputs)
            rows = distributed(trits, split.mesh, Shard(1), *shape).redistribute(
                placements=[Shard(0)]
            )
            packed = _rows_of_trits(rows.to_local(), layer._layout)
            scale = self._whole_scale()
        elif self.size or self._each:
            scale = distributed(scale, split.mesh, Shard(0), split.outputs, *scale.shape[1:])
        return distributed(packed, split.mesh, Shard(0), split.outputs, row_bytes), scale

    def _whole_scale(self) -> Tensor:
        assert self._scale is not None
        if not self.size:
            return self._scale.clone()
        return torch_ops.scale_rows(  # type: ignore[no-any-return]
            self._scale, self.split.outputs, self.split.inputs, self.size
        )

    def load(
        self, layer: TFMBSPackedLinear, packed: Any, scale: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of a state, whole or as ``state`` gives it: the layer's own packed rows and scale, and the
        whole scale that ``adopt_scale`` takes. Raises ArgumentError for what is neither."""
        split = self.split
        row_bytes = -(-split.inputs // _fabric.TRITS_PER_BYTE)
        shape = (split.outputs, row_bytes)
        if packed.dtype != torch.uint8 or tuple(packed.shape) != shape:
            raise errors.ArgumentError(
                f"packed is {packed.dtype} of shape {tuple(packed.shape)}; the layer's is "
                f"torch.uint8 of shape {shape}"
            )
        if isinstance(scale, DTensor):
            scale = scale.full_tensor()
        if isinstance(packed, DTensor):
            rows = packed.redistribute(split.mesh, [Shard(0)]).to_local()
            if self._cuts_rows:
                trits = _trits_of_rows(rows, split.inputs, layer._layout)
                whole = distributed(trits, split.mesh, Shard(0), split.outputs, split.inputs)
                rows = self._rows(whole.redistribute(placements=[Shard(1)]).to_local(), layer)
        elif self._cuts_rows:
            trits = _trits_of_rows(packed, split.inputs, layer._layout)
            rows = self._rows(trits[:, split.part], layer)
        else:
            rows = packed[split.part]
        return rows, self.local_scale(scale), scale

    def _rows(self, trits: Tensor, layer: TFMBSPackedLinear) -> Tensor:
        padded = torch.nn.functional.pad(trits, (self.padding, 0))
        return _rows_of_trits(padded, layer._layout)


def _trits_of_rows(rows: Tensor, inputs: int, layout: str) -> Tensor:
    panels = panels_of_rows(rows, inputs, layout)
    trits: Tensor = torch_ops.trits_of_panels(panels, layout, rows.shape[0], inputs)
    return trits


def _rows_of_trits(trits: Tensor, layout: str) -> Tensor:
    panels = panels_of_trits(trits.contiguous(), layout)
    rows: Tensor = torch_ops.rows_of_panels(panels, layout, *trits.shape)
    return rows


def share_packed(layer: TFMBSPackedLinear, split: Split, trits: Tensor, scale: Tensor) -> None:
    """Makes a packed layer its part of a larger one. trits: the part's; scale: the whole weight's."""
    share = PackedShare(split, layer._group_size, scale)
    outputs, inputs = share.local_shape()
    panels = panels_of_trits(
        torch.nn.functional.pad(trits, (share.padding, 0)).contiguous(), layer._layout
    )
    layer.out_features, layer.in_features = outputs, inputs
    layer._adopt(panels, layer._kernel_scale(share.local_scale(scale)))
    layer._enter(layer.name, replacing=None if layer._offload else layer._layer)
    layer.__dict__["_share"] = share
