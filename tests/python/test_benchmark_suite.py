"""The benchmark suite's own logic, at sizes that take no time; no figure here means anything."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import pytfmbs  # noqa: E402

from benchmarks.suite import __main__ as command_line  # noqa: E402
from benchmarks.suite import docs, growth, judge, measure, pictures, tables, worker  # noqa: E402
from benchmarks.suite import results as results_module  # noqa: E402
from benchmarks.suite.ceilings import DOT_PRODUCT, LIBRARY, READ_MEMORY, Ceilings  # noqa: E402
from benchmarks.suite.contestants import CONTESTANTS, ggml, ours, torch_layers  # noqa: E402
from benchmarks.suite.contestants.base import Call, Contestant, Layer, Unavailable, Weights  # noqa: E402
from benchmarks.suite.results import Case, Contest, Measured, Results, Row  # noqa: E402
from benchmarks.suite.shapes import SHAPES_FILE, Shape, parse_shapes, select_shapes  # noqa: E402

INT8, TRIT = ours.Int8.name, ours.Trit.name


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


FP32 = torch_layers.Fp32.name

# --- shapes --------------------------------------------------------------------------------------


def test_shapes_are_parsed_with_their_labels() -> None:
    text = "# a comment\n\n60 784  # digits, hidden\n10 60\n"
    assert parse_shapes(text) == [Shape(60, 784, "digits, hidden"), Shape(10, 60)]
    assert parse_shapes(text)[0].name == "784→60"


@pytest.mark.parametrize("line", ["60", "60 784 3", "sixty 784", "0 784", "60 -1"])
def test_a_bad_shape_names_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"my\.txt:2: .*" + line):
        parse_shapes(f"10 60\n{line}\n", "my.txt")


def test_the_suites_shapes_hold_those_that_it_is_held_to() -> None:
    shapes = {(s.depth, s.outputs) for s in parse_shapes(SHAPES_FILE.read_text(encoding="utf-8"))}
    assert shapes >= {
        (784, 60), (60, 10), (2560, 6912), (6912, 2560), (4096, 4096), (4096, 11008),
    }  # fmt: skip


def test_shapes_are_selected_by_size_part_and_file(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("7 9 # mine\n", encoding="utf-8")
    found = select_shapes(["784x60", "2560→6912", "12x34", str(mine), "digits"])
    names = [shape.name for shape in found]
    assert names == ["784→60", "2560→6912", "12→34", "9→7", "60→10"]  # none twice
    assert found[0].label  # the file's own line
    with pytest.raises(ValueError, match="no shape matches 'unheard of'"):
        select_shapes(["unheard of"])


# --- timing --------------------------------------------------------------------------------------

EFFORT = measure.Effort(rounds=6, least_rounds=2, budget=0.02, block=1e-4)


def test_contestants_take_turns_and_slow_ones_sit_rounds_out() -> None:
    calls: list[str] = []
    entered: list[str] = []
    quick = measure.Timed("quick", lambda: calls.append("quick"), 1, lambda: entered.append("q"))
    slow = measure.Timed("slow", lambda: (calls.append("slow"), time.sleep(0.03)), 1)
    rounds: list[int] = []
    found = measure.run_rounds(
        [quick, slow], EFFORT, lambda: {"peak": 2.0}, advance=lambda: rounds.append(1)
    )
    assert quick.rounds == list(range(6))
    assert slow.rounds == [0, 3]  # spread over the run, not its beginning
    assert len(quick.seconds) == 6
    assert min(slow.seconds) >= 0.03
    assert found == {"peak": [2.0] * 6}
    assert len(entered) == 7  # to warm up, and before each block
    assert len(rounds) == 6


def test_quartiles() -> None:
    assert measure.quartiles([3.0]) == (3.0, 3.0, 3.0)
    assert measure.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


def test_calls_go_round() -> None:
    call = worker.in_turn([lambda: "a", lambda: "b"])
    assert [call() for _ in range(5)] == ["a", "b", "a", "b", "a"]


# --- contestants ---------------------------------------------------------------------------------

KERNELS = pytfmbs.active_kernels()


def job(**changes: object) -> worker.Job:
    options: dict[str, object] = {
        "kernels": KERNELS, "best": True, "threads": 1, "shapes": [Shape(12, 40)],
        "batches": [3], "cold_batches": [1], "states": ["hot"], "products": ["int8", "ternary"],
        "peers": ["torch"], "quick": True,
    }  # fmt: skip
    return worker.Job(**{**options, **changes})  # type: ignore[arg-type]


# A shape that some peers do not take, and one that all do.
ODD, EVERYBODYS = (12, 40), (64, 512)


@pytest.mark.parametrize("kind", CONTESTANTS, ids=lambda kind: kind.name)
@pytest.mark.parametrize(("outputs", "depth"), [ODD, EVERYBODYS])
def test_a_contestant_computes_the_product(
    kind: type[Contestant], outputs: int, depth: int
) -> None:
    try:
        contestant = kind(1, KERNELS)
    except (Unavailable, ImportError) as reason:
        assert not kind.ours
        pytest.skip(str(reason))
    weights = Weights.random(outputs, depth)
    if (outputs, depth) == ODD and kind in (ggml.Tq1, ggml.Tq2):
        with pytest.raises(Unavailable, match="needs depths in multiples of 256"):
            contestant.build(weights)
        return
    layer = contestant.build(weights)
    with torch.inference_mode():
        for rows in (1, 70):
            x = torch.randn(rows, depth, generator=torch.Generator().manual_seed(rows))
            contestant.enter()
            check = contestant.check(layer.bind(x), x, weights)
            assert check["ok"], (rows, check)
    assert 0 < layer.weight_bytes <= 4 * 64 * 512
    pytfmbs.Fabric().telemetry = True


class Wrong(torch_layers.Fp32):
    """Leaves the last output out."""

    name = "wrong"

    def build(self, weights: Weights) -> Layer:
        trits = weights.trits.copy()
        trits[-1] = 0
        return super().build(Weights(trits))


def test_a_wrong_product_is_noticed_and_no_peer_of_ours() -> None:
    weights, x = Weights.random(12, 40), torch.randn(3, 40)
    contestants = {"wrong": Wrong(1, KERNELS), FP32: torch_layers.Fp32(1, KERNELS)}
    built = {name: worker.Copies(c, weights, False) for name, c in contestants.items()}
    case = Case(12, 40, "", 3, "hot")
    found = worker.measure_case(built, {"gone": "why"}, case, job(), None)
    assert not found.rows["wrong"].check["ok"]
    assert not found.rows["wrong"].valid
    assert found.rows[FP32].valid
    assert found.speed_ratio(FP32, "wrong") is None
    assert found.rows["gone"].unavailable == "why"
    assert x.shape == (3, 40)


def test_cold_weights_are_more_than_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "last_level_cache", lambda: 10_000)
    weights = Weights.random(12, 40)
    copies = worker.Copies(torch_layers.Fp32(1, KERNELS), weights, cold=True)
    size = copies.layers[0].weight_bytes
    assert size == 4 * 12 * 40
    assert size * len(copies.layers) >= 40_000
    places = {layer.module.weight.data_ptr() for layer in copies.layers}  # type: ignore[attr-defined]
    assert len(places) == len(copies.layers)


class Denser(Layer):
    """Takes a fifth less where it is one of many."""

    weight_bytes = 1000

    def settle(self) -> None:
        self.weight_bytes = 800

    def bind(self, x: torch.Tensor) -> Call:
        return lambda: x


def test_layers_that_settle_on_less_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "last_level_cache", lambda: 10_000)
    contestant = torch_layers.Fp32(1, KERNELS)
    monkeypatch.setattr(contestant, "build", lambda weights: Denser())
    copies = worker.Copies(contestant, Weights.random(2, 2), cold=True)
    assert {layer.weight_bytes for layer in copies.layers} == {800}
    assert sum(layer.weight_bytes for layer in copies.layers) >= 40_000
    assert len(worker.Copies(contestant, Weights.random(2, 2), cold=False).layers) == 1


def test_who_is_absent_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ggml, "FOLDER", tmp_path)
    present, known = worker.gather(job(peers=["ggml", "fp32"]))
    assert list(present) == [INT8, ours.Int8Telemetry.name, TRIT, ours.TritTelemetry.name, FP32]
    assert "missing" in known["ggml TQ2_0"]["unavailable"] or KERNELS == "portable"
    assert not known[FP32]["unavailable"]
    contest = Contest(KERNELS, True, 1, {}, known, [Case(12, 40, "", 1, "hot")])
    assert "absent: ggml TQ2_0: " in tables.absent(contest, contest.cases[0])


def test_telemetry_is_on_where_the_name_says_so() -> None:
    fabric = pytfmbs.Fabric()
    try:
        for kind in (ours.Int8, ours.Int8Telemetry, ours.Trit, ours.TritTelemetry):
            contestant = kind(1, KERNELS)
            contestant.enter()
            assert fabric.telemetry == ("telemetry" in kind.name)
    finally:
        fabric.telemetry = True


def test_cases_are_hot_before_cold_and_small_layers_never_cold() -> None:
    plan = job(batches=[1, 8], states=["cold", "hot"])
    assert plan.cases(Shape(64, 2560)) == [("hot", 1), ("hot", 8), ("cold", 1)]
    assert plan.cases(Shape(64, 784)) == [("hot", 1), ("hot", 8)]


@pytest.mark.skipif(not LIBRARY.exists(), reason="tfmbs_ceilings is not built")
def test_ceilings_are_rates_of_this_machine() -> None:
    found = Ceilings(1, KERNELS, seconds=1e-4).measure()
    assert found[READ_MEMORY] > 1e8
    assert all(value >= 0 for value in found.values())


# --- figures and bars ----------------------------------------------------------------------------


def row(seconds: list[float], **changes: object) -> Row:
    fields: dict[str, object] = {
        "rounds": list(range(len(seconds))), "seconds": seconds, "check": {"ok": True},
        "weight_bytes": 2560 * 100 // 5,
    }  # fmt: skip
    return Row(**{**fields, **changes})  # type: ignore[arg-type]


def contest(depth: int = 2560, batch: int = 1, state: str = "hot", best: bool = True) -> Contest:
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
    return Contest("avx512" if best else "avx2", best, 1, {}, known, [case])


MACHINE = {"cpu": "a CPU", "cores": 2, "caches": {"L3": 32 << 20}, "versions": {"torch": "2"}}


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
    forced = list(judge.judge(results(contest(best=False))))
    assert {verdict.bar.line for verdict in forced} == {5}


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


def test_growth_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "ROWS_SHAPE", (16, 64))
    effort = measure.Effort(rounds=2, least_rounds=2, budget=0.01, block=1e-5)
    with torch.inference_mode():
        weights = growth.of_weights([(64, 32), (32, 32)], [1], False, effort, lambda: None)
        rows = growth.of_rows([2, 4], [1], effort, lambda: None)
    pytfmbs.Fabric().telemetry = True
    assert [(p["product"], p["count"], p["threads"]) for p in weights] == [
        (INT8, 2048, 1), (TRIT, 2048, 1), (INT8, 1024, 1), (TRIT, 1024, 1),
    ]  # fmt: skip
    assert [p["count"] for p in rows] == [2, 4, 2, 4]
    assert all(0 < p["low"] <= p["seconds"] <= p["high"] for p in weights + rows)


# --- JSON, tables, pictures, page ----------------------------------------------------------------


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    written = results(contest(), contest(best=False))
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
        ('{"schema": 999}', "schema 999; this program reads 1 and 2"),
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
    assert "growth measured at an unknown time, with torch 2" in found.provenance


def test_tables_show_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(contest())
    out = tables.console(150)
    tables.show_cases(found, out)
    out.print(tables.verdict_table(judge.judge(found), every=False))
    out.print(tables.growth_table(judge.judge_growth(GROWTH)))
    text = capsys.readouterr().out
    for part in (INT8, "quick int8", "wrong product", "1.60 ms", "30.0×", "not met", "met 1/1"):
        assert part in text


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
        "bench-roofline.png", "bench-bars.png", "bench-growth.png",
    }  # fmt: skip
    page = tmp_path / "performance.md"
    monkeypatch.setattr(docs, "PAGE", page)
    page.write_text(f"# Before\n\n{docs.BEGIN}\nold\n{docs.END}\n\n# After\n", encoding="utf-8")
    docs.write(found)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Before\n")
    assert text.endswith("\n\n# After\n")
    assert "old" not in text
    assert "Medians; contests measured 2026-05-01 09:00 UTC, with torch 2.\n" in text
    assert "| 2560→100, batch 1 | 1.00 ms | – | 30.0 ms | quick int8: 1.60 ms |" in text
    docs.write(found)
    assert page.read_text(encoding="utf-8") == text


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
        self.path, self.machine = path, MACHINE
        patch.setattr(command_line, "describe", lambda: dict(self.machine))
        patch.setattr(command_line, "kernel_sets", lambda: ("avx512", ["avx512"]))
        patch.setattr(command_line, "run_job", lambda job: contest())
        patch.setattr(growth, "run", lambda threads, quick: GROWTH)

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


def test_a_file_that_nobody_reads_is_written_anew(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.path.write_text('{"schema": 999}', encoding="utf-8")
    assert commands("growth").growth == GROWTH
    assert "nothing is kept of what was there: " in capsys.readouterr().out


def test_weights_are_trits_and_the_same_every_time() -> None:
    weights = Weights.random(50, 40)
    assert set(np.unique(weights.trits)) == {-1, 0, 1}
    assert np.array_equal(weights.trits, Weights.random(50, 40).trits)
