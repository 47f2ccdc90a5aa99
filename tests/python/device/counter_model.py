"""The counters of a layer's forward, written from docs/fabric.md and fabric-layers.md
alone: stage by stage, in NumPy.

The device's two drivers are one team's C++. This is neither: it keeps them from sharing one
misreading of the pages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pytfmbs import FabricConfig
from reference import planes_of

START, DRAIN = 4, 3
WORD = 15

_TOTALS = (
    "cycles", "compute_cycles", "dma_cycles", "dense_cycles", "active_ops", "zero_skips",
    "mem_reads", "mem_writes", "broadcasts", "sram_reads", "sram_writes", "sram_reads_saved",
    "residency_hits", "residency_misses", "evictions", "overflow_flags",
)  # fmt: skip
_TILE = (
    "compute_cycles", "stall_cycles", "active_ops", "zero_skips", "sram_reads", "sram_writes",
    "sram_reads_saved", "overflow_flags",
)  # fmt: skip


@dataclass(frozen=True)
class Residency:
    """How a forward finds its weights: resident (hit or not), or streamed through `window`
    depths."""

    hit: bool = False
    window: int | None = None


def default_mask(config: FabricConfig, outputs: int) -> int:
    return (1 << min(config.tiles, -(-outputs // config.lanes))) - 1


def fits(config: FabricConfig, trits: np.ndarray, mask: int | None = None) -> bool:
    """Whether the layer can be resident at all."""
    outputs, depth = trits.shape
    tiles = bin(mask or default_mask(config, outputs)).count("1")
    passes = -(-outputs // (config.lanes * tiles))
    return depth * passes <= config.bank_depth


def profile(
    config: FabricConfig,
    trits: np.ndarray,
    values: np.ndarray,
    planes: int,
    residency: Residency,
    mask: int | None = None,
) -> dict[str, object]:
    """What one forward adds to profile_detailed(), "layers" apart.

    trits: [out, in], the quantized weight. values: [samples, in], the quantized input. planes: 1,
    or 6 for int8.
    """
    outputs, depth = trits.shape
    samples = len(values)
    total = dict.fromkeys(_TOTALS, 0)
    tile = [dict.fromkeys(_TILE, 0) for _ in range(config.tiles)]
    words = -(-config.lanes // WORD)  # of one depth of one tile
    mask = mask or default_mask(config, outputs)
    used = [t for t in range(config.tiles) if mask >> t & 1]
    streamed, window = residency.window is not None, residency.window or 0

    # passes[p]: (tile, its outputs)
    groups = [range(a, min(a + config.lanes, outputs)) for a in range(0, outputs, config.lanes)]
    passes = [
        list(zip(used, groups[a : a + len(used)], strict=False))
        for a in range(0, len(groups), len(used))
    ]
    ping_pong = streamed and window >= config.bank_depth // 2 and window >= 2 * WORD
    room = config.bank_depth if not streamed else window // 2 if ping_pong else window
    chunk = room // WORD * WORD
    chunks = [range(a, min(a + chunk, depth)) for a in range(0, depth, chunk)]
    jobs = [(p, c, m) for p in passes for c in chunks for m in range(samples)]
    digits = planes_of(values, planes) != 0  # [planes, samples, in]
    nonzero = {t_g: trits[t_g[1]] != 0 for p in passes for t_g in p}

    def stage(engine: int, dense: int, dma: int) -> None:
        total["cycles"] += max(engine, dma)
        total["dense_cycles"] += max(dense, dma)
        total["compute_cycles"] += engine
        total["dma_cycles"] += dma

    def weights_in(p: list[tuple[int, range]], depths: int) -> int:
        """Weights of `depths` depths to the tiles of a pass: how many words, and they are
        counted."""
        for t, _ in p:
            tile[t]["sram_writes"] += depths * words
        total["mem_reads"] += len(p) * depths * words
        return len(p) * depths * words

    def activations_in(p: list[tuple[int, range]], c: range) -> int:
        count = planes * -(-len(c) // WORD)
        total["mem_reads"] += count
        total["broadcasts"] += count
        for t, _ in p:
            tile[t]["sram_writes"] += count
        return count

    def width(p: list[tuple[int, range]]) -> int:
        return sum(len(g) for _, g in p)

    total["residency_hits" if residency.hit else "residency_misses"] += 1
    if not streamed and not residency.hit:
        stage(0, 0, sum(weights_in(p, depth) for p in passes))

    first = activations_in(passes[0], chunks[0])
    if streamed:
        first += weights_in(passes[0], len(chunks[0]))
    stage(0, 0, first)

    before: list[tuple[int, range]] | None = None
    for q, (p, c, m) in enumerate(jobs):
        if streamed and not ping_pong and m == 0 and q > 0:
            stage(0, 0, weights_in(p, len(c)))
        dma = 0
        if before is not None:  # results of the job before
            dma += width(before)
            total["mem_writes"] += width(before)
        if c.start > 0:  # partial sums of this one
            dma += width(p)
            total["mem_reads"] += width(p)
        if q + 1 < len(jobs):
            next_p, next_c, next_m = jobs[q + 1]
            if streamed and ping_pong and next_m == 0:
                dma += weights_in(next_p, len(next_c))
            dma += activations_in(next_p, next_c)
        before = p

        cycles = {}
        for t, g in p:
            w = nonzero[t, g][:, c.start : c.stop]
            x = digits[:, m, c.start : c.stop]
            go = x & w.any(axis=0)
            padded = np.zeros((planes, -(-len(c) // WORD) * WORD), bool)
            padded[:, : len(c)] = go
            popcount = padded.reshape(planes, -1, WORD).sum(axis=2)
            steps, active = int(popcount.sum()), int(x.sum(axis=0) @ w.sum(axis=0))
            cycles[t] = int(np.maximum(popcount, 1).sum())
            counts = tile[t]
            counts["compute_cycles"] += START + cycles[t] + DRAIN
            counts["active_ops"] += active
            counts["zero_skips"] += planes * len(g) * len(c) - active
            counts["sram_reads"] += popcount.size + steps * words
            counts["sram_reads_saved"] += (planes * len(c) - steps) * words
        slowest = max(cycles.values())
        for t in cycles:
            tile[t]["stall_cycles"] += slowest - cycles[t]
        stage(START + slowest + DRAIN, START + planes * len(c) + DRAIN, dma)

    last = width(passes[-1])
    total["mem_writes"] += last
    stage(0, 0, last)

    for key in ("active_ops", "zero_skips", "sram_reads", "sram_writes", "sram_reads_saved"):
        total[key] = sum(counts[key] for counts in tile)
    return with_derived(config, total) | {
        "tiles": [{"tile": t, **counts} for t, counts in enumerate(tile)]
    }


def with_derived(config: FabricConfig, total: dict[str, int]) -> dict[str, object]:
    """The keys that follow from the counted ones."""
    c = total
    slots = c["cycles"] * config.tiles * config.lanes
    return {
        **total,
        "cycles_saved": c["dense_cycles"] - c["cycles"],
        "utilization": c["active_ops"] / slots if slots else 0.0,
        "energy_pj": config.mac_pj * c["active_ops"]
        + config.sram_pj * (c["sram_reads"] + c["sram_writes"])
        + config.dram_pj * (c["mem_reads"] + c["mem_writes"]),
        "energy_saved_pj": config.mac_pj * c["zero_skips"] + config.sram_pj * c["sram_reads_saved"],
    }


def added(config: FabricConfig, *parts: dict[str, object]) -> dict[str, object]:
    """The profile of several forwards, one after another."""
    total = {key: sum(part[key] for part in parts) for key in _TOTALS}  # type: ignore[misc]
    tiles = []
    for t in range(config.tiles):
        rows = [part["tiles"][t] for part in parts]  # type: ignore[index]
        tiles.append({"tile": t, **{key: sum(row[key] for row in rows) for key in _TILE}})
    return with_derived(config, total) | {"tiles": tiles}


def without_layers(detailed: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in detailed.items() if key != "layers"}


def assert_equal(got: dict[str, object], want: dict[str, object]) -> None:
    """Every key; floats to the last few bits, for the order of their sums is nobody's promise."""
    assert got.keys() == want.keys()
    wrong = []
    for key, value in want.items():
        if isinstance(value, float):
            if not np.isclose(got[key], value, rtol=1e-12, atol=0):  # type: ignore[arg-type]
                wrong.append((key, got[key], value))
        elif got[key] != value:
            wrong.append((key, got[key], value))
    assert not wrong, "\n".join(f"{key}: got {a}, want {b}" for key, a, b in wrong)
