"""TFMBSLinear.forward against nn.Linear.forward, and what telemetry costs; interleaved in one run.

    python benchmarks/linear_forward.py [--shapes 784x60 4096x4096] [--batches 1 64] [--threads 1]

Every round times each contestant once, in turn, so that a drift of the machine meets all of them. A
row shows medians over the rounds and, for ratios, the median and the quartiles of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import pytfmbs
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.benchmark import Timer


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio_text(over: list[float], under: list[float]) -> str:
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def measure(
    depth: int, outputs: int, batch: int, rounds: int, activation: str
) -> dict[str, list[float]]:
    """Microseconds a call of each contestant, one value a round."""
    fabric = pytfmbs.Fabric()
    ternary = pytfmbs.TFMBSLinear(depth, outputs, activation=activation).eval()
    dense = torch.nn.Linear(depth, outputs).eval()
    x = torch.randn(batch, depth)
    calls = {
        "nn.Linear": Timer("layer(x)", globals={"layer": dense, "x": x}),
        "telemetry on": Timer("layer(x)", globals={"layer": ternary, "x": x}),
        "telemetry off": Timer("layer(x)", globals={"layer": ternary, "x": x}),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        numbers = {}
        for name, timer in calls.items():
            once = timer.timeit(3).median
            numbers[name] = max(1, int(2e-3 / once))
        for _ in range(rounds):
            for name, timer in calls.items():
                fabric.telemetry = name != "telemetry off"
                times[name].append(timer.timeit(numbers[name]).median * 1e6)
    fabric.telemetry = True
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["784x60", "60x10", "4096x4096"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--activations", nargs="+", default=["ternary"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write the medians there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    table = Table(
        title=f"forward under inference_mode, {arguments.threads} thread(s), "
        f"kernels: {pytfmbs.active_kernels()}, median of {arguments.rounds} rounds"
    )
    for heading in ("layer", "activation", "batch", "nn.Linear us", "TFMBSLinear us"):
        table.add_column(heading, justify="right")
    table.add_column("nn.Linear / TFMBSLinear", justify="right")
    table.add_column("telemetry on / off", justify="right")
    cases = [
        (shape, activation, batch)
        for shape in arguments.shapes
        for activation in arguments.activations
        for batch in arguments.batches
    ]
    rows = []
    for shape, activation, batch in track(cases, description="measuring"):
        depth, outputs = map(int, shape.split("x"))
        times = measure(depth, outputs, batch, arguments.rounds, activation)
        dense, on, off = times["nn.Linear"], times["telemetry on"], times["telemetry off"]
        table.add_row(
            f"{depth}→{outputs}",
            activation,
            str(batch),
            f"{median(dense):.1f}",
            f"{median(on):.1f}",
            ratio_text(dense, on),
            ratio_text(on, off),
        )
        rows.append(
            {
                "layer": shape,
                "activation": activation,
                "batch": batch,
                **{name: median(values) for name, values in times.items()},
            }
        )
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
