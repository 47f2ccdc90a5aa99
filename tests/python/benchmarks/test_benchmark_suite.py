"""What the benchmark suite measures, and how, at sizes that take no time; no figure here means
anything."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import pytfmbs
import torch

from benchmarks.suite import growth, measure, tables, worker
from benchmarks.suite.ceilings import COLD_FACTOR, LIBRARY, READ_MEMORY, Ceilings
from benchmarks.suite.contestants import (
    CONTESTANTS,
    from_cpp,
    ggml,
    onnx_runtime,
    ours,
    torch_layers,
)
from benchmarks.suite.contestants.base import Call, Contestant, Layer, Unavailable, Weights
from benchmarks.suite.results import Case, Contest
from benchmarks.suite.shapes import SHAPES_FILE, Shape, parse_shapes, select_shapes
from benchmarks.suite.variants import VARIANTS

INT8, TRIT, FP32 = ours.Int8.name, ours.Trit.name, torch_layers.Fp32.name
needs_libraries = pytest.mark.skipif(
    not (LIBRARY.exists() and from_cpp.LIBRARY.exists()),
    reason="tfmbs_ceilings or tfmbs_forwards is not built",
)
pytestmark = pytest.mark.usefixtures("one_thread")


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


def marks_of(kind: type[Contestant]) -> tuple[pytest.MarkDecorator, ...]:
    return (needs_libraries,) if issubclass(kind, from_cpp.FromCpp) else ()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=marks_of(kind), id=kind.name) for kind in CONTESTANTS]
)
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


@needs_libraries
def test_blocks_from_cpp_take_layers_in_turn() -> None:
    contestant = from_cpp.Int8Cpp(1, KERNELS)
    made = [Weights.random(12, 40, seed) for seed in range(3)]
    layers = [contestant.build(weights) for weights in made]
    x = torch.randn(2, 40)
    output = torch.empty(2, 12)
    contestant.enter()
    timed = from_cpp.forwards(contestant.library, layers, x, output)  # type: ignore[arg-type]
    for calls, last in ((1, 0), (2, 2), (3, 2), (4, 0), (302, 2)):
        assert timed(calls) > 0
        wanted = contestant.reference(x.numpy().astype(np.float64), made[last].trits)
        assert np.allclose(output.numpy(), wanted, rtol=1e-5)
    block = contestant.timed_block(layers, x)
    entrant = measure.Timed("cpp", layers[0].bind(x), 1, block=block)
    entrant.prepare(measure.QUICK)
    entrant.take_turn(0)
    assert len(entrant.seconds) == 1
    assert entrant.seconds[0] > 0


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
    assert size * len(copies.layers) >= COLD_FACTOR * 10_000
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
    assert sum(layer.weight_bytes for layer in copies.layers) >= COLD_FACTOR * 10_000
    assert len(worker.Copies(contestant, Weights.random(2, 2), cold=False).layers) == 1


@needs_libraries
def test_who_is_absent_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ggml, "FOLDER", tmp_path)
    present, known = worker.gather(job(peers=["ggml", "fp32"]))
    assert list(present) == [
        INT8, ours.Int8Telemetry.name, from_cpp.Int8Cpp.name,
        TRIT, ours.TritTelemetry.name, from_cpp.TritCpp.name, FP32,
    ]  # fmt: skip
    assert "missing" in known["ggml TQ2_0"]["unavailable"] or KERNELS == "portable"
    assert not known[FP32]["unavailable"]
    contest = Contest(KERNELS, True, 1, {}, known, [Case(12, 40, "", 1, "hot")])
    assert "absent: ggml TQ2_0: " in tables.absent(contest, contest.cases[0])


class Unholdable(torch_layers.Fp32):
    """Chooses its instructions by the CPU alone."""

    name = "unholdable"
    holdable = ()


@pytest.mark.parametrize("kernels", ["avx2", "neon"])
def test_who_cannot_be_held_to_a_set_competes_where_it_is_the_cpus_own(
    monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    monkeypatch.setattr(worker, "CONTESTANTS", (Unholdable,))
    for best, reason in ((True, ""), (False, f"cannot be held to {kernels}")):
        present, known = worker.gather(job(kernels=kernels, best=best, peers=None))
        assert bool(present) == best
        assert known["unholdable"]["unavailable"] == reason
    assert not onnx_runtime.OnnxRuntime.holdable


def test_peers_are_held_where_the_cpu_has_more_and_only_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builds: list[str] = []
    monkeypatch.setattr(ggml, "load", lambda build: builds.append(build) or (None, None))
    monkeypatch.setattr(torch.backends.quantized, "engine", torch.backends.quantized.engine)
    before = torch.backends.quantized.engine
    ggml.Tq2(1, "avx2")
    torch_layers.DynamicInt8(1, "avx2")
    assert (builds, torch.backends.quantized.engine) == (["native"], before)
    if "onednn" not in torch.backends.quantized.supported_engines:
        pytest.skip("this torch has no oneDNN quantized engine")
    ggml.Tq2(1, "avx2", held=True)
    torch_layers.DynamicInt8(1, "avx2", held=True)
    assert (builds, torch.backends.quantized.engine) == (["native", "avx2"], "onednn")


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


@needs_libraries
def test_ceilings_are_rates_of_this_machine() -> None:
    found = Ceilings(1, KERNELS, seconds=1e-4).measure()
    # A machine with other work may stop the measurement of 0.1 ms for as long as it likes.
    assert found[READ_MEMORY] > 0
    # What the variant in use can run has a peak.
    for peak in VARIANTS[KERNELS].own_peaks.values():
        assert found[peak.name] > 0
    assert all(value >= 0 for value in found.values())


def test_weights_are_trits_and_the_same_every_time() -> None:
    weights = Weights.random(50, 40)
    assert set(np.unique(weights.trits)) == {-1, 0, 1}
    assert np.array_equal(weights.trits, Weights.random(50, 40).trits)


@needs_libraries
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
