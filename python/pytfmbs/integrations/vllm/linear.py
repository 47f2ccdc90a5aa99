"""Ternary linear layers of vLLM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from vllm.model_executor.layers.linear import LinearBase, LinearMethodBase, RowParallelLinear

from ...nn.packed import TFMBSPackedLinear
from ...ops import torch_ops
from . import parallel
from .formats import Format
from .loading import stored_parameters


class TernaryLinearMethod(LinearMethodBase):
    """Packed weights in a layer of vLLM: loads them, and computes with them.

    Where the inputs of a layer are split over ranks (``RowParallelLinear``), the layer's own
    all-reduce of float outputs is turned off: ``apply`` gives the whole output on every rank.
    """

    def __init__(self, format: Format, prefix: str, parts: int) -> None:
        self.format, self.prefix, self.parts = format, prefix, parts

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        assert isinstance(layer, LinearBase)
        rows, inputs = sum(output_partition_sizes), input_size_per_partition
        split = inputs != input_size
        if split:
            self._check_split(layer)
        self.rows, self.inputs, self.all_inputs, self.split = rows, inputs, input_size, split
        made = stored_parameters(layer, self.format, self.prefix, rows, inputs, input_size)
        for name, parameter in made.items():
            layer.register_parameter(name, parameter)

    def _check_split(self, layer: LinearBase) -> None:
        if not isinstance(layer, RowParallelLinear):
            raise ValueError(
                f"{self.prefix}: a {type(layer).__name__} with split inputs is not served"
            )
        if self.format.activation != "int8" or self.format.group_size is not None:
            raise ValueError(
                f"{self.prefix}: its inputs are split over {layer.tp_size} ranks; that is served with "
                "int8 activations and one scale, or one per output. Use --tensor-parallel-size 1"
            )
        if not layer.reduce_results:
            raise ValueError(
                f"{self.prefix}: the model adds the outputs of several ranks itself, which ternary "
                "layers cannot. Use --tensor-parallel-size 1"
            )
        layer.reduce_results = False

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        names = (self.format.weight, self.format.scale or "weight_scale")
        packed, scales = (getattr(layer, name).data for name in names)
        if bool(scales.isnan().any()):
            raise ValueError(
                f"{self.prefix}: the checkpoint has no scales ({names[1]}) for all of its outputs. If it "
                "is a float layer, modules_to_not_convert must name it"
            )
        for name in names:
            delattr(layer, name)
        own = TFMBSPackedLinear(
            self.inputs,
            self.rows,
            bias=False,
            device="meta",
            name=self.prefix,
            activation=self.format.activation,
            group_size=self.format.group_size,
        )
        own.offload = True  # no device counts it
        own.load_state_dict({"packed": packed, "scale": scales})
        layer.panels = Parameter(own._panels, requires_grad=False)
        layer.scales = Parameter(own._scales, requires_grad=False)
        layer.register_buffer("identity", own._own_identity, persistent=False)
        self.layout, self.group = own._layout, own.group_size or 0
        self.own = own  # keeps the layer that the identity names
        bias = getattr(layer, "bias", None)
        if bias is not None and self.format.bias_is_scaled:
            # As transformers' AutoBitLinear: what is added is bias · scale, in fp32.
            layer.bias = Parameter(bias.data.to(torch.float32) * scales, requires_grad=False)

    def apply(self, layer: torch.nn.Module, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., inputs of this rank] to [..., outputs of this rank]."""
        if self.split:
            # Every rank adds the bias, once all sums are there.
            own: Any = layer
            bias = None if own.skip_bias_add else own.bias
            return parallel.row_parallel_linear(  # type: ignore[no-any-return]
                x, layer.panels, layer.scales, bias, layer.identity, self.layout,
                self.rows, self.inputs, self.all_inputs,
            )  # fmt: skip
        return torch_ops.packed_linear(  # type: ignore[no-any-return]
            x, layer.panels, layer.scales, bias, layer.identity, self.layout,
            self.rows, self.inputs, self.group, self.format.activation, None, None,
        )  # fmt: skip
