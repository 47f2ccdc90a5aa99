"""What an export needs of a layer: its trits, its scales as the epilogue takes them, its hint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from .._fabric import Fabric
from ..nn.fabric_layer import FabricLayer
from ..nn.packed import TFMBSPackedLinear
from ..telemetry.hints import rounded_sparsity


class ExportError(ValueError):
    """A layer that cannot be exported; the message names it."""


@dataclass(frozen=True)
class ExportedLayer:
    """A layer's quantized weights and hint at export."""

    hint: dict[str, Any]
    trits: np.ndarray  # int8, [out_features, in_features]
    scale: np.ndarray  # float64, [1] or [out_features]; NaN for a column that is NaN

    @property
    def name(self) -> str:
        return str(self.hint["layer"])

    def scale_in(self, wide: bool) -> np.ndarray:
        """The scales as the epilogue takes them: double for double activations, else float."""
        with np.errstate(over="ignore"):  # to infinity, as the fabric rounds it
            return self.scale.astype(np.float64 if wide else np.float32)


#: Finds the layer that an op call names; the value is the call's weight.
Resolver = Callable[[str, ir.Value], ExportedLayer]


def exported_layer(
    hint: dict[str, Any], weight: Tensor | None, trits: Tensor, scale: Tensor
) -> ExportedLayer:
    """weight: what the trits were made of; a NaN in it makes its column NaN. None: a packed layer's,
    whose scale says it."""
    scales = scale.detach().cpu().double().numpy().reshape(-1).copy()
    if weight is not None:
        nan_columns = torch.isnan(weight.detach()).any(dim=1).cpu().numpy()
        if nan_columns.any():
            scales = np.where(nan_columns, np.nan, scales)  # one a column from here on
    return ExportedLayer(hint, np.ascontiguousarray(trits.detach().cpu().numpy()), scales)


def live_layers(model: nn.Module) -> Resolver:
    """Layers of a living model, quantized when an op call first asks for them."""
    modules = {m._layer.spec: m for m in model.modules() if isinstance(m, FabricLayer)}
    placeholders = {spec: set(_placeholders(model, m)) for spec, m in modules.items()}
    made: dict[str, ExportedLayer] = {}

    def resolve(spec: str, value: ir.Value) -> ExportedLayer:
        if spec not in modules:
            raise ExportError(
                f"layer {parse_spec(spec)['name']!r} is none of the model that the translation "
                "table was made from, or was moved since"
            )
        module = modules[spec]
        for root in _roots(value):
            name = re.sub(r"_\d+$", "", root)  # torch.export's suffix for names that are taken
            if isinstance(module, TFMBSPackedLinear):
                break  # its op call names no weight
            if not any(root.endswith(p) or name.endswith(p) for p in placeholders[spec]):
                raise ExportError(
                    f"the weight of layer {module.name!r} is computed from {root!r} and not from "
                    "the layer's own parameters; only a constant weight can be exported"
                )
        if spec not in made:
            if isinstance(module, TFMBSPackedLinear):
                refuse_groups(module.name, module.group_size)
            trits, scale = module.quantized_weight()
            weight = getattr(module, "weight", None)
            made[spec] = exported_layer(_without_state(module.telemetry_hint), weight, trits, scale)
        return made[spec]

    return resolve


def refuse_groups(name: str, group_size: int | None) -> None:
    """Raises ExportError for a layer that has group scales."""
    if group_size:
        raise ExportError(
            f"layer {name!r} has a scale for each {group_size} inputs, and ONNX's product takes one "
            "scale, or one an output; export what requantizing gives: TFMBSPackedLinear.from_linear "
            "of an nn.Linear with dequantized_weight() as its weight"
        )


def _without_state(hint: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in hint.items() if key != "resident"}


def _placeholders(model: nn.Module, layer: nn.Module) -> Iterator[str]:
    """How torch.export names the tensors that a layer's weight is made of, less their prefix: tied
    ones under each of their names."""
    own = {id(t) for t in (*layer.parameters(), *layer.buffers())}
    for tensors in (
        model.named_parameters(remove_duplicate=False),
        model.named_buffers(remove_duplicate=False),
    ):
        for name, tensor in tensors:
            if id(tensor) in own:
                yield "_" + re.sub(r"[^a-zA-Z0-9]", "_", name)


def _roots(value: ir.Value) -> Iterator[str]:
    """Names of the graph's inputs and initializers that a value depends on."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        node = current.producer()
        if node is None:
            yield str(current.name)
        else:
            pending.extend(v for v in node.inputs if v is not None)


def spec_text(identity: str, quantizer: str, activation: str, outputs: int, depth: int) -> str:
    """A layer's specification from what an op of an exported program carries of it."""
    version, name, place = identity.split(";", 2)
    if version != "tfmbs2":
        raise ExportError(f"{identity!r} is no identity of a layer")
    return (
        f"tfmbs1;{name};out={outputs};in={depth};quantizer={quantizer};activation={activation};"
        f"{place}"
    )


def parse_spec(text: str) -> dict[str, str]:
    """The keys of a layer specification (cpp/runtime/include/tfmbs/runtime/layer_spec.hpp)."""
    version, *fields = text.split(";")
    parts = dict(field.partition("=")[::2] for field in fields)
    if version != "tfmbs1" or not {"name", "out", "in", "quantizer", "activation"} <= set(parts):
        raise ExportError(f"{text!r} is no layer specification")
    parts["name"] = unquote_to_bytes(parts["name"]).decode()
    return parts


def hint_of_spec(text: str, trits: Tensor) -> dict[str, Any]:
    """The hint of a layer that lives nowhere: what its specification says, and what a device would
    make of it."""
    parts = parse_spec(text)
    outputs, depth = int(parts["out"]), int(parts["in"])
    mask = int(parts.get("tile_mask", "0"))
    if mask == 0:
        default = Fabric().config if {"tiles", "lanes"} - set(parts) else None
        tiles = int(parts["tiles"]) if default is None else default.tiles
        lanes = int(parts["lanes"]) if default is None else default.lanes
        mask = (1 << min(tiles, -(-outputs // lanes))) - 1
    address = parts.get("address", "auto")
    zeros = trits.numel() - int(torch.count_nonzero(trits))
    return {
        "layer": parts["name"],
        "sparsity": rounded_sparsity(zeros, trits.numel()),
        "tile_mask": mask,
        "weight_addr": None if address == "auto" else int(address),
        "in_features": depth,
        "out_features": outputs,
        "weight_quantizer": parts["quantizer"],
        "activation": parts["activation"],
    }
