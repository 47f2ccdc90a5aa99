"""What a telemetry source says of one layer, whichever source it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .. import _fabric
from ..nn.fabric_layer import FabricLayer
from ..quantization.activations import ACTIVATIONS

_MAX_COUNT = 2**64 - 1  # counters and tile masks are of 64 bits
# Which counters of a profile the history keeps: those that workloads are derived from, and those
# that a reader of the history wants.
COUNTERS = (
    "cycles",
    "compute_cycles",
    "dma_cycles",
    "mem_reads",
    "mem_writes",
    "broadcasts",
    "residency_hits",
    "residency_misses",
    "evictions",
)


class TelemetryError(ValueError):
    """Telemetry, or a history of it, that is not what it should be."""


@dataclass(frozen=True)
class LayerRecord:
    """One layer in one observation; None where the source does not say.

    tile_mask: bit t for tile t. weight_addr: bytes, in tile 0's Bank A. counters: the device's, since
    they began; empty where the source has none. held_mask, held_addr, offload: what the layer was
    told, which only a model says; held_addr is also where a pinned layer lies. group_size: inputs that
    share a scale; None where all do.
    """

    layer: str
    in_features: int | None = None
    out_features: int | None = None
    activation: str | None = None
    weight_quantizer: str | None = None
    sparsity: float | None = None
    tile_mask: int | None = None
    weight_addr: int | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    held_mask: int | None = None
    held_addr: int | None = None
    offload: bool | None = None
    group_size: int | None = None

    @classmethod
    def from_dict(cls, source: Mapping[str, Any]) -> LayerRecord:
        """A record from a ``telemetry_hint``, the telemetry of a module's op, or a history.

        Other keys are left alone. Raises TelemetryError for a value that cannot be.
        """
        if not isinstance(source, Mapping):
            raise TelemetryError(f"a layer's telemetry is a mapping, not {type(source).__name__}")
        name = source.get("layer")
        if not isinstance(name, str) or not name:
            raise TelemetryError(f"telemetry key 'layer' is {name!r}; it must be a name, not empty")
        activation = _optional(source, "activation", str, name)
        if activation is not None and activation not in ACTIVATIONS:
            raise TelemetryError(
                f"layer {name!r}: activation is {activation!r}; allowed are "
                f"{', '.join(map(repr, ACTIVATIONS))}"
            )
        sparsity = _optional(source, "sparsity", float, name)
        if sparsity is not None and not 0 <= sparsity <= 1:
            raise TelemetryError(f"layer {name!r}: sparsity is {sparsity!r}; allowed is 0 to 1")
        counters = _optional(source, "counters", Mapping, name) or {}
        return cls(
            layer=name,
            in_features=_count(source, "in_features", name, least=0),
            out_features=_count(source, "out_features", name, least=0),
            activation=activation,
            weight_quantizer=_optional(source, "weight_quantizer", str, name),
            sparsity=sparsity,
            tile_mask=_count(source, "tile_mask", name, least=1),
            weight_addr=_count(source, "weight_addr", name, least=0),
            counters={key: _count(counters, key, name, least=0) or 0 for key in counters},
            held_mask=_count(source, "held_mask", name, least=1),
            held_addr=_count(source, "held_addr", name, least=0),
            offload=_flag(source, "offload", name),
            group_size=_count(source, "group_size", name, least=1),
        )

    def to_dict(self) -> dict[str, Any]:
        """What from_dict takes; keys that nothing is known of are left out."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        if not self.counters:
            del values["counters"]
        else:
            values["counters"] = dict(self.counters)
        return values


def from_profile(profile: Mapping[str, Any]) -> list[LayerRecord]:
    """The layers of ``Fabric.profile_detailed()``, in the order in which they arrived."""
    layers = profile["layers"]
    if not isinstance(layers, Mapping):
        raise TelemetryError(
            f"'layers' of a profile is a mapping by name, not {type(layers).__name__}"
        )
    records = []
    for name, row in layers.items():
        if not isinstance(row, Mapping):
            raise TelemetryError(f"layer {name!r} of a profile is {row!r}; it must be a mapping")
        counters = {key: row[key] for key in COUNTERS if key in row}
        records.append(LayerRecord.from_dict({**row, "layer": name, "counters": counters}))
    return records


def from_hints(hints: Iterable[Mapping[str, Any]]) -> list[LayerRecord]:
    """Records of ``telemetry_hint``s or of a module's ops, in their order."""
    return [LayerRecord.from_dict(hint) for hint in hints]


def layers_of(model: nn.Module) -> list[FabricLayer]:
    """A model's layers on the fabric, trainable and packed, each once, in the model's order."""
    return [module for module in model.modules() if isinstance(module, FabricLayer)]


def from_model(model: nn.Module, config: _fabric.FabricConfig) -> list[LayerRecord]:
    """Hints of a model's layers on the fabric, with their counters.

    Raises ValueError where the model has none, or where they are not all on one device of `config`.
    """
    layers = layers_of(model)
    if not layers:
        raise ValueError(f"{type(model).__name__} has no TFMBSLinear; see pytfmbs.convert")
    device = layers[0].fabric
    for layer in layers:
        if layer.fabric != device:
            raise ValueError(
                f"layers {layers[0].name!r} and {layer.name!r} are on two devices, "
                f"{device.name!r} and {layer.fabric.name!r}; an agent plans one device"
            )
    if device.config != config:
        raise ValueError(f"the model is on {device.config!r}, and the agent plans for {config!r}")
    rows = device.profile_detailed()["layers"]
    records = []
    for layer in layers:
        row = {} if layer.offload else rows.get(layer.name, {})
        counters = {key: row[key] for key in COUNTERS if key in row}
        hint = layer.telemetry_hint
        pinned_at = hint["weight_addr"] if layer.pinned and hint["resident"] else None
        held = {
            "held_mask": layer.given_tile_mask,
            "held_addr": pinned_at if layer.given_weight_addr is None else layer.given_weight_addr,
            "offload": layer.offload or None,
        }
        records.append(LayerRecord.from_dict({**hint, **held, "counters": counters}))
    return records


def _optional(source: Mapping[str, Any], key: str, kind: Any, layer: str) -> Any:
    value = source.get(key)
    wanted: Any = (int, float) if kind is float else kind
    if value is None or (isinstance(value, wanted) and not isinstance(value, bool)):
        return value
    raise TelemetryError(f"layer {layer!r}: {key} is {value!r}; it must be a {kind.__name__}")


def _flag(source: Mapping[str, Any], key: str, layer: str) -> bool | None:
    value = source.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise TelemetryError(f"layer {layer!r}: {key} is {value!r}; it must be a bool")


def _count(source: Mapping[str, Any], key: str, layer: str, *, least: int) -> int | None:
    value = _optional(source, key, int, layer)
    if value is not None and value < least:
        raise TelemetryError(f"layer {layer!r}: {key} is {value}; it must be {least} or more")
    if value is not None and value > _MAX_COUNT:  # without it: it may have any number of digits
        raise TelemetryError(f"layer {layer!r}: {key} is above {_MAX_COUNT}, the device's largest")
    return value  # type: ignore[no-any-return]
