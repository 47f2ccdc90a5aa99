"""A plan carried out on a model, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from ..nn.fabric_layer import FabricLayer
from .plan import Plan
from .records import layers_of


@dataclass(frozen=True)
class _Setting:
    """Where a layer is told to be; None is automatic."""

    layer: FabricLayer
    offload: bool
    tile_mask: int | None
    weight_addr: int | None
    pinned: bool

    @classmethod
    def of(cls, layer: FabricLayer) -> _Setting:
        return cls(
            layer, layer.offload, layer.given_tile_mask, layer.given_weight_addr, layer.pinned
        )


class Application:
    """What apply did; revert undoes it."""

    def __init__(self, before: list[_Setting], changed: list[str]) -> None:
        self._before = before
        self._changed = changed
        self._reverted = False

    @property
    def reverted(self) -> bool:
        return self._reverted

    @property
    def changed(self) -> list[str]:
        """Names of the layers that were given another place."""
        return list(self._changed)

    def revert(self) -> None:
        """Gives every layer the address, mask, pin and device that it had; again does
        nothing. Weights are loaded anew where they moved."""
        if not self._reverted:
            _settle(self._before)
            self._reverted = True


def apply(plan: Plan, model: nn.Module) -> Application:
    """Gives each layer of the model, found by name, what the plan says. Where one changes, all are
    loaded anew: who is kept by chance decides what the device settles in, and the plan was priced
    from empty banks. Nothing is touched where none changes, or by a default plan. Where it fails
    the model is as it was, but for what lay in Bank A.

    Raises ValueError where the model's layers are not the plan's; PlacementError where others on the
    device are in the way.
    """
    settings = _wanted(plan, model)
    if plan.default:
        return Application([], [])
    before = [_Setting.of(setting.layer) for setting in settings]
    changed = [
        wanted.layer.name for wanted, old in zip(settings, before, strict=True) if wanted != old
    ]
    if not changed:
        return Application([], [])
    try:
        _settle(settings)
    except BaseException:
        _settle(before)
        raise
    return Application(before, changed)


def _wanted(plan: Plan, model: nn.Module) -> list[_Setting]:
    layers: dict[str, FabricLayer] = {}
    for layer in layers_of(model):
        if layer.fabric.config != plan.config:
            raise ValueError(
                f"layer {layer.name!r} is on {layer.fabric.config!r}, and the plan is for "
                f"{plan.config!r}"
            )
        if layer.in_features and layer.out_features:
            if layer.name in layers:
                raise ValueError(f"two layers of the model are named {layer.name!r}")
            layers[layer.name] = layer
    names = {decision.layer for decision in plan.decisions}
    if missing := sorted(names - set(layers)):
        raise ValueError(f"the model has no layer {', '.join(map(repr, missing))} of the plan")
    if extra := sorted(set(layers) - names):
        raise ValueError(f"the plan does not contain layer {', '.join(map(repr, extra))}")
    settings = []
    for decision in plan.decisions:
        layer = layers[decision.layer]
        shape = (layer.in_features, layer.out_features)
        if shape != (decision.in_features, decision.out_features):
            raise ValueError(
                f"layer {decision.layer!r} is of {shape[0]} inputs and {shape[1]} outputs, and was "
                f"planned with {decision.in_features} and {decision.out_features}"
            )
        kept = decision.weight_addr is not None
        settings.append(
            _Setting(
                layer,
                decision.action == "cpu",
                decision.tile_mask,
                decision.weight_addr,
                layer.pinned and kept and decision.action != "cpu",
            )
        )
    return settings


def _settle(settings: Iterable[_Setting]) -> None:
    """First everybody lets go, so that no old address is in a new one's way; then all enter anew, and
    nobody is loaded."""
    settings = list(settings)
    for setting in settings:
        if setting.layer.pinned and not setting.pinned:
            setting.layer.unpin()
        if setting.offload:
            setting.layer.offload = True
        if setting.layer.given_weight_addr is not None:
            setting.layer.weight_addr = None
    for setting in settings:
        setting.layer.offload = setting.offload
        setting.layer.tile_mask = setting.tile_mask
        if setting.weight_addr is not None:
            setting.layer.weight_addr = setting.weight_addr
    for setting in settings:
        if setting.pinned and not setting.layer.pinned:
            setting.layer.pin()
