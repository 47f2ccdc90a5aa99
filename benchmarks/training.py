"""A training step of ternary layers against nn.Linear's: time, and what autograd keeps.

    python benchmarks/training.py [--quick] [--threads 1 2] [--dtype float32] [--json FILE] [--picture FILE]

A step is forward, backward to input, weight and bias, and plain SGD: so each step changes the weight,
and the ternary layers quantize and pack it anew. Both layers take turns; the ratio is the median of
their pairs. Telemetry is off.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytfmbs import Fabric, FabricConfig, TFMBSLinear, active_kernels
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn


class Shape(NamedTuple):
    inputs: int
    outputs: int
    batch: int

    def __str__(self) -> str:
        return f"{self.inputs}→{self.outputs}, batch {self.batch}"


SHAPES = (
    Shape(784, 60, 64),
    Shape(784, 60, 512),
    Shape(1024, 1024, 64),
    Shape(1024, 1024, 512),
    Shape(2560, 6912, 64),
    Shape(2560, 6912, 512),
)
QUICK = (0, 1, 2, 4)
#: Weight quantizer and activations.
KINDS = (("sign", "ternary"), ("absmean", "int8"))
PARTS = ("forward", "backward", "optimizer")
#: The largest ratio that we aim for, with AVX-512 and without: by whether the layer is large (1,024
#: features or more on both sides), and the batch is.
AIMS = {
    (True, True): (0.85, 0.95),
    (True, False): (1.0, 1.1),
    (False, True): (0.95, 1.0),
    (False, False): (1.15, 1.25),
}


def aim(shape: Shape) -> float:
    large = min(shape.inputs, shape.outputs) >= 1024
    return AIMS[large, shape.batch >= 512][0 if "avx512" in active_kernels() else 1]


# --- measuring ------------------------------------------------------------------------------------


class Run:
    """A layer in training; each step gives the seconds of its parts."""

    def __init__(self, layer: nn.Module, x: Tensor, grad: Tensor, clock: Callable[[], float]):
        self.layer, self.grad, self.clock = layer, grad, clock
        self.x = x.clone().requires_grad_()
        self.optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
        self.steps: list[list[float]] = []

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        self.x.grad = None
        clock = self.clock
        begin = clock()
        y = self.layer(self.x)
        forward = clock()
        y.backward(self.grad)
        backward = clock()
        self.optimizer.step()
        end = clock()
        self.steps.append([forward - begin, backward - forward, end - backward])

    def median(self, part: int | None = None) -> float:
        return statistics.median(sum(step) if part is None else step[part] for step in self.steps)


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """Of tensors that autograd keeps for one call, without the layer's own."""
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers())}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(x.clone().requires_grad_())
    return sum(size for place, size in held.items() if place not in own)


def measure(
    shape: Shape, dtype: torch.dtype, seconds: float, clock: Callable[[], float]
) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.randn(shape.batch, shape.inputs).to(dtype)
    grad = torch.randn(shape.batch, shape.outputs).to(dtype)
    plain = nn.Linear(shape.inputs, shape.outputs, dtype=dtype)
    fabric = Fabric(FabricConfig())
    fabric.telemetry = False
    layers: list[nn.Module] = [plain]
    for quantizer, activation in KINDS:
        layer = TFMBSLinear(
            shape.inputs,
            shape.outputs,
            dtype=dtype,
            weight_quantizer=quantizer,
            activation=activation,
            fabric=fabric,
        )
        layer.load_state_dict(plain.state_dict())
        _ = layer.fabric_identity  # a buffer from now on
        layers.append(layer)
    kept = [kept_bytes(layer, x) for layer in layers]
    runs = [Run(layer, x, grad, clock) for layer in layers]
    for run in runs:
        for _ in range(2):
            run()
        run.steps.clear()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(runs[0].steps) < 5:
        for run in runs:
            run()
    found = {"shape": list(shape), "aim": aim(shape), "linear": times(runs[0], kept[0])}
    for (quantizer, activation), run, size in zip(KINDS, runs[1:], kept[1:], strict=True):
        pairs = [sum(a) / sum(b) for a, b in zip(run.steps, runs[0].steps, strict=True)]
        found[f"{quantizer}/{activation}"] = {
            **times(run, size),
            "ratio": statistics.median(pairs),
            "quartiles": statistics.quantiles(pairs, n=4)[::2],
        }
    return found


def times(run: Run, kept: int) -> dict[str, Any]:
    parts = {name: run.median(i) for i, name in enumerate(PARTS)}
    return {"seconds": run.median(), **parts, "kept_bytes": kept, "steps": len(run.steps)}


