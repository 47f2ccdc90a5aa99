"""Telemetry of several processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from .._fabric import Fabric

#: Of a layer, not counted: taken from the first process that has the layer.
_KEPT = ("tile_mask", "weight_addr", "resident")


def gather_profile(
    fabric: Fabric | None = None, *, group: dist.ProcessGroup | None = None
) -> dict[str, Any] | None:
    """The counters of all processes' devices, added, as ``Fabric.profile_detailed()`` gives them. On
    the group's first process; None on the others, which must call it too.

    The account of one device that does all processes' work one after the other: docs/distributed.md
    says when it is what one process counts. ``ranks`` has each process's own profile, and
    ``slowest_cycles`` the cycles of the slowest, which is the time when all run at once.

    fabric: each process's device; None is its default one. group: None is the default group.
    """
    own = (Fabric() if fabric is None else fabric).profile_detailed()
    if not dist.is_initialized():
        return merge([own])
    first = dist.get_rank(group) == 0
    gathered: list[Any] | None = [None] * dist.get_world_size(group) if first else None
    dist.gather_object(own, gathered, group=group, group_dst=0)
    return None if gathered is None else merge(gathered)


def merge(profiles: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of profiles, the processes' in order."""
    total = _sum([_without(p, "tiles", "layers") for p in profiles])
    count = max(len(p["tiles"]) for p in profiles)
    tiles = [[t for p in profiles for t in p["tiles"] if t["tile"] == i] for i in range(count)]
    names = dict.fromkeys(name for p in profiles for name in p["layers"])
    layers = {name: [p["layers"][name] for p in profiles if name in p["layers"]] for name in names}
    return {
        **total,
        "tiles": [
            {**_sum([_without(t, "tile") for t in of]), "tile": i} for i, of in enumerate(tiles)
        ],
        "layers": {name: _layer(of) for name, of in layers.items()},
        "slowest_cycles": max(p["cycles"] for p in profiles),
        "ranks": profiles,
    }


def _layer(profiles: list[dict[str, Any]]) -> dict[str, Any]:
    kept = {key: profiles[0][key] for key in _KEPT}
    known = [p["sparsity"] for p in profiles if p["sparsity"] is not None]
    merged = _sum([_without(p, "sparsity", *_KEPT) for p in profiles])
    merged["sparsity"] = round(sum(known) / len(known), 4) if known else None
    return {**merged, **kept}


def _without(counters: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in counters.items() if key not in keys}


def _sum(counters: list[dict[str, Any]]) -> dict[str, Any]:
    """Counters added; utilization is the mean, weighted by cycles."""
    total = {key: sum(c[key] for c in counters) for key in counters[0]}
    if "utilization" in total:
        cycles = sum(c["cycles"] for c in counters)
        used = sum(c["utilization"] * c["cycles"] for c in counters)
        total["utilization"] = used / cycles if cycles else 0.0
    return total
