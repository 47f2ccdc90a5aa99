"""``python -m pytfmbs.demo``: trains, compares, profiles, draws, saves and loads."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ImportError as error:
    raise ImportError("the demo needs rich: pip install rich") from error

from .._fabric import active_kernels
from ..nn.linear import TFMBSLinear
from ..telemetry import plots
from ..telemetry.report import fabric_table
from . import data, experiment, reload, summary
from .recipes import RECIPES, Recipe


def _arguments(given: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Trains a 784→60→10 network on real digits in fp32 and in trits, and shows its "
        "accuracy and what it costs on the fabric.",
    )
    parser.add_argument("--seeds", type=_count, default=5, metavar="N", help="runs (default: 5)")
    parser.add_argument(
        "--epochs", type=_count, default=60, metavar="N", help="epochs of each run (default: 60)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="folder for pictures, model and results (default: demo-output)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one seed and 10 epochs: a look, no result"
    )
    arguments = parser.parse_args(given)
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output: {error}")
    if arguments.quick:
        arguments.seeds, arguments.epochs = 1, 10
    return arguments


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def main(given: Sequence[str] | None = None, prog: str = "python -m pytfmbs.demo") -> int:
    """given: arguments; sys.argv's where None."""
    arguments = _arguments(given, prog)
    folder: Path = arguments.output
    console = Console()
    began = time.monotonic()
    torch.set_num_threads(1)  # the layers are small: a second thread would only wait

    digits = data.load()
    held_out = len(digits.test_labels)
    console.print(
        f"[bold]pytfmbs demo[/]: 784→60→10 on scikit-learn's digits, "
        f"{len(digits.train_labels):,} to train on and {held_out} held out; "
        f"{arguments.epochs} epochs a network, CPU kernels: {active_kernels()}"
    )
    with Progress(
        TextColumn("{task.description:34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        bar = progress.add_task("", total=arguments.seeds * len(RECIPES) * arguments.epochs)

        def after_epoch(recipe: Recipe, seed: int) -> None:
            weights = f" ({recipe.quantizer})" if recipe.quantizer else ""
            progress.update(bar, advance=1, description=f"seed {seed}: {recipe.key}{weights}")

        results = experiment.run(digits, range(arguments.seeds), arguments.epochs, after_epoch)

    console.print()
    console.print(summary.accuracy_table(results, held_out))
    console.print(summary.verdict(results))
    profile = experiment.show_on_fabric(results.model, digits)
    console.print()
    title = f"The fabric over {held_out} digits, a layer at a time (one seed's network)"
    console.print(fabric_table(profile, title))

    reloaded = reload.survives(results.model, digits.test_images, folder)
    pictures = _draw(results.model, profile, held_out, folder)
    summary.write_json(results, profile, reloaded, folder / "results.json")
    console.print()
    verdict = "the same outputs, bit for bit" if reloaded else "[bold red]other outputs[/]"
    console.print(f"Saved with torch.save and loaded by a fresh process: {verdict}")
    console.print(f"In {folder}: {', '.join([*pictures, 'model.pt', 'results.json'])}")
    console.print(f"{time.monotonic() - began:.0f} s")
    return 0 if reloaded else 1


def _draw(
    model: torch.nn.Sequential, profile: dict[str, object], held_out: int, folder: Path
) -> list[str]:
    """The names of the pictures that it saved."""
    layers = [module for module in model if isinstance(module, TFMBSLinear)]
    pictures = {
        "sram.png": plots.sram_map(layers),
        "cycles.png": plots.cycles_bar(profile, samples=held_out, noun="digit"),
        "weights.png": plots.trit_weights(layers[0], (data.SIDE, data.SIDE)),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=160)
    return list(pictures)


if __name__ == "__main__":
    sys.exit(main())
