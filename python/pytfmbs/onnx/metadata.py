"""What a node of an ONNX file says of its layer: ``TFMBSLinear.telemetry_hint`` as strings under
``metadata_props`` (keys: docs/onnx.md, "Metadata").

The node of a layer's product carries the whole hint. In portable mode the layer's other nodes carry
its name; each node says its part under ROLE.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import onnx
import onnx_ir as ir

PREFIX: Final = "pytfmbs."
LAYER: Final = "pytfmbs.layer"
SPARSITY: Final = "pytfmbs.sparsity"
TILE_MASK: Final = "pytfmbs.tile_mask"
WEIGHT_ADDR: Final = "pytfmbs.weight_addr"
WEIGHT_QUANTIZER: Final = "pytfmbs.weight_quantizer"
ACTIVATION: Final = "pytfmbs.activation"
IN_FEATURES: Final = "pytfmbs.in_features"
OUT_FEATURES: Final = "pytfmbs.out_features"
ROLE: Final = "pytfmbs.role"

#: Of the node that carries the hint: all there, or it is malformed. WEIGHT_ADDR may be absent.
REQUIRED: Final = (
    LAYER,
    SPARSITY,
    TILE_MASK,
    WEIGHT_QUANTIZER,
    ACTIVATION,
    IN_FEATURES,
    OUT_FEATURES,
)

#: Values of ROLE.
QUANTIZE: Final = "quantize"
PRODUCT: Final = "product"
DEQUANTIZE: Final = "dequantize"

Node = onnx.NodeProto | ir.Node


def encode(hint: Mapping[str, Any]) -> dict[str, str]:
    """A ``telemetry_hint`` as metadata; keys that have no place in a file (``resident``) are left
    out."""
    props = {
        LAYER: str(hint["layer"]),
        SPARSITY: f"{hint['sparsity']:.4f}",
        TILE_MASK: str(int(hint["tile_mask"])),
        WEIGHT_QUANTIZER: str(hint["weight_quantizer"]),
        ACTIVATION: str(hint["activation"]),
        IN_FEATURES: str(int(hint["in_features"])),
        OUT_FEATURES: str(int(hint["out_features"])),
    }
    if hint.get("weight_addr") is not None:
        props[WEIGHT_ADDR] = str(int(hint["weight_addr"]))
    return props


def decode(props: Mapping[str, str], where: str = "node") -> dict[str, Any] | None:
    """The hint that metadata says, without ``resident``; None where it says none.

    ``weight_addr`` is None where it is automatic. Raises ValueError for a hint that lacks a key or
    has a value out of its range; ``where`` names its place in the message.
    """
    if not any(key in props for key in (*REQUIRED[1:], WEIGHT_ADDR)):
        return None
    for key in REQUIRED:
        if not props.get(key):
            raise ValueError(f"{where}: metadata {key} is missing")
    return {
        "layer": props[LAYER],
        "sparsity": _sparsity(props[SPARSITY], where),
        "tile_mask": _integer(props, TILE_MASK, where, 1, (1 << 64) - 1),
        "weight_addr": (
            _integer(props, WEIGHT_ADDR, where, 0, (1 << 63) - 1) if WEIGHT_ADDR in props else None
        ),
        "weight_quantizer": props[WEIGHT_QUANTIZER],
        "activation": props[ACTIVATION],
        "in_features": _integer(props, IN_FEATURES, where, 1, (1 << 63) - 1),
        "out_features": _integer(props, OUT_FEATURES, where, 1, (1 << 63) - 1),
    }


def write(node: Node, hint: Mapping[str, Any]) -> None:
    """Puts a ``telemetry_hint`` on a node, in the place of what it says of a layer already."""
    for key in (*REQUIRED, WEIGHT_ADDR):
        _remove(node, key)
    for key, value in encode(hint).items():
        write_key(node, key, value)


def read(node: Node) -> dict[str, Any] | None:
    """The hint that a node carries: ``telemetry_hint``'s keys without ``resident``; None where it
    carries none. Raises ValueError for a malformed one."""
    return decode(properties(node), f"node {node.name!r} ({node.op_type})")


def role(node: Node) -> str | None:
    """The node's part in its layer: QUANTIZE, PRODUCT, DEQUANTIZE, or None."""
    return properties(node).get(ROLE)


def layer(node: Node) -> str | None:
    """Name of the layer that the node is a part of, or None."""
    return properties(node).get(LAYER)


def properties(node: Node) -> dict[str, str]:
    """A node's metadata that is the project's."""
    if isinstance(node, onnx.NodeProto):
        found = {entry.key: entry.value for entry in node.metadata_props}
    else:
        found = dict(node.metadata_props)
    return {key: value for key, value in found.items() if key.startswith(PREFIX)}


def write_key(node: Node, key: str, value: str) -> None:
    """Sets one key of a node's metadata."""
    if isinstance(node, onnx.NodeProto):
        _remove(node, key)
        node.metadata_props.add(key=key, value=value)
    else:
        node.metadata_props[key] = value


def _remove(node: Node, key: str) -> None:
    if isinstance(node, onnx.NodeProto):
        for index in reversed(range(len(node.metadata_props))):
            if node.metadata_props[index].key == key:
                del node.metadata_props[index]
    else:
        node.metadata_props.pop(key, None)


def _sparsity(text: str, where: str) -> float:
    if not re.fullmatch(r"[01]\.\d{4}", text) or not float(text) <= 1.0:
        raise ValueError(
            f"{where}: metadata {SPARSITY} is {text!r}; it must be 0.0000 to 1.0000, four decimals"
        )
    return float(text)


def _integer(props: Mapping[str, str], key: str, where: str, low: int, high: int) -> int:
    text = props[key]
    if not re.fullmatch(r"\d{1,20}", text, re.ASCII) or not low <= int(text) <= high:
        raise ValueError(
            f"{where}: metadata {key} is {text!r}; it must be an integer of {low} to {high}"
        )
    return int(text)
