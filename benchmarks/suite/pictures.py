"""The pictures of docs/: a roofline, bars against torch fp32, and growth; one of each a kernel set,
for they are of different machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .ceilings import READ_MEMORY
from .contestants.ours import Int8, Trit
from .results import Case, Contest, Results
from .tables import duration
from .variants import VARIANTS

SHAPE = (4096, 4096)
OURS = {Int8.name: "#0072b2", Trit.name: "#d55e00"}
# Whose product a peak is compared with.
PRODUCTS = {"ternary": Trit.name, "int8": Int8.name, "fp32": ""}
# Peers apart from each other and from ours, also for the colour-blind.
PEERS = {
    "torch fp32": ("#000000", "s"),
    "torch bf16": ("#7f7f7f", "D"),
    "torch quantize_dynamic int8": ("#009e73", "^"),
    "ONNX Runtime dynamic int8": ("#cc79a7", "v"),
    "ONNX Runtime MatMulNBits, 2 bits": ("#e69f00", "<"),
    "ggml TQ1_0": ("#9a7fd1", ">"),
    "ggml TQ2_0": ("#56b4e9", "P"),
    "litespark-inference": ("#8c6d31", "X"),
    "transformers BitLinear bf16": ("#b0b0b0", "*"),
}
READ_CACHE = "read, 4 MiB"


def file_name(kind: str, kernels: str) -> str:
    return f"bench-{kind}-{kernels}.png"


def main_contest(results: Results) -> Contest | None:
    """The best kernel set on the fewest threads, where hot weights were measured."""
    found = [
        contest
        for contest in results.contests
        if contest.best and any(case.state == "hot" for case in contest.cases)
    ]
    return min(found, key=lambda contest: contest.threads, default=None)


def main_cases(contest: Contest, state: str) -> list[Case]:
    """Of the picture's shape, or of the largest that was measured."""
    cases = [case for case in contest.cases if case.state == state]
    shapes = {(case.outputs, case.depth) for case in cases}
    if not shapes:
        return []
    shape = SHAPE if SHAPE in shapes else max(shapes, key=lambda s: s[0] * s[1])
    found = [case for case in cases if (case.outputs, case.depth) == shape]
    return sorted(found, key=lambda case: case.batch)


def threads_text(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.92", which="major")
    axes.set_axisbelow(True)


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
    print(f"written: {path}")


def roofline(contest: Contest, cpu: str, path: Path) -> None:
    """Products a second over products a byte of weights that is read."""
    hot, cold = main_cases(contest, "hot"), main_cases(contest, "cold")
    figure, axes = plt.subplots(figsize=(10, 6.6), layout="constrained")
    middle = hot[len(hot) // 2]
    left, right = 0.2, 8 * 1.25 * 2 * max(case.batch for case in hot)
    # The best roofs of the CPU's own variant: one that a better instruction lifts is not drawn.
    variant = VARIANTS.get(contest.kernels)
    roofs = [
        (peak, whose)
        for product, whose in PRODUCTS.items()
        if variant and (peak := variant.peaks.get(product)) and middle.ceiling(peak.name) > 0
    ]
    tops = [middle.ceiling(peak.name) / 1e9 for peak, _ in roofs]
    for (peak, whose), top in zip(roofs, tops, strict=True):
        color = OURS.get(whose, "0.3")
        axes.axhline(top, color=color, linewidth=1, linestyle=(0, (5, 3)))
        # Ours lie on the highest roof, at the right, and may pass a lower one there.
        highest = top == max(tops)
        reached = [point(case, whose) for case in hot if whose in case.rows]
        below = not highest and any(spot and spot[1] >= top for spot in reached)
        axes.annotate(f"{peak.label}: {top:.0f}", (left if highest else right, top),
                      (4 if highest else -4, -12 if below else 4), fontsize=8.5, color=color,
                      textcoords="offset points", ha="left" if highest else "right")  # fmt: skip
    for name in [*PEERS, *OURS]:
        ours = name in OURS
        color, marker = (OURS[name], "o") if ours else PEERS[name]
        spots = [point(case, name) for case in hot if name in case.rows]
        spots = [spot for spot in spots if spot]
        if not spots:
            continue
        xs, ys = zip(*spots, strict=True)
        axes.plot(xs, ys, color=color, marker=marker, markersize=8 if ours else 5.5,
                  linewidth=2 if ours else 0.8, label=name, zorder=4 if ours else 3)  # fmt: skip
        for spot in (point(case, name) for case in cold if name in case.rows):
            if spot:
                axes.plot(*spot, color=color, marker=marker, markersize=8 if ours else 5.5,
                          markerfacecolor="white", linestyle="none", zorder=4)  # fmt: skip
    axes.plot([], [], color="0.4", marker="o", markerfacecolor="white", linestyle="none",
              label="hollow: weights cold, batch 1")  # fmt: skip
    spots = [
        point(case, name) for case in hot + cold for name in [*PEERS, *OURS] if name in case.rows
    ]
    heights = [spot[1] for spot in spots if spot] or [1.0]
    bottom, top = 0.6 * min(heights), 1.6 * max(tops + heights)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top),
             xlabel="products a byte of weights read (batch ÷ bytes a weight)",
             ylabel="10⁹ products a second")  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:g}"))
    figure.canvas.draw()  # so that slopes on the page are known
    for name, label in ((READ_CACHE, "4 MiB"), (READ_MEMORY, "memory")):
        draw_reading(axes, label, middle.ceiling(name) / 1e9, max(tops, default=top))
    tidy(axes)
    batches = ", ".join(str(case.batch) for case in hot)
    axes.set_title(f"{hot[0].shape}, batches {batches}, {threads_text(contest.threads)}, {cpu}",
                   loc="left", fontsize=11)  # fmt: skip
    axes.legend(fontsize=8.5, frameon=False, loc="lower right")
    save(figure, path)


