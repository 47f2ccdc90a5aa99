"""Ternary layers: quantized weights, what is known of a layer, and the ops that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import torch

from pytfmbs import _fabric
from pytfmbs._fabric import FabricConfig
from pytfmbs.quantization import quantizers
from pytfmbs.quantization.activations import ACTIVATIONS
from pytfmbs.quantization.packing import pack_pt5, unpack_pt5
from pytfmbs.quantization.quantizers import WeightQuantizer
from pytfmbs.telemetry.hints import rounded_sparsity

from ..errors import ConversionError
from .emitter import Emitter
from .mlir_text import identifier, string
from .structure import reshape
from .types import F32, F64, Array, Value, constant, from_onnx, mlir_tensor

#: The integer products are exact up to here (docs/python-api.md, "Numbers").
_LARGEST_DEPTH = _fabric.MAX_DEPTH


@dataclass(frozen=True)
class QuantizedWeight:
    """Trits as PT-5 bytes, row-major [outputs, depth]; scale of 1 or outputs values."""

    packed: bytes
    scale: Array
    outputs: int
    depth: int
    zeros: int

    @property
    def sparsity(self) -> float:
        return rounded_sparsity(self.zeros, self.outputs * self.depth)


@dataclass(frozen=True)
class TernaryLayer:
    """A layer on the fabric, as its telemetry knows it."""

    name: str
    weight: QuantizedWeight
    sparsity: float
    tile_mask: int
    weight_addr: int | None
    weight_quantizer: str
    activation: str

    @property
    def hint(self) -> dict[str, Any]:
        """``TFMBSLinear.telemetry_hint`` but for ``resident``, which is a device's."""
        return {
            "layer": self.name,
            "sparsity": self.sparsity,
            "tile_mask": self.tile_mask,
            "weight_addr": self.weight_addr,
            "in_features": self.weight.depth,
            "out_features": self.weight.outputs,
            "weight_quantizer": self.weight_quantizer,
            "activation": self.activation,
        }


def quantize(weight: Array, quantizer: WeightQuantizer) -> QuantizedWeight:
    """A float weight [outputs, depth] as TFMBSLinear quantizes it."""
    contiguous = np.ascontiguousarray(weight)
    if contiguous.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(contiguous.view(np.int16).copy()).view(torch.bfloat16)
    else:
        # Not from_numpy alone: arrays over a file's bytes are read-only.
        tensor = torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())
    with torch.no_grad():
        trits, scale = quantizers.apply(quantizer, tensor)
        nan_columns = torch.isnan(tensor).any(dim=1)
        if nan_columns.any():
            scale = torch.where(nan_columns, torch.nan, scale)
    return from_trits(trits.numpy(), scale.numpy())


def from_trits(trits: Array, scale: Array) -> QuantizedWeight:
    outputs, depth = trits.shape
    packed = pack_pt5(trits)
    zeros = trits.size - int(np.count_nonzero(trits))
    return QuantizedWeight(packed.tobytes(), scale.reshape(-1), outputs, depth, zeros)


def from_packed(packed: Array, outputs: int, depth: int, scale: Array) -> QuantizedWeight:
    """Weights that are PT-5 already. Raises ConversionError for bytes that are no code."""
    try:
        trits = unpack_pt5(np.ascontiguousarray(packed), outputs * depth)
    except ValueError as error:
        raise ConversionError(f"weights: {error}") from error
    return from_trits(trits.reshape(outputs, depth), scale)


def default_tile_mask(config: FabricConfig, outputs: int) -> int:
    """The mask of a layer that was given none: the runtime's own rule."""
    return int(_fabric.default_tile_mask(config, outputs))


def check_activation(activation: object) -> None:
    if activation not in ACTIVATIONS:
        allowed = ", ".join(map(repr, ACTIVATIONS))
        raise ConversionError(f"activation is {activation!r}; allowed are {allowed}")


def check_depth(depth: int) -> None:
    if depth > _LARGEST_DEPTH:
        raise ConversionError(
            f"in_features is {depth}; products are exact in 32 bits up to {_LARGEST_DEPTH}"
        )


