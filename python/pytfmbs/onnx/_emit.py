"""The nodes of a layer, in both modes (docs/onnx.md). What is called here records nodes into the
graph that torch.onnx.export builds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript import opset18, values

from ..quantization.packing import pack_pt5
from . import metadata, schema
from ._layers import ExportedLayer, ExportError

#: (X, bias, layer, Y's type or None for X's, names) to Y
Emitter = Callable[
    [ir.Value, "ir.Value | None", ExportedLayer, "ir.DataType | None", "Names"], ir.Value
]

op: Any = opset18  # its annotations are of eager tensors; what is recorded are ir.Values

_ABSMAX_FLOOR = 1e-5  # docs/python-api.md, "Activations"
_INT8_MAX = 127.0
_WIDE = ir.DataType.DOUBLE
_HALF = ir.DataType.FLOAT16


class Names:
    """Names of a graph's constants: a layer that is called again gets a suffix."""

    def __init__(self) -> None:
        self._used: Counter[str] = Counter()

    def unique(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name] - 1}"


def _constant(array: np.ndarray, name: str | None = None) -> Any:
    """A constant of the graph; the exporter's optimizer makes an initializer of it."""
    value = op.Constant(value=ir.tensor(array, name=name))
    value.name = name
    return value


class _Nodes:
    """Marks the nodes of one layer with its name and their role."""

    def __init__(self, layer: ExportedLayer) -> None:
        self._layer = layer

    def mark(self, role: str, value: Any) -> Any:
        node = value.producer()
        metadata.write_key(node, metadata.LAYER, self._layer.name)
        metadata.write_key(node, metadata.ROLE, role)
        return value

    def hint(self, value: Any) -> Any:
        metadata.write(value.producer(), self._layer.hint)
        return value


def _working_type(kind: ir.DataType) -> ir.DataType:
    """What the activations are quantized in, and the epilogue computes in."""
    return _WIDE if kind == _WIDE else ir.DataType.FLOAT


def _kept_half(value: Any) -> Any:
    """A float16 value that a runtime has to round. ONNX Runtime computes float16 operators that it
    has no kernel for in float32, and drops Cast pairs around them: what is float16 in the file is
    then never rounded. It has a float16 kernel of Max."""
    return op.Max(value, value)


def portable(
    x: ir.Value,
    bias: ir.Value | None,
    layer: ExportedLayer,
    out_type: ir.DataType | None,
    names: Names,
) -> Any:
    """Standard operators."""
    kind = _type_of(x, layer)
    working = _working_type(kind)
    real = working.numpy()
    nodes = _Nodes(layer)

    def quantize(value: Any) -> Any:
        return nodes.mark(metadata.QUANTIZE, value)

    def dequantize(value: Any) -> Any:
        return nodes.mark(metadata.DEQUANTIZE, value)

    def scalar(number: float) -> Any:
        return _constant(np.array(number, real))

    last = _constant(np.array([-1], np.int64))
    int8 = layer.hint["activation"] == "int8"
    if kind == _HALF:
        x = quantize(_kept_half(x))
    wide_x = x if kind == working else quantize(op.Cast(x, to=working))
    bad = quantize(op.IsNaN(wide_x))
    if int8:
        bad = quantize(op.Or(bad, quantize(op.IsInf(wide_x))))
    flags = quantize(op.Cast(bad, to=ir.DataType.UINT8))
    bad_rows = quantize(
        op.Cast(quantize(op.ReduceMax(flags, last, keepdims=1)), to=ir.DataType.BOOL)
    )
    clean = quantize(op.Where(bad, scalar(0.0), wide_x))
    row_scale = None
    if int8:
        largest = quantize(op.ReduceMax(quantize(op.Abs(clean)), last, keepdims=1))
        top = quantize(op.Max(largest, scalar(_ABSMAX_FLOOR)))
        limit = scalar(_INT8_MAX)
        row_scale = quantize(op.Div(top, limit))
        rounded = quantize(op.Round(quantize(op.Mul(clean, quantize(op.Div(limit, top))))))
        rounded = quantize(op.Clip(rounded, scalar(-_INT8_MAX), limit))
    else:
        rounded = quantize(op.Sign(clean))
    q = quantize(op.Cast(rounded, to=ir.DataType.INT8))

    trits = _constant(np.ascontiguousarray(layer.trits.T), names.unique(f"{layer.name}.trits"))
    product = nodes.hint(nodes.mark(metadata.PRODUCT, op.MatMulInteger(q, trits)))

    scale: Any = None
    output_scale = layer.scale_in(working == _WIDE)
    if row_scale is None or output_scale.tolist() != [1.0]:
        scale = _constant(output_scale, names.unique(f"{layer.name}.scale"))
    if row_scale is not None:
        scale = row_scale if scale is None else dequantize(op.Mul(row_scale, scale))
    # The Where also keeps ONNX Runtime from fusing product and scales into its MatMulIntegerToFloat,
    # which takes the first row's scale for all.
    scale = dequantize(op.Where(bad_rows, scalar(float("nan")), scale))
    y = dequantize(op.Mul(dequantize(op.Cast(product, to=working)), scale))
    if bias is not None:
        addend = bias if bias.dtype == working else dequantize(op.Cast(bias, to=working))
        y = dequantize(op.Add(y, addend))
    target = kind if out_type is None else out_type
    if target != working:
        y = dequantize(op.Cast(y, to=target))
    return dequantize(_kept_half(y)) if target == _HALF else y


def custom(
    x: ir.Value,
    bias: ir.Value | None,
    layer: ExportedLayer,
    out_type: ir.DataType | None,
    names: Names,
) -> Any:
    """One pytfmbs.TernaryLinear; Casts around it where autocast chose the output's type."""
    kind = _type_of(x, layer)
    target = kind if out_type is None else out_type
    working = _working_type(kind)
    if target != kind:  # through the type that the epilogue computes in, so rounded once
        x = x if kind == working else op.Cast(x, to=working)
    inside = kind if target == kind else working
    if bias is not None and bias.dtype != inside:
        bias = op.Cast(bias, to=inside)
    hint = layer.hint
    address = hint["weight_addr"]
    nodes = _Nodes(layer)
    y = values.Opset(schema.DOMAIN, schema.VERSION).TernaryLinear(
        x,
        _constant(pack_pt5(layer.trits), names.unique(f"{layer.name}.weights")),
        _constant(layer.scale_in(working == _WIDE), names.unique(f"{layer.name}.scale")),
        bias,
        in_features=hint["in_features"],
        out_features=hint["out_features"],
        activation=hint["activation"],
        weight_quantizer=hint["weight_quantizer"],
        layer=layer.name,
        sparsity=hint["sparsity"],
        tile_mask=schema.signed_mask(hint["tile_mask"]),
        weight_addr=schema.AUTOMATIC_ADDRESS if address is None else address,
    )
    nodes.hint(nodes.mark(metadata.PRODUCT, y))
    return y if target == inside else op.Cast(y, to=target)


def _type_of(x: ir.Value, layer: ExportedLayer) -> ir.DataType:
    if x.dtype is None:
        raise ExportError(f"layer {layer.name!r}: the type of its input is not known")
    return x.dtype


MODES: dict[str, Emitter] = {"portable": portable, "custom": custom}
