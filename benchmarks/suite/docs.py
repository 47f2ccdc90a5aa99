"""The figures of docs/performance.md: a section for each kernel set that is the best of some CPU,
between two marks of its own; the rest of the page is written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .contestants.ours import Int8, Trit
from .judge import Bar, Group, Verdict, judge, judge_growth, left_out
from .pictures import file_name, main_contest
from .results import Contest, Results
from .tables import duration, reasons
from .variants import VARIANTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


def heading(kernels: str) -> str:
    variant = VARIANTS.get(kernels)
    said = variant.heading if variant else None
    return said or f"A CPU whose best kernel set is {kernels}"


def marks(kernels: str) -> tuple[str, str]:
    return f"<!-- measured {kernels}: begin -->", f"<!-- measured {kernels}: end -->"


def table(head: list[str], rows: Iterator[list[str]]) -> list[str]:
    lines = [head, [":---", *["---:"] * (len(head) - 1)], *rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines), ""]


def times(contest: Contest) -> Iterator[list[str]]:
    for case in contest.cases:
        # As the bars have it: to int8 × trit, or where that was not measured to trit × trit.
        peers = list(contest.peers())
        fastest = case.fastest(peers, Int8.name) or case.fastest(peers, Trit.name)
        yield [
            f"{case.shape}, batch {case.batch}" + (", cold" if case.state == "cold" else ""),
            *(
                duration(case.rows[name].median)
                if name in case.rows and case.rows[name].valid
                else "–"
                for name in (Int8.name, Trit.name, "torch fp32")
            ),
            f"{fastest[0]}: {duration(case.rows[fastest[0]].median)}" if fastest else "–",
        ]


def absent(contest: Contest) -> list[str]:
    """Which peers are in no case, or not in all, and why: a line, or none where all are in all. A
    wrong product is no figure either."""
    nowhere: list[str] = []
    partly: list[str] = []
    for peer in contest.peers():
        why: dict[str, None] = {}  # in order, each once
        for case in contest.cases:
            row = case.rows.get(peer)
            if reason := reasons(contest, case).get(peer):
                why[reason] = None
            elif row is not None and not row.valid:
                why["wrong product"] = None
        if why:
            there = any(peer in case.rows and case.rows[peer].valid for case in contest.cases)
            (partly if there else nowhere).append(f"{peer} ({'; '.join(why)})")
    parts = (("Absent", nowhere), ("Not in every line", partly))
    said = [f"{what}: {', '.join(found)}." for what, found in parts if found]
    return [" ".join(said), ""] if said else []


def held_to(verdicts: list[Verdict]) -> Iterator[list[str]]:
    groups: dict[tuple[Bar, str, int], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.bar, verdict.kernels, verdict.threads), []).append(verdict)
    for found in groups.values():
        bar = found[0].bar
        figures = [verdict.found.value for verdict in found]
        batches = ", ".join(str(b) for b in sorted({verdict.batch for verdict in found}))
        yield [
            bar.group.value,
            f"{bar.text}, {bar.state}",
            found[0].kernels,
            batches,
            str(found[0].threads),
            bar.aim,
            f"{bar.show(min(figures))} – {bar.show(max(figures))}",
            f"{sum(verdict.met for verdict in found)} of {len(found)}",
        ]


def section(results: Results) -> str:
    """Of the kernel set that the machine gets by itself; forced ones are in it too."""
    machine, kernels = results.machine, results.kernels
    begin, end = marks(kernels)

    def picture(title: str, kind: str) -> str:
        return f"![{title}](images/{file_name(kind, kernels)})"

    caches = ", ".join(f"{name} {size >> 10:,} KiB" for name, size in machine["caches"].items())
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    lines = [
        begin,
        "",
        f"### {heading(kernels)}",
        "",
        f"{machine['cpu']}, {machine['cores']} cores ({caches}); {versions}. Medians of calls "
        f"with telemetry off, but where a line says otherwise; {results.provenance}.",
        "",
    ]
    if main_contest(results) is not None:
        lines += [
            picture("Products a second over products a byte", "roofline"),
            picture("Speed against torch fp32", "bars"),
        ]
    head = ["layer", "int8 × trit", "trit × trit", "torch fp32", "fastest peer"]
    for contest in results.contests:
        threads = "one thread" if contest.threads == 1 else f"{contest.threads} threads"
        lines += ["", f"**{contest.kernels}, {threads}**", *table(head, times(contest))]
        lines += absent(contest)
    aims = ["group", "of: against", "set", "batch", "threads", "aim", "found", "met"]
    lines += ["", "**What it is held to**", *table(aims, held_to(list(judge(results))))]
    if others := left_out(results):
        lines += [others, ""]
    if results.growth:
        grown = (
            [v.text, f"{v.value:.2f}×", v.aim, "yes" if v.met else "no"]
            for v in judge_growth(results.growth)
        )
        lines += [picture("Time a weight and a row", "growth")]
        lines += table([Group.GROWTH.value, "found", "aim", "met"], grown)
    return "\n".join([*lines, end])


def write(results: Results) -> None:
    """In place of what is between the set's marks; at the end of the page where there are none."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Performance\n\n## Measured\n"
    begin, end = marks(results.kernels)
    if begin not in text:
        text = f"{text.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not closed:  # what follows would be lost, another set's section perhaps
        raise ValueError(f"{PAGE}: {begin} without {end}")
    PAGE.write_text(before + section(results) + after, encoding="utf-8")
    print(f"written: {PAGE}")
