"""torch's ColwiseParallel and RowwiseParallel for ternary layers."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel.style import ColwiseParallel, RowwiseParallel
from torch.distributed.tensor.placement_types import Placement

from ..nn.fabric_layer import FabricLayer
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from ..quantization.fixed_scale import FixedScaleQuantizer
from .packed import share_packed
from .splits import INPUTS, OUTPUTS, Split, local_part


def register() -> None:
    """Has the styles of torch take ternary layers. What else they take stays theirs."""
    _extend(ColwiseParallel, OUTPUTS)
    _extend(RowwiseParallel, INPUTS)


def _extend(style: Any, dim: int) -> None:
    own = style._apply
    if hasattr(own, "__wrapped__"):
        return

    @functools.wraps(own)
    def _apply(self: Any, module: nn.Module, device_mesh: DeviceMesh) -> nn.Module:
        if isinstance(module, FabricLayer):
            return _split_layer(self, module, device_mesh, dim)
        return own(self, module, device_mesh)  # type: ignore[no-any-return]

    style._apply = _apply


def _split_layer(style: Any, layer: FabricLayer, mesh: DeviceMesh, dim: int) -> FabricLayer:
    if getattr(layer, "_distribute_module_applied", False):
        raise RuntimeError(f"layer {layer.name!r} is distributed already")
    if mesh.ndim != 1:
        raise ValueError(
            f"a mesh of {mesh.ndim} dimensions; parallelize_module takes one of one: mesh['tp']"
        )
    split = Split(mesh, dim, layer.out_features, layer.in_features)
    source = style.src_data_rank

    def distribute(tensor: Tensor, placement: Placement) -> DTensor:
        return distribute_tensor(tensor, mesh, [placement], src_data_rank=source)

    def as_parameter(parameter: Tensor, placement: Placement) -> nn.Parameter:
        made = distribute(parameter.detach(), placement)
        return nn.Parameter(made, requires_grad=parameter.requires_grad)

    style.desired_input_layouts = (Shard(-1) if dim == INPUTS else Replicate(),)
    if isinstance(layer, TFMBSPackedLinear):
        if layer._panels.device.type == "meta":
            raise ValueError(f"layer {layer.name!r} is on meta: load its weights first")
        trits, scale = layer.quantized_weight()
        part = local_part(distribute(trits, Shard(dim)))
        share_packed(layer, split, part, local_part(distribute(scale, Replicate())))
    elif isinstance(layer, TFMBSLinear):
        quantizer = layer.weight_quantizer
        if isinstance(quantizer, FixedScaleQuantizer):
            fixed = local_part(distribute(quantizer.scale, Replicate()))
            quantizer.scale = fixed
            if "weight_scale" in layer._buffers:
                layer._buffers["weight_scale"] = fixed
        layer.register_parameter("weight", as_parameter(layer.weight, Shard(dim)))
    bias = layer._parameters.get("bias")
    if bias is not None:
        placement = Shard(0) if dim == OUTPUTS else Replicate()
        layer.register_parameter("bias", as_parameter(bias, placement))
    for child in layer.children():
        _replicate(child, split, as_parameter)
    layer.register_forward_pre_hook(
        lambda module, inputs: style._prepare_input_fn(
            style.input_layouts, style.desired_input_layouts, module, inputs, mesh
        )
    )
    layer.register_forward_hook(
        lambda module, inputs, output: style._prepare_output_fn(
            style.output_layouts, style.use_local_output, module, output, mesh
        )
    )
    layer.__dict__["_distribute_module_applied"] = True
    return layer


def _replicate(norm: nn.Module, split: Split, as_parameter: Any) -> None:
    """A norm before the product: it sees whole rows, so that its means are one process's."""
    for module in norm.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module.register_parameter(name, as_parameter(parameter, Replicate()))
    if split.dim != INPUTS:
        return
    if split.inputs % split.mesh.size():
        raise ValueError(
            f"{split.inputs} inputs, which a norm needs whole, do not divide by "
            f"{split.mesh.size()} processes"
        )
    norm.register_forward_pre_hook(
        lambda _, inputs: inputs[0].redistribute(split.mesh, [Replicate()])
    )
