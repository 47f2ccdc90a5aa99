"""Ternary layers: of float weights, and of the project's own operator."""

from __future__ import annotations

import ast
import re

import numpy as np

from ...emission.layers import (
    QuantizedWeight,
    TernaryLayer,
    check_activation,
    check_depth,
    default_tile_mask,
    emit_layer,
    from_packed,
    from_trits,
    quantize,
)
from ...emission.types import F32, F64, U8, Array, Value
from ...errors import ConversionError
from ..context import Context
from ..onnx_graph import OWN_DOMAIN, Node
from ..ternary_weights import TernaryMatrix
from .operands import Handler, Inputs, array, floats, optional, required

AUTOMATIC_ADDRESS = -1
_OPERATOR = "TernaryLinear"
_LAYER = "pytfmbs.layer"


def float_layer(
    context: Context,
    node: Node,
    x: Value,
    weight: Array,
    source: tuple[str, bool],
    alpha: float,
    bias: Value | None,
) -> Value:
    """A layer of float weights [outputs, depth], quantized as TFMBSLinear quantizes them.

    source: the value that the weights came from, and whether it is laid out as they are.
    """
    outputs, depth = weight.shape
    check_depth(depth)
    options = context.options
    activation = options.activation or "ternary"
    key = (*source, alpha)
    if key not in context.quantized:
        quantized = quantize(weight, options.weight_quantizer)
        context.quantized[key] = _times(quantized, alpha)
    name = context.names.take(layer_name(node, source[0]), key)
    if name not in context.layers:
        context.layer_nodes[name] = node
        quantized = context.quantized[key]
        context.layers[name] = TernaryLayer(
            name,
            quantized,
            quantized.sparsity,
            default_tile_mask(options.config, outputs),
            None,
            options.weight_quantizer.name,
            activation,
        )
    return emit_layer(context.emit, context.layers[name], x, bias)


def qdq_layer(
    context: Context,
    node: Node,
    x: Value,
    weight: TernaryMatrix,
    alpha: float,
    bias: Value | None,
) -> Value:
    """A layer of weights that are ternary in the file."""
    check_depth(weight.trits.shape[1])
    layer = given_layer(
        context,
        node,
        _times(from_trits(weight.trits, weight.scale), alpha),
        name=layer_name(node, _weight_name(context, node)),
        tile_mask=0,
        weight_addr=None,
        weight_quantizer="custom",
        activation=context.options.activation or "int8",
    )
    return emit_layer(context.emit, layer, x, bias)


def _weight_name(context: Context, node: Node) -> str:
    """What the constant that a product's weights are made of is called, less what quantizers add."""
    name = node.inputs[1]
    while (maker := context.graph.producer(name)) is not None and maker.inputs:
        name = maker.inputs[0]
    return _QUANTIZED_SUFFIX.sub("", name)


def is_layer(node: Node) -> bool:
    """Whether a node is the project's operator of a layer."""
    return (node.domain, node.op_type) == (OWN_DOMAIN, _OPERATOR)


def _times(weight: QuantizedWeight, alpha: float) -> QuantizedWeight:
    if alpha == 1.0:
        return weight
    scale = weight.scale * np.asarray(alpha, weight.scale.dtype)
    return QuantizedWeight(weight.packed, scale, weight.outputs, weight.depth, weight.zeros)


# --- names --------------------------------------------------------------------------------------

_QUANTIZED_SUFFIX = re.compile(r"_(quantized|int8|int4|int2|Q\d+|DQ_Q\d+)$")
_OPERATOR_SUFFIX = re.compile(r"[./](Gemm|MatMul|Add|Linear)(_\d+)?$")


def layer_name(node: Node, weight: str) -> str:
    """What a layer is called: the module's path where the exporter tells it (in metadata, in the
    weight's name or in the node's), else the node's name."""
    metadata = node.metadata
    if metadata.get(_LAYER):
        return metadata[_LAYER]
    path = _module_path(metadata)
    if path:
        return path
    if weight.endswith(".weight"):
        return weight.removesuffix(".weight")
    name = _OPERATOR_SUFFIX.sub("", node.proto.name).strip("/").replace("/", ".")
    return name.removeprefix("node_") or node.op_type


