"""Tables of a fabric's telemetry for the terminal. Needs rich (the extra ``demo``).

    fabric = pytfmbs.Fabric()
    model(batch)
    pytfmbs.report.print_profile(fabric)

What each counter means: docs/fabric.md, "Counters".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._fabric import Fabric

try:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
except ImportError as error:
    raise ImportError("pytfmbs.report needs rich: pip install rich") from error

_ENERGY_UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"))  # picojoules a unit


def fabric_table(profile: Mapping[str, Any], title: str = "The fabric, a layer at a time") -> Table:
    """A table with a row a layer and one for the device, from ``Fabric.profile_detailed()``.

    Cycles are the whole time line; *dense* is the same work without zero-skip, *saved* the
    difference in percent of it. *Zero-skips* are in percent of all lane multiplications, *SRAM* is
    words read from and written to the banks, *energy* by the device's table.
    """
    table = new_table(title)
    table.add_column("layer")
    for heading in (
        "cycles",
        "dense",
        "saved",
        "zero-\nskips",
        "utili-\nzation",
        "SRAM\nwords",
        "energy",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, counters in profile["layers"].items():
        table.add_row(escape(name), *_cells(counters))
    table.add_section()
    table.add_row("device", *_cells(profile), style="bold")
    return table


def tile_table(profile: Mapping[str, Any], title: str = "The fabric, a tile at a time") -> Table:
    """A table with a row a tile, from ``Fabric.profile_detailed()``."""
    table = new_table(title)
    for heading in ("tile", "compute\ncycles", "active ops", "zero-\nskips", "SRAM\nwords"):
        table.add_column(heading, justify="right", no_wrap=True)
    for tile in profile["tiles"]:
        table.add_row(
            str(tile["tile"]),
            f"{tile['compute_cycles']:,}",
            f"{tile['active_ops']:,}",
            _percent(tile["zero_skips"], tile["zero_skips"] + tile["active_ops"]),
            f"{tile['sram_reads'] + tile['sram_writes']:,}",
        )
    return table


def print_profile(
    fabric: Fabric | None = None, *, tiles: bool = False, console: Console | None = None
) -> None:
    """Prints the counters of a device since they were last reset.

    fabric: None is the process's default device. tiles: print the tiles' table too.
    console: rich's; None is standard output.
    """
    profile = (Fabric() if fabric is None else fabric).profile_detailed()
    console = Console() if console is None else console
    console.print(fabric_table(profile))
    if tiles:
        console.print(tile_table(profile))


def new_table(title: str) -> Table:
    """An empty table in the style of this package; seven columns fit a terminal of 80."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def format_energy(picojoules: float) -> str:
    """Picojoules with three figures and the unit that suits: 1,672,821 is "1.67 µJ"."""
    for size, unit in _ENERGY_UNITS:
        if abs(picojoules) >= size:
            return f"{picojoules / size:.3g} {unit}"
    return f"{picojoules:.3g} pJ"


def _cells(counters: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{counters['cycles']:,}",
        f"{counters['dense_cycles']:,}",
        _percent(counters["cycles_saved"], counters["dense_cycles"]),
        _percent(counters["zero_skips"], counters["zero_skips"] + counters["active_ops"]),
        f"{100 * counters['utilization']:.1f} %",
        f"{counters['sram_reads'] + counters['sram_writes']:,}",
        format_energy(counters["energy_pj"]),
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
