"""A weight that FSDP2 has gathered as trits: the tensor that a layer holds between an all-gather and
the next reshard, and the product with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import _fabric
from ..nn import sharding
from ..nn.linear import TFMBSLinear
from ..ops import straight_through, torch_ops

_aten = torch.ops.aten


@dataclass
class Trits:
    """What was gathered of a weight of [outputs, inputs].

    panels: in torch's own memory, which FSDP2 frees and allocates again. scale: [1] or [outputs],
    float32, NaN for an output that is. factor: what a trit stands for in the gradient: as scale,
    without the NaNs.
    """

    panels: Tensor
    scale: Tensor
    factor: Tensor
    layout: str
    outputs: int
    inputs: int

    @classmethod
    def empty(cls, layout: str, outputs: int, inputs: int) -> Trits:
        panels = torch.empty(_fabric.panel_bytes(layout, outputs, inputs), dtype=torch.uint8)
        return cls(panels, torch.empty(0), torch.empty(0), layout, outputs, inputs)

    def fill(self, rows: Tensor, scale: Tensor, factor: Tensor) -> None:
        """rows: PT-5, uint8 [outputs, ceil(inputs / 5)]."""
        torch_ops.panels_of_rows(rows, self.inputs, self.layout, self.panels)
        # The layer's device compares versions, and FSDP2 allocates the same address again.
        torch.autograd.graph.increment_version(self.panels)
        self.scale, self.factor = scale, factor

    @property
    def form(self) -> tuple[str, int, int, int]:
        return self.layout, self.outputs, self.inputs, 0


class GatheredTrits(Tensor):
    """A parameter of the float weight's shape and dtype that holds its trits. There are no floats to
    read: every operation but the layer's own product is refused by name."""

    trits: Trits
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, trits: Trits, dtype: torch.dtype) -> GatheredTrits:
        made: GatheredTrits = torch.Tensor._make_wrapper_subclass(
            cls, (trits.outputs, trits.inputs), dtype=dtype, device=torch.device("cpu")
        )
        made.trits = trits
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"GatheredTrits({self.trits.outputs}x{self.trits.inputs}, dtype={self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        # What FSDP2 and nn.Parameter do to make a parameter of it: other handles of the same trits.
        if func is _aten.detach.default:
            return cls(args[0].trits, args[0].dtype)
        if func is _aten.as_strided.default:
            source, size, stride = args[:3]
            if tuple(size) == tuple(source.shape) and tuple(stride) == source.stride():
                return cls(source.trits, source.dtype)
        raise RuntimeError(
            f"{func}: FSDP2 gathered this weight as trits, so this process has no floats of it. Read "
            "weights where they are sharded (before the forward pass, or after model.reshard()), or "
            "leave out pytfmbs.distributed.gather_trits"
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: GatheredTrits,
        bias: Tensor | None,
        layer: TFMBSLinear,
        out_dtype: torch.dtype | None,
    ) -> Tensor:
        trits, activation, clip = weight.trits, layer.activation, layer._window
        needs = tuple(ctx.needs_input_grad[:3])
        kept = straight_through.keep_gathered(ctx, input, weight.dtype, needs, activation, clip)
        ctx.trits = trits  # gathered again before backward reads them
        ctx.save_for_backward(kept)
        return torch_ops.packed_linear(  # type: ignore[no-any-return]
            input,
            trits.panels,
            trits.scale,
            bias,
            layer._own_identity,
            *trits.form,
            activation,
            clip,
            out_dtype,
        )

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (kept,) = ctx.saved_tensors
        trits: Trits = ctx.trits
        found = straight_through.gathered_gradients(
            ctx, grads[0], kept, trits.panels, trits.factor, trits.form
        )
        return *found, None, None


class _Gathered:
    @torch.compiler.disable(reason="a weight that FSDP2 gathers as trits")
    def forward(
        self, layer: TFMBSLinear, input: Tensor, weight: GatheredTrits, bias: Tensor | None
    ) -> Tensor:
        out_dtype = None
        if torch.is_autocast_enabled("cpu"):
            out_dtype = torch_ops.autocast_dtype(input, weight)
        if out_dtype is None and input.dtype != weight.dtype:
            raise RuntimeError(
                f"layer {layer.name!r}: the input is {input.dtype}, the weight {weight.dtype}"
            )
        output: Tensor = _Product.apply(input, weight, bias, layer, out_dtype)
        return output

    def quantized_weight(self, layer: TFMBSLinear, weight: GatheredTrits) -> tuple[Tensor, Tensor]:
        trits = weight.trits
        values = torch_ops.trits_of_panels(trits.panels, trits.layout, trits.outputs, trits.inputs)
        return values, trits.factor.clone()


def register() -> None:
    """Has trainable layers compute with weights that were gathered as trits."""
    sharding.KINDS.setdefault(GatheredTrits, _Gathered())