def _module_path(metadata: dict[str, str]) -> str | None:
    """The path of the module that a node of torch's exporter came from; a root that is itself a
    linear layer has the last scope's name."""
    try:
        scopes = ast.literal_eval(metadata.get("pkg.torch.onnx.name_scopes", ""))
        classes = ast.literal_eval(metadata.get("pkg.torch.onnx.class_hierarchy", "[]"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    for given in (scopes, classes):
        if not isinstance(given, list) or not all(isinstance(part, str) for part in given):
            return None
    if not scopes:
        return None
    of_linear = len(classes) >= 2 and "linear" in classes[-2].lower()
    parts = scopes[:-1] if of_linear and any(scopes[:-1]) else scopes
    # A scope is the module's whole path already where modules nest.
    path = ""
    for part in parts:
        path = part if path and part.startswith(f"{path}.") else f"{path}.{part}" if path else part
    return path or None


# --- the own operator -----------------------------------------------------------------------------


def _ternary_linear(context: Context, node: Node, inputs: Inputs) -> Value:
    x = floats(inputs, 0)
    packed = array(context, node, required(inputs, 1), "weights")
    scale = array(context, node, required(inputs, 2), "scale")
    bias = optional(inputs, 3)
    depth, outputs = node.integer("in_features"), node.integer("out_features")
    if depth < 1 or outputs < 1:
        raise ConversionError(f"in_features and out_features are {depth} and {outputs}; at least 1")
    check_depth(depth)
    size = -(-depth * outputs // 5)  # five trits a byte
    if required(inputs, 1).element != U8 or packed.shape != (size,):
        raise ConversionError(
            f"weights are {required(inputs, 1).element.name} {list(packed.shape)}; {outputs} x "
            f"{depth} trits are uint8 [{size}]"
        )
    if required(inputs, 2).element not in (F32, F64) or scale.shape not in ((1,), (outputs,)):
        raise ConversionError(
            f"scale is {list(scale.shape)}; it must be floats of [1] or [{outputs}]"
        )
    if bias is not None and (bias.element != x.element or bias.extents != (outputs,)):
        raise ConversionError(
            f"bias is {bias.element.name} {bias.shape}; it must be {x.element.name} [{outputs}]"
        )
    weight = from_packed(packed, outputs, depth, scale)
    address = node.integer("weight_addr", AUTOMATIC_ADDRESS)
    layer = given_layer(
        context,
        node,
        weight,
        name=node.text("layer", "") or layer_name(node, node.inputs[1]),
        tile_mask=node.integer("tile_mask", 0) % (1 << 64),
        weight_addr=None if address == AUTOMATIC_ADDRESS else address,
        weight_quantizer=node.text("weight_quantizer", "custom"),
        activation=node.text("activation", "ternary"),
    )
    if node.has("sparsity") and abs(node.number("sparsity") - layer.sparsity) > 1e-4:
        raise ConversionError(
            f"sparsity is {node.number('sparsity'):.4f}; the weights' is {layer.sparsity:.4f}"
        )
    return emit_layer(context.emit, layer, x, bias)


def given_layer(
    context: Context,
    node: Node,
    weight: QuantizedWeight,
    *,
    name: str,
    tile_mask: int,
    weight_addr: int | None,
    weight_quantizer: str,
    activation: str,
) -> TernaryLayer:
    """A layer that a file describes; one that it describes twice is one layer."""
    check_activation(activation)
    if weight_addr is not None and (weight_addr < 0 or weight_addr % 4):
        raise ConversionError(f"weight_addr is {weight_addr}; it must be a multiple of 4, or -1")
    tiles = context.options.config.tiles
    if context.options.config_given and tile_mask >> tiles:
        raise ConversionError(f"tile_mask is {tile_mask:#x}; the device has {tiles} tiles")
    owner = (weight.packed, weight.scale.tobytes(), weight.outputs, weight.depth, activation)
    unique = context.names.take(name, owner)
    if unique not in context.layers:
        context.layer_nodes[unique] = node
        context.layers[unique] = TernaryLayer(
            unique,
            weight,
            weight.sparsity,
            tile_mask or default_tile_mask(context.options.config, weight.outputs),
            weight_addr,
            weight_quantizer,
            activation,
        )
    return context.layers[unique]


OPERATORS: dict[tuple[str, str], Handler] = {(OWN_DOMAIN, _OPERATOR): _ternary_linear}
