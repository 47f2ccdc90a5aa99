"""What zeros save: cycles and energy of a 784 -> 60 layer against three kinds of sparsity.

    python benchmarks/zero_skip_table.py            shows the table
    python benchmarks/zero_skip_table.py --write    and writes it into docs/zero-skip.md, with the
    picture

All numbers are the device's own counters, of one forward of 64 samples with the weights in Bank A,
per sample. Weights
and activations are random signs from a fixed seed, so the numbers are the same everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pytfmbs import Fabric, FabricConfig, TFMBSLinear

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "zero-skip.md"
PICTURE = ROOT / "docs" / "images" / "zero-skip.png"
BEGIN, END = "<!-- zero_skip_table: begin -->", "<!-- zero_skip_table: end -->"

INPUTS, OUTPUTS, SAMPLES = 784, 60, 64
PERCENT = (0, 10, 20, 30, 40, 50, 60, 70, 80, 85, 90, 95, 99, 100)
KINDS = {
    "activations": "activations",
    "structured": "weights, whole depths",
    "unstructured": "weights, anywhere",
}


@dataclass(frozen=True)
class Point:
    """Counters of one forward, per sample."""

    cycles: float
    energy_nj: float
    saved_nj: float
    zero_skips: float


def measure(weight: np.ndarray, inputs: np.ndarray, engine: str = "closed_form") -> Point:
    """One forward, resident, of weights [60, 784] and inputs [64, 784]."""
    with Fabric(FabricConfig(), engine=engine) as fabric, torch.no_grad():
        layer = TFMBSLinear(INPUTS, OUTPUTS, bias=False, fabric=fabric).eval()
        layer.weight.copy_(torch.from_numpy(weight))
        layer.prefetch()
        fabric.reset_counters()
        layer(torch.from_numpy(inputs))
        counted = fabric.profile()
    return Point(
        cycles=counted["cycles"] / SAMPLES,
        energy_nj=counted["energy_pj"] / SAMPLES / 1e3,
        saved_nj=counted["energy_saved_pj"] / SAMPLES / 1e3,
        zero_skips=counted["zero_skips"] / SAMPLES,
    )


def sweep(percents: Sequence[int] = PERCENT, engine: str = "closed_form") -> dict[str, list[Point]]:
    """One list of points a kind of sparsity. The zeros of a point are among those of the next."""
    rng = np.random.default_rng(2025)
    weight = rng.choice(np.float32([-1, 1]), (OUTPUTS, INPUTS))
    inputs = rng.choice(np.float32([-1, 1]), (SAMPLES, INPUTS))
    # Ranks: an element becomes zero when the share of zeros passes its rank.
    input_rank = rng.permuted(np.tile(np.arange(INPUTS), (SAMPLES, 1)), axis=1) / INPUTS
    depth_rank = rng.permutation(INPUTS) / INPUTS
    weight_rank = rng.permutation(weight.size).reshape(weight.shape) / weight.size
    points: dict[str, list[Point]] = {kind: [] for kind in KINDS}
    for percent in percents:
        zeros = percent / 100
        masked = {
            "activations": (weight, np.where(input_rank < zeros, np.float32(0), inputs)),
            "structured": (np.where(depth_rank < zeros, np.float32(0), weight), inputs),
            "unstructured": (np.where(weight_rank < zeros, np.float32(0), weight), inputs),
        }
        for kind, (w, x) in masked.items():
            points[kind].append(measure(w, x, engine))
    return points


def rows(points: dict[str, list[Point]], percents: Sequence[int] = PERCENT) -> list[list[str]]:
    """Cells of the table, a row a percentage: cycles of each kind, then energy of each."""
    return [
        [
            f"{percent} %",
            *(f"{points[kind][i].cycles:.1f}" for kind in KINDS),
            *(f"{points[kind][i].energy_nj:.2f}" for kind in KINDS),
        ]
        for i, percent in enumerate(percents)
    ]


def header() -> list[str]:
    return [
        "zeros",
        *(f"cycles: {title}" for title in KINDS.values()),
        *(f"nJ: {title}" for title in KINDS.values()),
    ]


def markdown(points: dict[str, list[Point]]) -> str:
    """The table as docs/zero-skip.md has it, markers included."""
    head = header()
    lines = [head, ["---:"] * len(head), *rows(points)]
    return "\n".join([BEGIN, "", *(f"| {' | '.join(line)} |" for line in lines), "", END])


def show(points: dict[str, list[Point]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{INPUTS} -> {OUTPUTS}, per sample")
    for name in header():
        table.add_column(name, justify="right")
    for row in rows(points):
        table.add_row(*row)
    Console().print(table)


def draw(path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    percents = list(range(0, 101, 2))
    points = sweep(percents)
    colors = dict(zip(KINDS, ("#0072b2", "#d55e00", "#009e73"), strict=True))
    styles = dict(zip(KINDS, ("-", "--", "-"), strict=True))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for kind, title in KINDS.items():
        line = {"color": colors[kind], "linestyle": styles[kind], "linewidth": 2, "label": title}
        left.plot(percents, [p.cycles for p in points[kind]], **line)
        right.plot(percents, [p.energy_nj for p in points[kind]], **line)
    floor = points["activations"][-1].cycles
    left.annotate(
        "the DMA's floor: 53 words of activations\nand 60 of results a sample",
        xy=(90, floor), xytext=(4, floor + 60), fontsize=9, color="0.3",
        arrowprops={"arrowstyle": "-", "color": "0.6"},
    )  # fmt: skip
    left.set(title="Cycles a sample", ylabel="cycles")
    right.set(title="Energy a sample", ylabel="nJ")
    for axes in (left, right):
        axes.set(xlabel="zeros among activations or weights, %", xlim=(0, 100), ylim=(0, None))
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, loc="lower left", title="zeros in the")
    figure.suptitle(
        f"Zero-skip: a {INPUTS}→{OUTPUTS} layer on 4 tiles of 15 lanes, weights in Bank A"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE.name} and {PICTURE.name}"
    )
    arguments = parser.parse_args()
    points = sweep()
    show(points)
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + markdown(points) + after, encoding="utf-8")
        draw(PICTURE)


if __name__ == "__main__":
    main()