# --- showing --------------------------------------------------------------------------------------


def names() -> list[str]:
    return [f"{quantizer}/{activation}" for quantizer, activation in KINDS]


def table(contest: dict[str, Any]) -> Table:
    made = Table(title=f"{title(contest)}; times in ms", title_justify="left", box=None)
    made.add_column("layer")
    headings = ("shape", "step", "of nn.Linear", "aim", *PARTS, "kept, of nn.Linear")
    for heading in headings:
        made.add_column(heading, justify="right", no_wrap=True)
    for case in contest["cases"]:
        shape = str(Shape(*case["shape"]))
        for name in ("linear", *names()):
            row = case[name]
            part = [f"{row[key] * 1e3:.2f}" for key in ("seconds", *PARTS)]
            ratio, goal, kept = "", "", f"{row['kept_bytes']:,} B"
            if name != "linear":
                colour = "green" if row["ratio"] <= case["aim"] else "red"
                low, high = row["quartiles"]
                ratio = f"[{colour}]{row['ratio']:.2f}[/] ({low:.2f}–{high:.2f})"
                goal = f"{case['aim']:.2f}"
                kept = f"{row['kept_bytes'] / case['linear']['kept_bytes']:.3f}"
            label = "nn.Linear" if name == "linear" else name
            made.add_row(label, shape, part[0], ratio, goal, *part[1:], kept)
            shape = ""
    return made


def title(contest: dict[str, Any]) -> str:
    count = contest["threads"]
    threads = f"{count} thread{'s' if count > 1 else ''}"
    return f"{contest['kernels']}, {threads}, {contest['dtype']}, {contest['clock']} time"


def picture(contests: list[dict[str, Any]], path: Path) -> None:
    """The ratios as bars, one panel for each number of threads."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, len(contests), figsize=(1.5 + 5.5 * len(contests), 4), sharey=True, squeeze=False
    )
    for axes, contest in zip(panels[0], contests, strict=True):
        cases = contest["cases"]
        for i, (name, colour) in enumerate(zip(names(), ("#d55e00", "#0072b2"), strict=True)):
            at = [j + 0.38 * (i - 0.5) for j in range(len(cases))]
            axes.bar(at, [case[name]["ratio"] for case in cases], 0.36, color=colour, label=name)
        for j, case in enumerate(cases):
            label = "aim" if j == 0 else None
            axes.hlines(case["aim"], j - 0.42, j + 0.42, "black", "dotted", label=label)
        axes.axhline(1, color="0.5", linewidth=0.8)
        labels = [str(Shape(*case["shape"])).replace(", ", "\n") for case in cases]
        axes.set_xticks(range(len(cases)), labels, fontsize=7)
        axes.set_title(title(contest), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("time of a training step, times nn.Linear's")
    panels[0][0].legend(frameon=False, fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one thread, four shapes, 2 seconds each"
    )
    parser.add_argument("--threads", type=int, nargs="+", help="1, and as many as there are CPUs")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float64"), default="float32")
    parser.add_argument("--shapes", type=int, nargs="+", help="indices of the shapes, from 0")
    parser.add_argument("--seconds", type=float, help="for each shape (12)")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: the process's CPU time, for one thread on a machine with other work",
    )
    parser.add_argument("--json", type=Path, default=Path("build/bench/training.json"))
    parser.add_argument("--picture", type=Path, default=Path("build/bench/training.png"))
    args = parser.parse_args(arguments)
    seconds = args.seconds or (2.0 if args.quick else 12.0)
    counts = args.threads or ([1] if args.quick else sorted({1, len(os.sched_getaffinity(0))}))
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    some = args.shapes or (QUICK if args.quick else range(len(SHAPES)))
    shapes = [SHAPES[i] for i in some]
    contests: list[dict[str, Any]] = []
    screen = Console(width=None if Console().is_terminal else 130)
    for count in counts:
        torch.set_num_threads(count)
        contest: dict[str, Any] = {
            "threads": count,
            "kernels": active_kernels(),
            "dtype": args.dtype,
            "clock": args.clock,
            "cases": [
                measure(shape, getattr(torch, args.dtype), seconds, clock) for shape in shapes
            ],
        }
        contests.append(contest)
        screen.print(table(contest))
    about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({**about, "contests": contests}, indent=1) + "\n")
    picture(contests, args.picture)
    screen.print(f"{args.json}\n{args.picture}")


if __name__ == "__main__":
    main()
