"""What becomes of the benchmark suite's figures: ratios, bars, JSON, tables, pictures, the page and the
command line. No figure here means anything."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from benchmarks.suite import __main__ as command_line
from benchmarks.suite import docs, growth, judge, pictures, tables
from benchmarks.suite import results as results_module
from benchmarks.suite.ceilings import (
    BIT_PLANES,
    DOT_PRODUCT,
    DOT_PRODUCT_AVX2,
    READ_MEMORY,
    TRIT_DOT_PRODUCT_AVX2,
)
from benchmarks.suite.ceilings import FP32 as CEILING_FP32
from benchmarks.suite.contestants import CONTESTANTS, from_cpp, ours, torch_layers
from benchmarks.suite.results import Case, Contest, Measured, Results, Row

INT8, TRIT, FP32 = ours.Int8.name, ours.Trit.name, torch_layers.Fp32.name

# --- figures and bars ----------------------------------------------------------------------------


def row(seconds: list[float], **changes: object) -> Row:
    fields: dict[str, object] = {
        "rounds": list(range(len(seconds))), "seconds": seconds, "check": {"ok": True},
        "weight_bytes": 2560 * 100 // 5,
    }  # fmt: skip
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def contest(
    depth: int = 2560, batch: int = 1, state: str = "hot", kernels: str = "avx512",
    best: bool = True,
) -> Contest:  # fmt: skip
    """Ours takes 1 ms, the fastest peer 1.6, a wrong peer nothing, fp32 30."""
    known = {
        name: {"ours": False, "activation": activation, "unavailable": "", "version": None}
        for name, activation in (("quick int8", "int8"), ("wrong", "int8"), (FP32, "fp32"))
    }
    known[INT8] = {"ours": True, "activation": "int8", "unavailable": "", "version": None}
    case = Case(100, depth, "", batch, state)
    case.rows = {
        INT8: row([1e-3] * 4),
        "quick int8": row([1.6e-3] * 4),
        "wrong": row([1e-6] * 4, check={"ok": False}),
        FP32: row([30e-3] * 4),
    }
    products = batch * depth * 100
    case.ceilings = {DOT_PRODUCT: [products / 0.8e-3] * 4, READ_MEMORY: [2560 * 20 / 0.9e-3] * 4}
    return Contest(kernels, best, 1, {}, known, [case])


MACHINE = {"cpu": "a CPU", "cores": 2, "caches": {"L3": 32 << 20}, "versions": {"torch": "2"},
           "kernels": "avx512"}  # fmt: skip


def measured(hour: int, **machine: object) -> Measured:
    return Measured(f"2026-05-01T{hour:02}:00:30+00:00", {**MACHINE, **machine})


def results(*contests: Contest, hour: int = 9, **machine: object) -> Results:
    return Results({"contests": measured(hour, **machine)}, list(contests))


def test_ratios_are_of_the_same_round() -> None:
    case = Case(10, 10, "", 1, "hot")
    case.rows = {"a": row([1.0, 10.0, 2.0]), "b": row([2.0, 20.0, 4.0])}  # the machine drifted
    assert case.speed_ratio("a", "b") == 2.0
    case.rows["b"] = row([4.0, 4.0], rounds=[0, 2])  # too few in common: of the medians
    assert case.speed_ratio("a", "b") == 2.0
    assert case.speed_ratio("a", "nobody") is None


def test_shares_of_ceilings_are_of_the_same_round() -> None:
    case = Case(10, 10, "", 1, "hot", {"peak": [100.0, 10.0, 50.0], "none": [0.0] * 3})
    case.rows = {"a": row([1.0, 10.0, 2.0])}
    assert case.share_of("peak", "a", 80.0) == pytest.approx(0.8)
    assert case.share_of("none", "a", 80.0) is None
    assert case.share_of("unknown", "a", 80.0) is None


def test_bars_are_judged_against_the_fastest_valid_peer() -> None:
    found = {v.bar.text: v for v in judge.judge(results(contest())) if v.bar.line == 1}
    peer = found["int8 × trit, fastest peer"]
    assert peer.found == judge.Found(pytest.approx(1.6), "quick int8")
    assert peer.met
    assert found["int8 × trit, torch fp32"].found.value == pytest.approx(30)
    assert found["int8 × trit, vpdpbusd peak"].found.value == pytest.approx(0.8)
    slower = contest()
    slower.cases[0].rows[INT8] = row([1.5e-3] * 4)
    assert not any(v.met for v in judge.judge(results(slower)) if v.bar.line == 1)


def test_cold_bars_are_bytes_and_bits() -> None:
    found = {v.bar.text: v for v in judge.judge(results(contest(state="cold")))}
    assert found["int8 × trit, read bandwidth"].found.value == pytest.approx(0.9)
    assert found["int8 × trit, bits a weight"].found.value == pytest.approx(1.6)
    assert all(verdict.bar.line == 2 and verdict.met for verdict in found.values())


def test_small_layers_and_forced_kernels_have_bars_of_their_own() -> None:
    small = list(judge.judge(results(contest(depth=784))))
    assert {verdict.bar.line for verdict in small} == {6}
    forced = list(judge.judge(results(contest(kernels="avx2", best=False))))
    assert {verdict.bar.line for verdict in forced} == {5}
    assert {verdict.kernels for verdict in forced} == {"avx2"}


def everything(kernels: str, best: bool = True) -> Contest:
    """Every case that a bar is about, with everybody that one is of."""
    found = contest(kernels=kernels, best=best)
    found.cases = []
    for state, batches in (("hot", (1, 8, 64, 512)), ("cold", (1,))):
        for batch in batches:
            (case,) = contest(batch=batch, state=state).cases
            case.rows |= {bar.name: row([1e-3] * 4) for bar in judge.BARS}
            found.cases.append(case)
    return found


def bars_of(contest: Contest) -> list[tuple[int, str, str]]:
    return sorted({(v.bar.line, v.bar.text, v.bar.aim) for v in judge.judge(results(contest))})


def test_bars_of_avx512_do_not_bind_a_cpu_with_avx2_only() -> None:
    assert bars_of(everything("avx2")) == [
        (0, "int8 × trit, telemetry on : off", "≤ 1.10×"),
        (0, "int8 × trit, telemetry on : off", "≤ 1.15×"),
        (0, "trit × trit, telemetry on : off", "≤ 1.10×"),
        (2, "int8 × trit from C++, read bandwidth", "≥ 75 %"),
        (2, "int8 × trit, bits a weight", "≤ 1.65 bits"),
        (2, "int8 × trit, fastest peer", "≥ 1.20×"),
        (2, "int8 × trit, read bandwidth", "≥ 75 %"),
        (3, "int8 × trit, fastest peer", "≥ 0.97×"),
        (4, "trit × trit, int8 × trit", "≥ 1.00×"),
        (5, "int8 × trit, fastest AVX2 peer", "≥ 1.30×"),
        (5, "int8 × trit, torch fp32 of AVX2", "≥ 2.50×"),
        (6, "int8 × trit with telemetry, nn.Linear fp32", "≥ 1.00×"),
        (6, "int8 × trit, nn.Linear fp32", "≥ 1.00×"),
        (6, "trit × trit with telemetry, nn.Linear fp32", "≥ 1.00×"),
        (6, "trit × trit, nn.Linear fp32", "≥ 1.00×"),
    ]
    assert {line for line, _, _ in bars_of(everything("avx2", best=False))} == {5}


def test_bars_of_avx2_are_of_no_cpu_with_more_unless_it_is_forced() -> None:
    found = bars_of(everything("avx512"))
    assert {line for line, _, _ in found} == {0, 1, 2, 3, 4, 6}
    assert (2, "int8 × trit, read bandwidth", "≥ 85 %") in found
    assert not [aim for _, text, aim in found if "bandwidth" in text and aim != "≥ 85 %"]
    assert {bar.aim for bar in judge.BARS if bar.line == 1} == {
        aim for line, _, aim in found if line == 1
    }


@pytest.mark.parametrize("kernels", ["avx512", "avx2"])
def test_a_case_is_held_to_one_ratio_to_another_once(kernels: str) -> None:
    found = [
        (v.bar.name, v.found.against, v.bar.state, v.batch)
        for v in judge.judge(results(everything(kernels)))
        if v.bar.line != 6  # which holds every shape to fp32, and others large ones to multiples
    ]
    assert found
    assert len(found) == len(set(found))


def test_bars_that_are_left_out_are_said() -> None:
    avx2, avx512 = contest(kernels="avx2"), contest(kernels="avx512")
    assert judge.left_out(results(avx2)) == "Not judged: bars of a CPU whose own set is avx512."
    assert judge.left_out(results(avx512)) == "Not judged: bars of a CPU whose own set is avx2."
    assert judge.left_out(results(avx2, avx512)) == ""


def test_layers_from_cpp_have_bars_of_the_machines_limits() -> None:
    for state, bar in (("hot", "vpdpbusd peak"), ("cold", "read bandwidth")):
        measured_contest = contest(state=state)
        rows = measured_contest.cases[0].rows
        rows[from_cpp.Int8Cpp.name] = row([0.96e-3] * 4)
        found = {v.bar.text: v.found.value for v in judge.judge(results(measured_contest))}
        assert found[f"int8 × trit from C++, {bar}"] == pytest.approx(
            found[f"int8 × trit, {bar}"] / 0.96
        )


def test_every_bar_is_of_somebody_who_takes_part() -> None:
    assert {bar.name for bar in judge.BARS} <= {kind.name for kind in CONTESTANTS}


def test_every_aim_has_a_bar_and_every_bar_one_limit() -> None:
    assert {bar.line for bar in judge.BARS} == {0, 1, 2, 3, 4, 5, 6}
    assert all((bar.least is None) != (bar.most is None) for bar in judge.BARS)


def point(product: str, count: int, threads: int, seconds: float, level: str) -> dict[str, object]:
    return {"product": product, "level": level, "bound": "compute", "count": count,
            "threads": threads, "seconds": seconds, "low": seconds, "high": seconds}  # fmt: skip


GROWTH = {
    "kernels": "avx512", "cache_bytes": 32 << 20, "beyond_factor": 4,
    "weights": [
        point(INT8, 1 << 20, 1, 1.0, "cache"),  # a call's fixed cost: not judged
        point(INT8, 8 << 20, 1, 1.0, "cache"), point(INT8, 16 << 20, 1, 2.2, "cache"),
        point(INT8, 16 << 20, 2, 1.1, "cache"),
    ],
    "rows": [point(TRIT, 64, 1, 64.0, "4096→4096"), point(TRIT, 128, 1, 160.0, "4096→4096")],
}  # fmt: skip


def test_growth_is_the_spread_and_the_speed_up() -> None:
    found = {verdict.text: verdict for verdict in judge.judge_growth(GROWTH)}
    weights = found[f"{INT8}, cache: time a weight, 1 thr."]
    assert (weights.value, weights.met) == (pytest.approx(1.1), True)
    rows = found[f"{TRIT}, 4096→4096: time a row, 1 thr."]
    assert (rows.value, rows.met) == (pytest.approx(1.25), False)
    assert found[f"{INT8}, 16,777,216 weights: two threads"].value == pytest.approx(2.0)


# --- JSON, tables, pictures, page ----------------------------------------------------------------


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    written = results(contest(), contest(kernels="avx2", best=False))
    written.growth = GROWTH  # type: ignore[assignment]
    written.measured["growth"] = measured(11)
    written.write(tmp_path / "r.json")
    found = results_module.read(tmp_path / "r.json")
    assert found.contests[0].cases[0].rows == written.contests[0].cases[0].rows
    assert found.growth == GROWTH
    assert found.measured == written.measured
    # Floats have five digits, and keep them.
    found.write(tmp_path / "again.json")
    assert results_module.read(tmp_path / "again.json") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "schema None"),
        ('{"schema": 999}', "schema 999; this program reads 1 to 3"),
        ('{"schema": 1}', "does not hold"),
        ('{"schema": 1, "machine": {}, "options": {}, "contests": [{}]}', "does not hold"),
        ('{"schema": 2, "measured": {}, "contests": [], "growth": {"rows": []}}', "does not hold"),
        ('{"schema": 2, "measured": [], "contests": [], "growth": null}', "does not hold"),
        ('{"schema": 2, "measured": {}, "contests": [], "growth": null}', "holds no results"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        results_module.read(path)


def test_results_of_two_machines_do_not_mix() -> None:
    both = results_module.merge([results(contest()), results(contest(), hour=8)])
    assert len(both.contests) == 2
    assert both.provenance == "contests measured 2026-05-01 08:00 UTC, with torch 2"
    with pytest.raises(ValueError, match="two machines: cpu: a CPU, another"):
        results_module.merge([results(contest()), results(contest(), cpu="another")])
    other = dataclasses.replace(contest(), cold_factor=8)
    with pytest.raises(ValueError, match=r"cold layers of \[4, 8\] times the cache"):
        results_module.merge([results(contest()), results(other)])
    quick, full = results(contest()), results(contest())
    quick.measured["contests"].options, quick.measured["contests"].seconds = {"quick": True}, 5.0
    full.measured["contests"].options, full.measured["contests"].seconds = {"quick": False}, 50.0
    merged = results_module.merge([quick, full]).measured["contests"]
    assert merged.options["quick"]
    assert merged.seconds == 55.0


def test_results_of_schema_1_are_read(tmp_path: Path) -> None:
    older = {
        "schema": 1, "machine": MACHINE, "options": {"quick": True}, "seconds": 3.0,
        "contests": [dataclasses.asdict(contest())], "growth": GROWTH,
    }  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(older), encoding="utf-8")
    found = results_module.read(path)
    assert found.measured == {
        "contests": Measured("", MACHINE, {"quick": True}, 3.0), "growth": Measured("", MACHINE),
    }  # fmt: skip
    assert (len(found.contests), found.growth) == (1, GROWTH)
    assert found.schema == 3
    assert "growth measured at an unknown time, with torch 2" in found.provenance


def write_schema_2(path: Path, *contests: Contest) -> None:
    machine = {key: value for key, value in MACHINE.items() if key != "kernels"}
    older = results(*contests)
    older.growth, older.schema = {**GROWTH, "kernels": "portable"}, 2
    older.measured |= {part: Measured("", machine) for part in ("contests", "growth")}
    older.write(path)


def test_results_of_schema_2_have_the_kernel_sets_of_their_figures(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_schema_2(path, contest(kernels="avx2", best=False), contest())
    found = results_module.read(path)
    assert found.kernels == "avx512"
    assert found.measured["growth"].machine["kernels"] == "portable"
    assert found.schema == 3
    write_schema_2(path, contest(kernels="avx2", best=False))
    with pytest.raises(ValueError, match="says not whose it is"):
        results_module.read(path)


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
    assert "Not judged: bars of a CPU whose own set is avx512." in text


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
    page = tmp_path / "performance.md"
    monkeypatch.setattr(docs, "PAGE", page)
    begin, end = docs.marks("avx512")
    page.write_text(f"# Before\n\n{begin}\nold\n{end}\n\n# After\n", encoding="utf-8")
    docs.write(found)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Before\n")
    assert text.endswith("\n\n# After\n")
    assert "old" not in text
    assert "Medians; contests measured 2026-05-01 09:00 UTC, with torch 2.\n" in text
    assert "| 2560→100, batch 1 | 1.00 ms | – | 30.0 ms | quick int8: 1.60 ms |" in text
    assert text.count(".png") == 3
    assert all((tmp_path / name).exists() for name in re.findall(r"images/(\S+\.png)", text))
    docs.write(found)
    assert page.read_text(encoding="utf-8") == text


def test_the_page_has_a_section_for_each_best_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    monkeypatch.setattr(docs, "PAGE", page)
    page.write_text("# Before\n", encoding="utf-8")
    avx512 = results(contest(), contest(kernels="avx2", best=False))
    avx512.growth = GROWTH  # type: ignore[assignment]
    docs.write(avx512)
    first = page.read_text(encoding="utf-8")
    assert first.startswith(
        "# Before\n\n<!-- measured avx512: begin -->\n\n### A CPU with AVX-512 VNNI\n"
    )
    # Without growth, whose picture is not there either.
    avx2 = results(contest(kernels="avx2"), kernels="avx2")
    docs.write(avx2)
    both = page.read_text(encoding="utf-8")
    assert both.startswith(first)
    second = both[len(first) :]
    assert second.startswith("\n<!-- measured avx2: begin -->\n\n### A CPU with AVX2 only\n")
    assert second.endswith("\n<!-- measured avx2: end -->\n")
    assert re.findall(r"images/(\S+)\)", second) == [
        "bench-roofline-avx2.png",
        "bench-bars-avx2.png",
    ]
    # Each is written anew where it is, and the other's bytes stay.
    avx512.contests[0].cases[0].rows[INT8] = row([1.234e-3] * 4)
    docs.write(avx512)
    assert page.read_text(encoding="utf-8").endswith(second)
    assert "| 1.23 ms |" in page.read_text(encoding="utf-8")[: -len(second)]
    # No picture is named that would not be drawn.
    for others in ([], [contest(state="cold")]):
        avx512.contests = others
        docs.write(avx512)
        text = page.read_text(encoding="utf-8").removesuffix(second)
        assert re.findall(r"images/(\S+)\)", text) == ["bench-growth-avx512.png"]
    pictures.draw(avx512, tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["bench-growth-avx512.png"]


def test_a_section_without_its_end_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    monkeypatch.setattr(docs, "PAGE", page)
    page.write_text(f"{docs.marks('avx512')[0]}\nall else\n", encoding="utf-8")
    with pytest.raises(ValueError, match="avx512: begin --> without <!-- measured avx512: end"):
        docs.write(results(contest()))
    assert page.read_text(encoding="utf-8").endswith("all else\n")


def test_the_projects_page_has_both_sections_and_their_pictures() -> None:
    root = Path(docs.__file__).resolve().parents[2]
    text = (root / "docs" / "performance.md").read_text(encoding="utf-8")
    for kernels, heading in docs.HEADINGS.items():
        begin, end = docs.marks(kernels)
        assert (text.count(begin), text.count(end)) == (1, 1)
        section = text[text.index(begin) : text.index(end)]
        assert f"### {heading}\n" in section
        names = re.findall(r"\(images/(\S+)\)", section)
        assert names
        assert all(name.endswith(f"-{kernels}.png") for name in names)
        assert all((root / "docs" / "images" / name).exists() for name in names)


@pytest.mark.parametrize(
    ("ceilings", "shown", "hidden"),
    [
        ((DOT_PRODUCT_AVX2, TRIT_DOT_PRODUCT_AVX2, CEILING_FP32["avx2"]),
         ("(vpmaddubsw, vpmaddwd): 90", "(vpmaddubsw): 90", "fp32 FMA, 256 bits: 90"),
         ("vpdpbusd", "vpopcntq", "512")),
        ((DOT_PRODUCT, BIT_PLANES, DOT_PRODUCT_AVX2, TRIT_DOT_PRODUCT_AVX2, *CEILING_FP32.values()),
         ("(vpdpbusd): 90", "vpopcntq): 90", "fp32 FMA, 512 bits: 90"), ("vpmaddubsw", "256")),
    ],
    ids=["avx2", "avx512"],
)  # fmt: skip
def test_a_roofline_has_the_roofs_of_its_set(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path,
    ceilings: tuple[str, ...], shown: tuple[str, ...], hidden: tuple[str, ...],
) -> None:  # fmt: skip
    found = contest(kernels=request.node.callspec.id)
    found.cases[0].ceilings = {name: [90e9] for name in (*ceilings, READ_MEMORY)}
    labels: list[str] = []
    monkeypatch.setattr(
        pictures, "save",
        lambda figure, path: labels.extend(text.get_text() for text in figure.axes[0].texts),
    )  # fmt: skip
    pictures.roofline(found, "a CPU", tmp_path / "r.png")
    joined = "; ".join(labels)
    assert all(part in joined for part in (*shown, "reading memory: 90 GB/s")), joined
    assert not any(part in joined for part in hidden), joined
    found.cases[0].ceilings = {READ_MEMORY: [90e9]}  # a CPU whose roofs nobody measures
    pictures.roofline(found, "a CPU", tmp_path / "r.png")


# --- command line --------------------------------------------------------------------------------


def jobs(*given: str) -> list[dict[str, object]]:
    arguments = command_line.parser().parse_args(["run", *given])
    return command_line.plan(arguments, "avx512", ["portable", "avx2", "avx512"])


def test_a_run_has_a_process_for_each_kernel_set_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_line.os, "cpu_count", lambda: 2)
    found = [(j["kernels"], j["best"], j["threads"], j["batches"]) for j in jobs()]
    assert found == [
        ("avx512", True, 1, [1, 8, 64, 512]), ("avx512", True, 2, [1, 8, 64, 512]),
        ("avx2", False, 1, [1, 512]), ("avx2", False, 2, [1, 512]),
    ]  # fmt: skip
    assert [j["threads"] for j in jobs("--quick", "--kernel", "avx2")] == [1]
    assert jobs("--batches", "4", "--kernel", "portable")[0]["batches"] == [4]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--kernel", "amx"], "kernel set 'amx': this CPU has portable, avx2, avx512"),
        (["--threads", "0"], "this machine has 1 to"),
        (["--batches", "0"], "at least 1"),
        (["--shapes", "nothing"], "no shape matches 'nothing'"),
    ],
)
def test_bad_options_say_what_is_allowed(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jobs(*given)


class Commands:
    """The command line on a machine that is described here, with figures from here."""

    def __init__(self, patch: pytest.MonkeyPatch, path: Path) -> None:
        self.path, self.machine, self.best = path, MACHINE, "avx512"
        patch.delenv("TFMBS_KERNEL", raising=False)
        patch.setattr(command_line, "describe", lambda best: {**self.machine, "kernels": best})
        patch.setattr(command_line, "kernel_sets", lambda: (self.best, [self.best]))
        patch.setattr(command_line, "run_job", lambda job: contest(kernels=str(job["kernels"])))
        patch.setattr(growth, "run", lambda threads, quick: {**GROWTH, "kernels": self.best})

    def __call__(self, *given: str) -> Results:
        command_line.main([*given, "--json", str(self.path)])
        return results_module.read(self.path)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    return Commands(monkeypatch, tmp_path / "bench.json")


def test_a_command_keeps_what_it_does_not_measure(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    run = commands("run", "--threads", "1")
    assert list(run.measured) == ["contests"]
    grown = commands("growth", "--threads", "1")
    assert grown.contests == run.contests
    assert grown.measured["contests"] == run.measured["contests"]
    assert grown.measured["growth"].options["threads"] == [1]
    # Another torch, on the machine that it was.
    commands.machine = {**MACHINE, "load": [1.5], "versions": {"torch": "3"}}
    capsys.readouterr()
    again = commands("run", "--quick", "--threads", "1")
    assert again.growth == GROWTH
    assert again.measured["growth"] == grown.measured["growth"]
    assert again.measured["contests"].options["quick"]
    assert again.machine["versions"] == {"torch": "3"}
    text = " ".join(capsys.readouterr().out.split())
    assert "Growth (line 8)" in text
    assert "UTC, --quick, with torch 3; growth measured 20" in text


@pytest.mark.parametrize(("first", "second"), [("run", "growth"), ("growth", "run")])
def test_figures_of_another_machine_are_dropped_and_it_is_said(
    commands: Commands, capsys: pytest.CaptureFixture[str], first: str, second: str
) -> None:
    (part,) = commands(first, "--threads", "1").measured
    commands.machine = {**MACHINE, "cores": 4}
    found = commands(second, "--threads", "1")
    assert list(found.measured) == [{"run": "contests", "growth": "growth"}[second]]
    assert bool(found.contests) != bool(found.growth)
    assert found.machine["cores"] == 4
    text = capsys.readouterr().out
    assert f"{part} of another machine dropped, measured 20" in text
    assert "(cores: 2, 4)" in text


@pytest.mark.parametrize(("first", "second"), [("run", "growth"), ("growth", "run")])
def test_a_guest_from_which_instructions_are_hidden_is_another_machine(
    commands: Commands, capsys: pytest.CaptureFixture[str], first: str, second: str
) -> None:
    commands(first, "--threads", "1")
    commands.best = "avx2"
    found = commands(second, "--threads", "1")
    assert found.kernels == "avx2"
    assert len(found.measured) == 1
    assert bool(found.contests) != bool(found.growth)
    assert "(kernels: avx512, avx2)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="two machines: kernels: avx2, avx512"):
        results_module.merge([found, results(contest())])


def test_docs_of_one_set_leave_the_others(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page, pictures_of = tmp_path / "performance.md", tmp_path / "images"
    monkeypatch.setattr(docs, "PAGE", page)
    monkeypatch.setattr(command_line, "PICTURES", pictures_of)
    commands("run", "--threads", "1")
    commands("growth", "--write-docs")
    first = page.read_bytes()
    drawn = {path: path.read_bytes() for path in pictures_of.iterdir()}
    assert len(drawn) == 3
    commands.best = "avx2"
    commands("run", "--threads", "1", "--write-docs")
    assert page.read_bytes().startswith(first)
    assert b"measured avx2: begin" in page.read_bytes()
    assert {path: path.read_bytes() for path in drawn} == drawn
    assert {path.name for path in pictures_of.iterdir()} - {path.name for path in drawn} == {
        "bench-roofline-avx2.png", "bench-bars-avx2.png",
    }  # fmt: skip


def test_growth_is_of_the_best_set_alone(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands("run", "--threads", "1")
    before = commands.path.read_bytes()
    monkeypatch.setenv("TFMBS_KERNEL", "avx2")
    with pytest.raises(ValueError, match="TFMBS_KERNEL=avx2: growth is of avx512"):
        commands("growth")
    assert commands.path.read_bytes() == before
    monkeypatch.setenv("TFMBS_KERNEL", "avx512")
    assert commands("growth").growth == GROWTH


@pytest.mark.parametrize("command", ["run", "growth"])
def test_a_file_that_nobody_reads_is_not_overwritten(
    commands: Commands, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    commands.path.write_text('{"schema": 999}', encoding="utf-8")
    with pytest.raises(ValueError, match="has schema 999"):
        commands(command)
    assert commands.path.read_text(encoding="utf-8") == '{"schema": 999}'
