"""What it takes to convert a model to MLIR, and what a large layer takes in a file.

    python benchmarks/conversion.py [--rounds 20] [--large 4096x11008]

The network is 784-60-10 with a ReLU, its time that of ONNX to MLIR, after torch's export. The large
layer's is that of its float weights in memory to a module, and its size that of the bytecode.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from pytfmbs.compiler import MlirModule, import_onnx, to_onnx
from rich.console import Console
from rich.table import Table
from torch import nn


def network() -> onnx.ModelProto:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 60), nn.ReLU(), nn.Linear(60, 10))
    return to_onnx(model, torch.zeros(2, 784))


def large_layer(depth: int, outputs: int) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((depth, outputs), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "large")],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", depth])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def seconds(convert: Callable[[], MlirModule], rounds: int) -> tuple[list[float], MlirModule]:
    """Of each round, after one that is not counted; and what the last gave."""
    module = convert()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        module = convert()
        times.append(time.perf_counter() - start)
    return times, module


def size_text(module: MlirModule, weights: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.mlirbc"
        module.save(path)
        size = path.stat().st_size
    return f"{size:,} ({size * 8 / weights:.4f})"


def _shape(text: str) -> tuple[int, int]:
    sizes = text.split("x")
    if len(sizes) != 2 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape like 4096x11008")
    return int(sizes[0]), int(sizes[1])


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}; at least 2 rounds give a spread")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=_rounds, default=20, help="default: %(default)s")
    parser.add_argument(
        "--large", type=_shape, default=(4096, 11008), metavar="INxOUT", help="default: 4096x11008"
    )
    options = parser.parse_args()
    depth, outputs = options.large
    table = Table(title="ONNX to MLIR")
    for heading in ("model", "median", "quartiles", "bytecode (bits per weight)"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for name, model, weights, rounds in (
        ("784-60-10", network(), 784 * 60 + 60 * 10, options.rounds),
        (f"{depth}-{outputs}", large_layer(depth, outputs), depth * outputs, 3),
    ):
        times, module = seconds(lambda model=model: import_onnx(model), rounds)  # type: ignore[misc]
        low, middle, high = (f"{q * 1e3:.1f}" for q in statistics.quantiles(times, n=4))
        table.add_row(name, f"{middle} ms", f"{low}-{high} ms", size_text(module, weights))
    Console().print(table)


if __name__ == "__main__":
    main()
