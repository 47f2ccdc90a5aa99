"""The tables of ``pytfmbs inspect``, in 80 columns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def show(data: dict[str, Any], console: Console, every: bool) -> None:
    """Prints what ``inspect`` found. every: each tensor in a row of its own; otherwise equal ones of
    numbered blocks share one."""
    about = ", ".join(f"{key} {value}" for key, value in data["about"].items() if value is not None)
    kind = data["format"] or "no checkpoint that is read"
    console.print(
        f"[bold]{escape(data['path'])}[/]: {kind}{f' ({escape(about)})' if about else ''}"
    )
    if data["ternary_layers"]:
        console.print(_layers(data["ternary_layers"], every))
    if data["other_tensors"]:
        console.print(_others(data["other_tensors"], every))
    weights, bits = data["ternary_weights"], data["bits_per_weight"]
    console.print(
        f"{len(data['ternary_layers'])} ternary layers with {_quantity(weights)} weights"
        + (f" at {bits:.3g} bits" if bits else "")
        + f"; {_quantity(data['other_values'])} other values; {_quantity(data['bytes'])}B"
    )
    for format, reason in data["converts_to"].items():
        console.print(f"to {format}: {'yes' if reason is None else escape('no: ' + reason)}")
    for error in data["errors"]:
        where = f"{error['tensor']!r}: " if error["tensor"] else ""
        text = f"{where}{error['reason']}. {error['remedy']}."
        console.print(f"[bold red]refused:[/] {escape(text)}")


def _table(title: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("name", overflow="fold")
    table.add_column("type", no_wrap=True)
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _layers(layers: list[dict[str, Any]], every: bool) -> Table:
    table = _table("Ternary layers", "in→out", "scales", "zeros", "bits")
    for name, found in _grouped(layers, every):
        one = found[0]
        outputs, inputs = one["shape"]
        weights = sum(layer["weights"] for layer in found)
        cells = ["damaged", "", ""]
        if "error" not in one:
            size = sum(layer["weight_bytes"] for layer in found)
            zeros = sum(layer["zeros"] * layer["weights"] for layer in found) / weights
            cells = [one["scales"], f"{zeros:.0%}", f"{8 * size / weights:.3g}"]
        table.add_row(escape(name), one["type"], f"{inputs}→{outputs}", *cells)
    return table


def _others(tensors: list[dict[str, Any]], every: bool) -> Table:
    table = _table("Other tensors", "shape", "bytes")
    for name, found in _grouped(tensors, every):
        size = sum(tensor["bytes"] or 0 for tensor in found)
        shape = "×".join(map(str, found[0]["shape"])) or "scalar"
        unknown = any(tensor["bytes"] is None for tensor in found)
        table.add_row(escape(name), found[0]["type"], shape, "?" if unknown else _quantity(size))
    return table


def _grouped(rows: list[dict[str, Any]], every: bool) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Rows that differ in a block's number alone, under a name with the first and last of these."""
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        name = row["name"]
        key = name if every else _NUMBER.sub("*", f".{name}.", count=1)
        about = (row["type"], tuple(row["shape"]), row.get("scales"), "error" in row)
        groups.setdefault((key, *about), []).append(row)
    for (key, *_), found in groups.items():
        numbers = [_NUMBER.search(f".{row['name']}.") for row in found]
        values = [int(number[0]) for number in numbers if number is not None]
        if every or len(found) == 1:
            for row in found:
                yield row["name"], [row]
        else:
            yield key.strip(".").replace("*", f"{min(values)}…{max(values)}", 1), found


def _quantity(value: float) -> str:
    if value < 1000:
        return f"{value:.0f}"
    power = min(int(math.log10(value) // 3), 4)
    return f"{value / 1000**power:.3g} {'kMGT'[power - 1]}"