class LayerNames:
    """Names that are unique but for uses of one layer."""

    def __init__(self) -> None:
        self._owners: dict[str, object] = {}

    def take(self, name: str, owner: object) -> str:
        """The name, or with a suffix as the runtime gives it where another owner has it."""
        unique, suffix = name, 0
        while self._owners.setdefault(unique, owner) != owner:
            suffix += 1
            unique = f"{name}-{suffix}"
        return unique


def emit_layer(
    emit: Emitter,
    layer: TernaryLayer,
    x: Value,
    bias: Value | None,
    target: int | None = None,
) -> Value:
    """y = (quantized x · trits) · scale + bias, of x [..., depth]: quantize, gemv, dequantize.

    target: ONNX's number of y's element type; None is x's.
    """
    out = x.element if target is None else from_onnx(target, f"the result of {layer.name!r}")
    if not out.is_float:
        raise ConversionError(f"layer {layer.name!r} gives floats, not {out.name}")
    weight = layer.weight
    depth, outputs = weight.depth, weight.outputs
    if x.rank == 0 or not x.element.is_float or x.extents[-1] not in (depth, *_unknown(x)):
        raise ConversionError(
            f"layer {layer.name!r} takes floats of [..., {depth}], not {x.element.name} {x.shape}"
        )
    leading = x.extents[:-1]
    rows = emit.product(leading)
    x2 = emit.cast_extents(reshape(emit, x, (rows, x.extents[-1])), (rows, depth))
    scales = F64 if x.element is F64 else F32
    trits = mlir_tensor((outputs, depth), "!tfmbs.trit")
    resource = emit.resources.add(layer.name, weight.packed)
    weights = emit.define(
        f"tfmbs.weights dense_resource<{resource}> : tensor<{len(weight.packed)}xi8> -> {trits}"
    )
    quantized, row_scales = mlir_tensor((rows, depth), "i8"), mlir_tensor((rows,), scales.mlir)
    q0, s0 = emit.empty((rows, depth), "i8"), emit.empty((rows,), scales.mlir)
    q, s = emit.fresh(), emit.fresh()
    emit.line(
        f"{q}, {s} = tfmbs.quantize {layer.activation} ins({emit.name(x2)} : {x2.type}) "
        f"outs({q0}, {s0} : {quantized}, {row_scales}) -> {quantized}, {row_scales}"
    )
    sums = mlir_tensor((rows, outputs), "i32")
    a0 = emit.empty((rows, outputs), "i32")
    attributes = {
        "tile_mask": f"{layer.tile_mask} : ui64",
        **({} if layer.weight_addr is None else {"weight_addr": f"{layer.weight_addr} : ui64"}),
        "telemetry": _telemetry(layer),
    }
    accumulated = emit.define(
        f"tfmbs.gemv {{{_entries(attributes)}}} ins({q}, {weights} : {quantized}, {trits}) "
        f"outs({a0} : {sums}) -> {sums}"
    )
    scale = constant(np.ascontiguousarray(weight.scale.astype(scales.numpy)))
    emit.call_array(scale.constant, f"{identifier(layer.name)}.scale")  # type: ignore[arg-type]
    bias_text = ""
    if bias is not None:
        if bias.constant is not None:
            emit.call_array(bias.constant, f"{identifier(layer.name)}.bias")
        bias_text = f"bias({emit.name(bias)} : {bias.type}) "
    result = mlir_tensor((rows, outputs), out.mlir)
    scale_name, y0 = emit.name(scale), emit.empty((rows, outputs), out.mlir)
    y = emit.define(
        f"tfmbs.dequantize ins({accumulated}, {s}, {scale_name} : {sums}, {row_scales}, "
        f"{scale.type}) {bias_text}outs({y0} : {result}) -> {result}"
    )
    return reshape(emit, Value(out, (rows, outputs), ssa=y), (*leading, outputs))


def _unknown(x: Value) -> tuple[str, ...]:
    last = x.extents[-1]
    return (last,) if isinstance(last, str) else ()


def _telemetry(layer: TernaryLayer) -> str:
    entries = {
        "layer": string(layer.name),
        "sparsity": f"{layer.sparsity:.4f}",
        "weight_quantizer": string(layer.weight_quantizer),
        "activation": string(layer.activation),
    }
    return f"{{{_entries(entries)}}}"


def _entries(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{key} = {text}" for key, text in attributes.items())
