"""The figures of docs/performance.md, between two marks; the rest of the page is written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .contestants.ours import Int8, Trit
from .judge import Bar, Verdict, judge, judge_growth, left_out
from .results import Contest, Results
from .tables import duration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def table(head: list[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def times(contest: Contest) -> Iterator[list[str]]:
    for case in contest.cases:
        peers = [
            (ratio, peer)
            for peer in contest.peers()
            if (ratio := case.speed_ratio(peer, "torch fp32")) is not None
        ]
        ratio, fastest = max(peers, default=(0.0, ""))
        yield [
            f"{case.shape}, batch {case.batch}" + (", cold" if case.state == "cold" else ""),
            *(
                duration(case.rows[name].median)
                if name in case.rows and case.rows[name].valid
                else "–"
                for name in (Int8.name, Trit.name, "torch fp32")
            ),
            f"{fastest}: {duration(case.rows[fastest].median)}" if fastest else "–",
        ]


def held_to(verdicts: list[Verdict]) -> Iterator[list[str]]:
    groups: dict[tuple[Bar, str, int], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.bar, verdict.kernels, verdict.threads), []).append(verdict)
    for found in groups.values():
        bar = found[0].bar
        figures = [verdict.found.value for verdict in found]
        batches = ", ".join(str(b) for b in sorted({verdict.batch for verdict in found}))
        yield [
            f"{bar.text}, {bar.state}",
            found[0].kernels,
            batches,
            str(found[0].threads),
            bar.aim,
            f"{bar.show(min(figures))} – {bar.show(max(figures))}",
            f"{sum(verdict.met for verdict in found)} of {len(found)}",
        ]


def page(results: Results) -> str:
    machine = results.machine
    caches = ", ".join(f"{name} {size >> 10:,} KiB" for name, size in machine["caches"].items())
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    lines = [
        BEGIN,
        "",
        f"{machine['cpu']}, {machine['cores']} cores ({caches}); {versions}. Medians; "
        f"{results.provenance}.",
        "",
        "![Products a second over products a byte](images/bench-roofline.png)",
        "![Speed against torch fp32](images/bench-bars.png)",
    ]
    head = ["layer", "int8 × trit", "trit × trit", "torch fp32", "fastest peer"]
    for contest in results.contests:
        threads = "one thread" if contest.threads == 1 else f"{contest.threads} threads"
        lines += ["", f"**{contest.kernels}, {threads}**", *table(head, times(contest))]
    aims = ["of: against", "set", "batch", "threads", "aim", "found", "met"]
    lines += ["", "**What it is held to**", *table(aims, held_to(list(judge(results))))]
    if others := left_out(results):
        lines += [f"{others[0].upper()}{others[1:]}.", ""]
    if results.growth:
        grown = (
            [v.text, f"{v.value:.2f}×", v.aim, "yes" if v.met else "no"]
            for v in judge_growth(results.growth)
        )
        lines += ["![Time a weight and a row](images/bench-growth.png)"]
        lines += table(["growth", "found", "aim", "met"], grown)
    return "\n".join([*lines, END])


def write(results: Results) -> None:
    """In place of what is between the marks; at the end of the page where there are none."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Performance\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Measured\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + page(results) + after, encoding="utf-8")
    print(f"written: {PAGE}")
