"""The figures as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .judge import Group, GrowthVerdict, Verdict
from .measure import quartiles
from .results import Case, Contest, Results


def console(width: int | None = None) -> Console:
    """As wide as the terminal; 150 columns where there is none."""
    found = Console(width=width)
    if width is None and not found.is_terminal:
        found.width = 150
    return found


def duration(seconds: float) -> str:
    """Three digits, in a unit that fits."""
    factor, unit = (1e6, "µs") if seconds < 1e-3 else (1e3, "ms") if seconds < 1 else (1.0, "s")
    value = seconds * factor
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def limits(case: Case) -> str:
    rates = [
        f"{name} {case.ceiling(name) / 1e9:.0f}" for name in case.ceilings if case.ceiling(name) > 0
    ]
    return "ceilings, 10⁹ products or bytes a second: " + "; ".join(rates)


def reasons(contest: Contest, case: Case) -> dict[str, str]:
    """Why who is not in the case's table, by name."""
    found = {name: row.unavailable for name, row in case.rows.items() if row.unavailable}
    for name, known in contest.contestants.items():
        if known["unavailable"]:
            found[name] = known["unavailable"]
    return found


def absent(contest: Contest, case: Case) -> str:
    """Who is not in the table, and why."""
    found = reasons(contest, case)
    return "".join(f"\nabsent: {name}: {reason}" for name, reason in found.items())


def case_table(contest: Contest, case: Case) -> Table:
    title = (
        f"{case.shape}, batch {case.batch}, weights {case.state}; {contest.kernels}, "
        f"{contest.threads} thread{'s' if contest.threads > 1 else ''}"
    )
    if case.label:
        title += f"  [dim]{case.label}[/]"
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", caption=limits(case) + absent(contest, case),
                  caption_justify="left")  # fmt: skip
    table.add_column("layer", no_wrap=True, min_width=32)
    for heading in ("median", "quartiles", "least", "10⁹ prod./s", "GB/s", "fp32 ="):
        table.add_column(heading, justify="right", no_wrap=True)
    ordered = sorted(
        case.rows.items(), key=lambda item: item[1].median if item[1].seconds else float("inf")
    )
    for name, row in ordered:
        ours = contest.contestants[name]["ours"]
        style = "bold green" if ours else ""
        if not row.seconds:
            continue
        low, middle, high = quartiles(row.seconds)
        ratio = case.speed_ratio(name, "torch fp32")
        wrong = "" if row.check.get("ok") else "  [red]wrong product[/]"
        table.add_row(
            name + wrong,
            duration(middle),
            f"{duration(low)} – {duration(high)}",
            duration(min(row.seconds)),
            f"{case.products / middle / 1e9:.1f}",
            f"{row.weight_bytes / middle / 1e9:.1f}",
            "–" if ratio is None else f"{ratio:.1f}×",
            style=style,
        )
    return table


def show_cases(results: Results, out: Console) -> None:
    for contest in results.contests:
        for case in contest.cases:
            out.print(case_table(contest, case))


def verdict_table(verdicts: Iterable[Verdict], every: bool, left_out: str = "") -> Table:
    """A row a bar and number of threads, with its worst case; or every case. Under the names of
    the groups."""
    table = Table(title="Held to", box=SIMPLE_HEAD, title_justify="left", caption=left_out,
                  caption_justify="left")  # fmt: skip
    for heading, justify, wraps in (
        ("what: against", "left", True), ("set", "left", False),
        ("batch", "right", False), ("thr.", "right", False), ("bar", "right", False),
        ("found" if every else "worst", "right", False), ("", "left", False), ("at", "left", True),
    ):  # fmt: skip
        table.add_column(heading, justify=justify, no_wrap=not wraps)  # type: ignore[arg-type]
    groups: dict[tuple[Any, ...], list[Verdict]] = {}
    for verdict in verdicts:
        key = (verdict.bar, verdict.kernels, verdict.threads) if not every else (verdict,)
        groups.setdefault(key, []).append(verdict)
    group: Group | None = None
    for found in groups.values():
        bar = found[0].bar
        if bar.group is not group:
            group = bar.group
            table.add_section()
            table.add_row(f"[bold]{group.value}[/]")
        choose = max if bar.most is not None else min
        worst = choose(found, key=lambda verdict: verdict.found.value)
        met = sum(verdict.met for verdict in found)
        style = "green" if met == len(found) else "red"
        batches = sorted({verdict.batch for verdict in found})
        where = worst.shape if len(batches) == 1 else f"{worst.shape}, batch {worst.batch}"
        table.add_row(
            bar.text,
            worst.kernels,
            ", ".join(map(str, batches)),
            str(worst.threads),
            bar.aim,
            f"[{style}]{bar.show(worst.found.value)}[/]",
            f"[{style}]{'met' if met == len(found) else 'not met'}[/]"
            + ("" if every else f" [dim]{met}/{len(found)}[/]"),
            where + (f" [dim]{worst.found.against}[/]" if "fastest" in bar.text else ""),
        )
    return table


def growth_table(verdicts: Iterable[GrowthVerdict]) -> Table:
    table = Table(title=f"Held to: {Group.GROWTH.value}", box=SIMPLE_HEAD, title_justify="left")
    for heading in ("what", "found", "bar", ""):
        table.add_column(heading, no_wrap=True)
    for verdict in verdicts:
        style = "green" if verdict.met else "red"
        table.add_row(
            verdict.text, f"[{style}]{verdict.value:.2f}×[/]", verdict.aim,
            f"[{style}]{'met' if verdict.met else 'not met'}[/]",
        )  # fmt: skip
    return table