def draw_reading(axes: Axes, label: str, rate: float, end: float) -> None:
    """The roof of reading at `rate` GB/s, up to `end` products."""
    if rate <= 0:
        return
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    start = max(left, bottom / rate)
    axes.plot([start, end / rate], [start * rate, end], color="0.55", linewidth=1, zorder=1)
    (x0, y0), (x1, y1) = axes.transData.transform([(start, start * rate), (end / rate, end)])
    place = start * 1.15
    axes.annotate(f"reading {label}: {rate:.0f} GB/s", (place, place * rate), (0, 5),
                  textcoords="offset points", fontsize=8.5, color="0.4",
                  rotation=math.degrees(math.atan2(y1 - y0, x1 - x0)),
                  rotation_mode="anchor")  # fmt: skip


def point(case: Case, name: str) -> tuple[float, float] | None:
    row = case.rows[name]
    if not row.valid:
        return None
    return case.products / row.weight_bytes, case.products / row.median / 1e9


def bars(contest: Contest, cpu: str, path: Path) -> None:
    """A panel a batch: times as fast as torch fp32."""
    cases = main_cases(contest, "hot")
    names = [*OURS, *(name for name in PEERS if name != "torch fp32"), "torch fp32"]
    names = [name for name in names if any(name in c.rows and c.rows[name].valid for c in cases)]
    figure, panels = plt.subplots(
        1, len(cases), figsize=(3 + 2.5 * len(cases), 1.4 + 0.36 * len(names)), sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axes, case in zip(panels[0], cases, strict=True):
        ratios = [case.speed_ratio(name, "torch fp32") or 0.0 for name in names]
        axes.barh(range(len(names)), ratios, 0.72,
                  color=[OURS.get(name, "0.72") for name in names])  # fmt: skip
        for place, (name, ratio) in enumerate(zip(names, ratios, strict=True)):
            times = f"{ratio:.1f}×" if ratio >= 0.95 else f"{ratio:.1g}×"
            text = f"{times}  {duration(case.rows[name].median)}" if ratio else "–"
            axes.text(ratio + 0.015 * max(ratios), place, text, va="center", fontsize=8,
                      fontweight="bold" if name in OURS else "normal")  # fmt: skip
        axes.set_xlim(0, 1.62 * max(ratios))
        axes.set_title(f"batch {case.batch}", fontsize=10, loc="left")
        axes.set_xlabel("times as fast as torch fp32", fontsize=8.5)
        axes.tick_params(axis="x", labelsize=8)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(names)), names, fontsize=9)
    panels[0][0].invert_yaxis()
    figure.suptitle(
        f"{cases[0].shape}, weights hot, {threads_text(contest.threads)}, {cpu}: "
        "speed, and time a call",
        x=0.01, ha="left", fontsize=11,
    )  # fmt: skip
    save(figure, path)


def growth(found: dict[str, Any], cpu: str, path: Path) -> None:
    """Time per weight over weights, and time per row over rows."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    kinds: Sequence[tuple[str, float, str, str]] = (
        ("weights", 1e12, "weights of the layer", "ps a weight (one row, called from C++)"),
        ("rows", 1e6, "rows, 4096→4096", "µs a row"),
    )
    for axes, (kind, factor, xlabel, ylabel) in zip(panels, kinds, strict=True):
        groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        for spot in found[kind]:
            key = spot["product"], spot["level"], spot["threads"]
            groups.setdefault(key, []).append(spot)
        for (product, level, threads), spots in groups.items():
            xs = [spot["count"] for spot in spots]
            each = [factor * spot["seconds"] / spot["count"] for spot in spots]
            low = [factor * spot["low"] / spot["count"] for spot in spots]
            high = [factor * spot["high"] / spot["count"] for spot in spots]
            cold = level == "memory"
            label = f"{product.removeprefix('pytfmbs ')}, {threads_text(threads)}"
            axes.plot(xs, each, color=OURS[product], marker="o", markersize=5,
                      markerfacecolor="white" if cold else OURS[product],
                      linestyle="-" if threads == 1 else (0, (4, 2)),
                      label=None if cold else label)  # fmt: skip
            axes.fill_between(xs, low, high, color=OURS[product], alpha=0.12, linewidth=0)
        if kind == "weights":
            axes.plot([], [], color="0.4", marker="o", markerfacecolor="white",
                      label=f"from memory ({found['beyond_factor']}× the last cache)")  # fmt: skip
        axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
        axes.set_ylim(0, 1.22 * axes.get_ylim()[1])  # room for the legend
        if kind == "rows":
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted({spot["count"] for spot in found[kind]}))
            axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:.0f}"))
        tidy(axes)
        axes.legend(fontsize=8.5, frameon=False)
    figure.suptitle(f"Time per weight and time per row, as layers and batches grow, {cpu}", x=0.01,
                    ha="left", fontsize=11)  # fmt: skip
    save(figure, path)


def draw(results: Results, folder: Path) -> None:
    kernels = results.kernels
    cpu = f"{results.machine['cpu']}, {kernels}"
    contest = main_contest(results)
    if contest is not None:
        roofline(contest, cpu, folder / file_name("roofline", kernels))
        bars(contest, cpu, folder / file_name("bars", kernels))
    if results.growth:
        growth(results.growth, cpu, folder / file_name("growth", kernels))
