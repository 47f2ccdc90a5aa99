"""Time per weight, from small layers to hundreds of millions of weights, and time per row, from a few to
thousands: both products, one thread and two, in one process and in the same rounds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytfmbs
import torch

from .ceilings import COLD_FACTOR
from .contestants.base import Contestant, Weights
from .contestants.from_cpp import Int8Cpp, TritCpp
from .contestants.ours import Int8, Trit, choose_storage
from .machine import last_level_cache
from .measure import Effort, Timed, quartiles, run_rounds
from .worker import Copies

# (outputs, depth). Small enough for the cache at 2 bits; then up to 400 M weights, of which as many
# layers are gone round as come from memory.
IN_CACHE = ((512, 2048), (1024, 2048), (2048, 2048), (2048, 4096), (4096, 4096), (4096, 8192))
BEYOND = ((4096, 4096), (8192, 8192), (16384, 12288), (24576, 16384))
ROWS = (64, 128, 256, 512, 1024, 2048, 4096)
ROWS_SHAPE = (4096, 4096)
PRODUCTS = (Int8, Trit)
FROM_CPP = (Int8Cpp, TritCpp)  # one row: a call from Python would be a part of its time
FULL = Effort(rounds=21, least_rounds=9, budget=1.5, block=3e-3)
QUICK = Effort(rounds=4, least_rounds=2, budget=0.05, block=1e-3)


def contestants(kinds: Sequence[type[Contestant]]) -> list[tuple[str, Contestant]]:
    """With the names of their products."""
    kernels = pytfmbs.active_kernels()
    return [(product.name, kind(1, kernels)) for product, kind in zip(PRODUCTS, kinds, strict=True)]


def points(
    entrants: Sequence[tuple[Timed, dict[str, Any]]], effort: Effort, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    run_rounds([timed for timed, _ in entrants], effort, seed=1, advance=advance)
    found = []
    for timed, known in entrants:
        low, middle, high = quartiles(timed.seconds)
        found.append({**known, "threads": timed.threads, "seconds": middle, "low": low,
                      "high": high})  # fmt: skip
    return found


def of_weights(
    shapes: Sequence[tuple[int, int]], threads: Sequence[int], cold: bool, effort: Effort,
    advance: Callable[[], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """One row times one layer, or layers that do not fit the cache, called from C++: all sizes in
    turn, for the clock drifts."""
    entrants = []
    for outputs, depth in shapes:
        # A sixteenth of the rows is random and repeats, for the time's sake.
        part = np.random.default_rng(1).integers(
            -1, 2, (max(1, outputs // 16), depth), dtype=np.int8
        )
        weights = Weights(np.resize(part, (outputs, depth)))
        x = torch.randn(1, depth)
        choose_storage(weights, cold=cold)
        for product, contestant in contestants(FROM_CPP):
            copies = Copies(contestant, weights, cold)
            for count in threads:
                timed, row = copies.timed(x, count)
                timed.name = f"{contestant.name} {outputs} {count}"
                known = {
                    "product": product, "level": "memory" if cold else "cache",
                    "bound": "memory" if cold else "compute", "count": weights.trits.size,
                    "weight_bytes": row.weight_bytes, "layout": row.layout, "copies": row.copies,
                }  # fmt: skip
                entrants.append((timed, known))
    found = points(entrants, effort, advance)
    entrants.clear()
    gc.collect()
    return found


def of_rows(
    rows: Sequence[int], threads: Sequence[int], effort: Effort, advance: Callable[[], None]
) -> list[dict[str, Any]]:
    weights = Weights.random(*ROWS_SHAPE)
    choose_storage(weights, cold=False)
    entrants = []
    for product, contestant in contestants(PRODUCTS):
        copies = Copies(contestant, weights, False)
        for batch in rows:
            x = torch.randn(batch, weights.depth)
            for count in threads:
                timed, _ = copies.timed(x, count)
                timed.name = f"{contestant.name} {batch} {count}"
                known = {"product": product, "level": "4096→4096", "bound": "compute",
                         "count": batch}  # fmt: skip
                entrants.append((timed, known))
    return points(entrants, effort, advance)


def steps(threads: Sequence[int], quick: bool) -> list[tuple[str, Callable[..., Any]]]:
    """What is measured, in order: the kind of point, and a function of `advance`."""
    effort = QUICK if quick else FULL
    beyond = BEYOND[:1] if quick else BEYOND
    rows = ROWS[:3] if quick else ROWS
    return [
        ("weights", partial(of_weights, IN_CACHE, threads, False, effort)),
        ("weights", partial(of_weights, beyond, threads, True, effort)),
        ("rows", partial(of_rows, rows, threads, effort)),
    ]


def run(threads: Sequence[int], quick: bool) -> dict[str, Any]:
    from rich.console import Console
    from rich.progress import Progress

    growth: dict[str, Any] = {
        "kernels": pytfmbs.active_kernels(),
        "cache_bytes": last_level_cache(),
        "beyond_factor": COLD_FACTOR,
        "weights": [],
        "rows": [],
    }
    todo = steps(threads, quick)
    rounds = (QUICK if quick else FULL).rounds
    with torch.inference_mode(), Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("growth", total=rounds * len(todo))
        for kind, step in todo:
            growth[kind] += step(lambda: progress.advance(task))
    return growth
