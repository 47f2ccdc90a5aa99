"""What the demo shows at the end: a table for the terminal, and the same as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from ..telemetry.report import new_table
from .experiment import Results, Row
from .recipes import CHOSEN

_QUANTIZERS = {None: "fp32", "sign": "sign", "absmean": "absmean", "twn": "TWN"}
_ACTIVATIONS = {"ternary": "trit", "int8": "int8"}


def accuracy_table(results: Results, held_out: int) -> Table:
    """Every network and every seed, in percent of the held-out digits."""
    table = new_table(f"Accuracy on {held_out} held-out digits, %")
    table.caption = (
        "ternary: trained as such; just quantized: what fp32 learned, as trits.\n"
        "inputs: of the two layers. TFMBSLinear's defaults are sign and trit."
    )
    for heading in ("network", "weights", "inputs"):
        table.add_column(heading, no_wrap=True)
    table.add_column(f"seeds 0–{results.seeds - 1}" if results.seeds > 1 else "seed 0")
    table.add_column("mean ± sd" if results.seeds > 1 else "mean", no_wrap=True)
    table.add_column("cycles\n/digit", justify="right", no_wrap=True)
    for row in results.rows.values():
        table.add_row(
            row.title,
            _QUANTIZERS[row.recipe.quantizer],
            _inputs(row),
            " ".join(f"{value:4.1f}" for value in row.accuracies),
            f"{row.accuracy:.1f}" + (f" ± {_spread(row):.1f}" if results.seeds > 1 else ""),
            f"{mean(row.cycles):,.0f}" if row.cycles else "",
            style="bold" if row.key == CHOSEN.key else "",
        )
    return table


def verdict(results: Results) -> str:
    """The comparison in a sentence."""
    below, above = results.below_fp32, results.above_quantized
    return (
        f"Ternary trained ({_QUANTIZERS[CHOSEN.quantizer]}) is {abs(below):.1f} points "
        f"{'below' if below >= 0 else 'above'} fp32, and {abs(above):.1f} "
        f"{'above' if above >= 0 else 'below'} the best of fp32 just quantized."
    )


def write_json(results: Results, profile: dict[str, Any], reloaded: bool, file: Path) -> None:
    """The numbers of the tables, for programs."""
    rows = {
        row.key: {
            "title": row.title,
            "quantizer": row.recipe.quantizer,
            "activations": row.recipe.activations if row.recipe.quantizer else None,
            "accuracies_percent": row.accuracies,
            "mean_percent": row.accuracy,
            "sd_percent": _spread(row),
            "cycles_per_digit": mean(row.cycles) if row.cycles else None,
        }
        for row in results.rows.values()
    }
    document = {
        "seeds": results.seeds,
        "epochs": results.epochs,
        "networks": rows,
        "points_below_fp32": results.below_fp32,
        "points_above_just_quantized": results.above_quantized,
        "same_outputs_after_reload": reloaded,
        "profile": profile,
    }
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _spread(row: Row) -> float:
    return stdev(row.accuracies) if len(row.accuracies) > 1 else 0.0


def _inputs(row: Row) -> str:
    """What the two layers see of their inputs."""
    if row.recipe.quantizer is None:
        return "fp32"
    return "+".join(_ACTIVATIONS[activation] for activation in row.recipe.activations)
