"""What the benchmark suite shows: tables, pictures, the page of the docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from benchmark_figures import GROWTH, INT8, contest, everything, package, results, row

from benchmarks.suite import docs, judge, pictures, tables
from benchmarks.suite.ceilings import READ_MEMORY
from benchmarks.suite.results import Row
from benchmarks.suite.variants import VARIANTS


def test_tables_show_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(contest())
    out = tables.console(150)
    tables.show_cases(found, out)
    out.print(tables.verdict_table(judge.judge(found), every=False))
    out.print(tables.growth_table(judge.judge_growth(GROWTH)))
    text = capsys.readouterr().out
    for part in (INT8, "quick int8", "wrong product", "1.60 ms", "30.0×", "not met", "met 1/1"):
        assert part in text


def test_the_table_of_bars_names_the_set_and_cuts_no_verdict(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = results(everything("avx2"))
    verdicts = judge.judge(found)
    tables.console(100).print(tables.verdict_table(verdicts, False, judge.left_out(found)))
    text = capsys.readouterr().out
    assert re.search(r" avx2 +1 +1 +≤ 1.65 bits +1.60 bits +met 1/1 ", text)
    assert "Not checked: targets of CPUs whose own ISA variant is avx512." in text


def test_the_table_of_bars_names_each_group_once(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = list(judge.judge(results(everything("avx2"))))
    tables.console(150).print(tables.verdict_table(verdicts, False))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    groups = {verdict.bar.group for verdict in verdicts}
    assert [lines.count(group.value) for group in judge.Group] == [g in groups for g in judge.Group]


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.234e-6, "1.23 µs"), (9.87e-4, "987 µs"), (0.0123, "12.3 ms"), (2.5, "2.50 s")]
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_pictures_and_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = results(contest(), contest(batch=8))
    found.contests[0].cases += found.contests.pop().cases
    found.growth = GROWTH  # type: ignore[assignment]
    pictures.draw(found, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "bench-roofline-avx512.png", "bench-bars-avx512.png", "bench-growth-avx512.png",
    }  # fmt: skip
    monkeypatch.setattr(docs, "FOLDER", tmp_path)
    page = tmp_path / "avx512.md"
    page.write_text("stale\n", encoding="utf-8")
    docs.write(found)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# A CPU with AVX-512 VNNI\n")
    assert "stale" not in text
    assert (
        "Medians of calls with telemetry off, but where a line says otherwise; "
        "layers measured 2026-05-01 09:00 UTC, with torch 2.\n"
    ) in text
    assert "| 2560→100, batch 1 | 1.00 ms | – | 30.0 ms | quick int8: 1.60 ms |" in text
    assert (
        "| group | measured, compared with | variant | batch | threads | target | found | met |"
        in text
    )
    assert (
        "| one row, hot | int8 × ternary, fastest baseline, hot | avx512 | 1 | 1 | ≥ 1.50× |"
        in text
    )
    assert "| growth | found | target | met |" in text
    assert "time per weight, 8,388,608 to 16,777,216 weights, 1 thr. | 1.10× | ≤ 1.15× |" in text
    assert text.count(".png") == 3
    assert all((tmp_path / name).exists() for name in re.findall(r"\.\./images/(\S+\.png)", text))
    docs.write(found)
    assert page.read_text(encoding="utf-8") == text
    found.machine["pytfmbs"] = package("abc-dirty")
    assert "09:00 UTC, of pytfmbs 0.1 (abc-dirty), with torch 2.\n" in docs.section(found)


def test_the_page_says_who_is_absent_from_a_contest_and_why() -> None:
    avx512, forced = contest(), contest(kernels="avx2", best=False)
    for name in ("held, 2 bits", "tall only"):
        for found in (avx512, forced):
            found.contestants[name] = dict(found.contestants["quick int8"])
            found.cases[0].rows[name] = row([2e-3] * 4)
    forced.contestants["held, 2 bits"]["unavailable"] = "cannot be held to avx2"
    del forced.cases[0].rows["held, 2 bits"]
    forced.cases += contest(depth=60).cases
    forced.cases[1].rows["tall only"] = Row(unavailable="needs depths in multiples of 256")
    forced.cases[1].rows[INT8] = Row(unavailable="ours is no peer")
    for case in forced.cases:
        case.rows.pop("wrong")
    text = docs.section(results(avx512, forced))
    assert [line for line in text.splitlines() if line.startswith(("Absent", "Not in"))] == [
        "Absent: wrong (wrong product).",
        "Absent: held, 2 bits (cannot be held to avx2). "
        "Not in every line: tall only (needs depths in multiples of 256).",
    ]
    # Below the contest's own table.
    assert text.index("## `avx512`, one thread") < text.index("Absent: wrong")
    assert text.index("## `avx2`, one thread") < text.index("Absent: held")
    assert text.index("Absent: wrong") < text.index("## `avx2`, one thread")


def test_each_variant_has_a_page_and_names_the_pictures_that_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "FOLDER", tmp_path)
    avx512 = results(contest(), contest(kernels="avx2", best=False))
    avx512.growth = GROWTH  # type: ignore[assignment]
    docs.write(avx512)
    first = (tmp_path / "avx512.md").read_bytes()
    # Without growth, whose picture is not there either.
    docs.write(results(contest(kernels="avx2"), kernels="avx2"))
    second = (tmp_path / "avx2.md").read_text(encoding="utf-8")
    assert second.startswith("# A CPU with AVX2 only\n")
    assert re.findall(r"\.\./images/(\S+)\)", second) == [
        "bench-roofline-avx2.png",
        "bench-bars-avx2.png",
    ]
    assert (tmp_path / "avx512.md").read_bytes() == first
    avx512.contests[0].cases[0].rows[INT8] = row([1.234e-3] * 4)
    docs.write(avx512)
    assert "| 1.23 ms |" in (tmp_path / "avx512.md").read_text(encoding="utf-8")
    # No picture is named that would not be drawn.
    for others in ([], [contest(state="cold")]):
        avx512.contests = others
        docs.write(avx512)
        text = (tmp_path / "avx512.md").read_text(encoding="utf-8")
        assert re.findall(r"\.\./images/(\S+)\)", text) == ["bench-growth-avx512.png"]
    pictures.draw(avx512, tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["bench-growth-avx512.png"]


def test_the_projects_pages_have_their_headings_and_pictures() -> None:
    pages = list(docs.FOLDER.glob("*.md"))
    assert pages
    for page in pages:
        assert page.stem in VARIANTS
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {docs.heading(page.stem)}\n")
        names = re.findall(r"\(\.\./images/(\S+)\)", text)
        assert names
        assert all(name.endswith(f"-{page.stem}.png") for name in names)
        assert all((docs.FOLDER.parent / "images" / name).exists() for name in names)


@pytest.mark.parametrize(
    ("kernels", "shown"),
    [
        ("avx2", ("(vpmaddubsw): 90", "(vpmaddubsw, vpmaddwd): 90", "fp32 FMA, 256 bits: 90")),
        ("avxvnni", ("(vpmaddubsw): 90", "(vpdpbusd, 256 bits): 90", "fp32 FMA, 256 bits: 90")),
        ("avx512", ("vpopcntq): 90", "(vpdpbusd): 90", "fp32 FMA, 512 bits: 90")),
    ],
)
def test_a_roofline_has_the_best_roof_of_each_product(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernels: str, shown: tuple[str, ...]
) -> None:
    found = contest(kernels=kernels)
    peaks = [peak.name for v in VARIANTS.values() for peak in v.own_peaks.values()]
    found.cases[0].ceilings = {name: [90e9] for name in (*peaks, READ_MEMORY)}
    labels: list[str] = []
    monkeypatch.setattr(
        pictures, "save",
        lambda figure, path: labels.extend(text.get_text() for text in figure.axes[0].texts),
    )  # fmt: skip
    pictures.roofline(found, "a CPU", tmp_path / "r.png")
    roofs = [label for label in labels if not label.startswith("reading")]
    assert len(roofs) == len(shown)
    assert all(label.endswith(end) for label, end in zip(roofs, shown, strict=True)), roofs
    assert "reading memory: 90 GB/s" in labels
    # A CPU whose roofs nobody measures, and one that the list does not know.
    labels.clear()
    found.cases[0].ceilings = {READ_MEMORY: [90e9]}
    pictures.roofline(found, "a CPU", tmp_path / "r.png")
    found.kernels = "none of the list"
    pictures.roofline(found, "a CPU", tmp_path / "r.png")
    assert labels == ["reading memory: 90 GB/s"] * 2
