"""What the benchmark suite's processes, threads, layers and blocks are told; no figure here means
anything."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch

from benchmarks.suite import __main__ as commands
from benchmarks.suite import ceilings, growth, libraries, measure, worker
from benchmarks.suite.contestants import from_cpp, ggml, onnx_runtime, ours, torch_layers
from benchmarks.suite.contestants.base import SAMPLED, Call, Layer, Weights, spread
from benchmarks.suite.machine import HELD_TO
from benchmarks.suite.results import Case, Contest, Row
from benchmarks.suite.shapes import Shape
from benchmarks.suite.variants import VARIANTS

KERNELS = pytfmbs.active_kernels()
EFFORT = measure.Effort(rounds=2, least_rounds=2, budget=0.01, block=1e-4)
pytestmark = pytest.mark.usefixtures("one_thread")


def job(**changes: object) -> worker.Job:
    options: dict[str, object] = {
        "kernels": KERNELS, "best": True, "threads": 1, "shapes": [Shape(12, 40)],
        "batches": [3], "cold_batches": [1], "states": ["hot"], "products": ["int8"],
        "peers": ["fp32"], "quick": True,
    }  # fmt: skip
    return worker.Job(**{**options, **changes})  # type: ignore[arg-type]


# --- blocks --------------------------------------------------------------------------------------


def test_a_contestants_own_block_warms_up_and_is_divided_by_its_calls() -> None:
    blocks: list[tuple[int, int]] = []

    def block(calls: int) -> float:
        blocks.append((calls, torch.get_num_threads()))
        return calls * 3.0

    timed = measure.Timed("own", lambda: None, 2, block=block)
    assert timed._time(400) == 3.0
    assert blocks == [(4, 2), (400, 2)]
    assert torch.get_num_threads() == 1


def test_every_call_is_on_the_contestants_threads() -> None:
    threads: set[int] = set()
    timed = measure.Timed("two", lambda: threads.add(torch.get_num_threads()), 2)
    measure.run_rounds([timed], EFFORT)
    assert threads == {2}
    assert torch.get_num_threads() == 1


def test_a_contestant_enters_before_anything_of_it_is_called() -> None:
    seen: list[str] = []
    timed = measure.Timed("x", lambda: seen.append("call"), 1, lambda: seen.append("enter"))
    timed.prepare(EFFORT)
    assert seen[:2] == ["enter", "call"]
    seen.clear()
    timed.take_turn(0)
    assert seen[:2] == ["enter", "call"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threaded_blocks_begin_rested_and_awake(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(measure, "rest", lambda: seen.append("rest"))
    monkeypatch.setattr(measure.Timed, "wake", lambda self: seen.append(f"wake {self.name}"))
    one = measure.Timed("one", lambda: None, 1)
    other = measure.Timed("other", lambda: None, threads)
    measure.run_rounds([one, other], EFFORT, lambda: seen.append("ceilings") or {})
    if threads == 1:
        assert seen == ["ceilings"] * 2
        return
    turn = seen[2:]  # two are prepared
    assert seen[:2] == ["rest"] * 2
    for at in (0, 6):
        assert turn[at : at + 3] == ["rest", "ceilings", "rest"]
        assert turn[at + 4] == "rest"
        assert {turn[at + 3], turn[at + 5]} == {"wake one", "wake other"}


def test_slow_calls_are_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[int] = []
    monkeypatch.setattr(measure, "SLOW", 0.0)
    monkeypatch.setattr(measure.Timed, "wake", lambda self: woken.append(1))
    measure.run_rounds([measure.Timed("slow", lambda: None, 2)], EFFORT)
    assert not woken


def test_waking_takes_calls_of_a_while() -> None:
    calls: list[float] = []
    measure.Timed("x", lambda: calls.append(time.perf_counter()), 1).wake()
    assert len(calls) > 1


def test_a_rest_ends_when_no_thread_of_the_process_works(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0, "used": 0.0}
    awake = 0.03  # seconds that a thread spins

    def sleep(seconds: float) -> None:
        clock["used"] += max(0.0, min(seconds, awake - clock["now"]))
        clock["now"] += seconds

    fake = SimpleNamespace(
        perf_counter=lambda: clock["now"], process_time=lambda: clock["used"], sleep=sleep
    )
    monkeypatch.setattr(measure, "time", fake)
    measure.rest()
    assert awake <= clock["now"] < awake + 0.01
    awake = 1e9
    measure.rest()
    assert measure.REST < clock["now"] < measure.REST + 0.1


# --- cases ---------------------------------------------------------------------------------------


class Counting(Layer):
    """Answers with its number, and keeps who was called."""

    weight_bytes = 100

    def __init__(self, number: int, called: list[int]) -> None:
        self.number, self.called = number, called

    def bind(self, x: torch.Tensor) -> Call:
        return lambda: self.called.append(self.number) or self.number


class Numbered(torch_layers.Fp32):
    """With a block of its own, of which it keeps the layers."""

    def __init__(self) -> None:
        super().__init__(1, KERNELS)
        self.called: list[int] = []
        self.made = 0
        self.block_of: Sequence[Layer] = ()

    def build(self, weights: Weights) -> Layer:
        self.made += 1
        return Counting(self.made - 1, self.called)

    def timed_block(self, layers: Sequence[Layer], x: torch.Tensor) -> Callable[[int], float]:
        self.block_of = list(layers)
        return lambda calls: 1.0

    def check(self, call: Call, x: torch.Tensor, weights: Weights) -> dict[str, Any]:
        return {"ok": True}


def test_cold_layers_are_settled_and_all_of_them_timed_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settled: list[int] = []
    monkeypatch.setattr(worker, "settle_memory", lambda calls: settled.append(len(calls)))
    monkeypatch.setattr(worker, "last_level_cache", lambda: 30)
    contestant = Numbered()
    copies = worker.Copies(contestant, Weights.random(2, 2), cold=True)
    count = len(copies.layers)
    assert count == 1 + worker.COLD_FACTOR * 30 // 100
    timed, row = copies.timed(torch.zeros(1, 2), 1)
    assert settled == [count]
    assert contestant.block_of == copies.layers
    assert [timed.call() for _ in range(2 * count)] == 2 * list(range(count))
    assert row.copies == count
    worker.Copies(contestant, Weights.random(2, 2), cold=False).timed(torch.zeros(1, 2), 1)
    assert settled == [count]  # one layer needs none


def test_settling_calls_every_layer() -> None:
    called: list[int] = []
    worker.settle_memory([Counting(i, called).bind(torch.zeros(1)) for i in range(3)])
    assert called[:6] == [0, 1, 2, 0, 1, 2]


def test_a_contestant_of_hot_weights_is_not_built_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[bool] = []
    monkeypatch.setattr(worker, "choose_storage", lambda weights, cold: chosen.append(cold))
    monkeypatch.setattr(worker, "Copies", lambda contestant, weights, cold: (contestant, cold))
    shape, weights = Shape(12, 40), Weights.random(12, 40)
    contestant = ours.Int8Telemetry(1, KERNELS)
    assert contestant.hot_only
    entrants = {"telemetry": contestant}
    built, absent = worker.build_all(entrants, weights, shape, "cold", job())
    assert (built, absent) == ({}, {"telemetry": "measured with hot weights"})
    built, absent = worker.build_all(entrants, weights, shape, "hot", job())
    assert (built, absent) == ({"telemetry": (contestant, False)}, {})
    assert chosen == [True, False]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_is_run_on_its_threads(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    found: list[tuple[str, int]] = []

    class Ceilings:
        def __init__(self, threads: int, kernels: str) -> None:
            found.append(("ceilings", threads))

    def case_of(built: Any, absent: Any, case: Case, *others: Any) -> Case:
        found.append(("torch", torch.get_num_threads()))
        return case

    monkeypatch.setattr(worker, "Ceilings", Ceilings)
    monkeypatch.setattr(worker, "measure_case", case_of)
    torch.set_num_threads(3 - threads)
    contest = worker.run(job(threads=threads, products=[]))
    assert found == [("ceilings", threads), ("torch", threads)]
    assert contest.threads == threads


def test_the_layout_is_that_of_one_layer_or_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(pytfmbs, "set_weight_storage", chosen.append)
    monkeypatch.setattr(ours, "last_level_cache", lambda: 1000)
    small, large = Weights.random(40, 50), Weights.random(40, 51)  # 500 bytes of two bits, and 510
    for weights, cold in ((small, False), (small, True), (large, False), (large, True)):
        ours.choose_storage(weights, cold=cold)
    assert chosen == ["cached", "auto", "auto", "auto"]


# --- the weights of cold layers ------------------------------------------------------------------


def places(weights: torch.Tensor) -> list[int]:
    """As spread_sample in cpp/runtime/src/layer.cpp has them."""
    return [(weights.numel() - 1) * i // (SAMPLED - 1) for i in range(SAMPLED)]


@pytest.mark.parametrize("inference", [False, True])
def test_cold_weights_are_equal_and_apart(inference: bool) -> None:
    hot = Weights.random(70, 2560)
    assert hot.kept_floats() is hot.floats()
    cold = Weights(hot.trits, cold=True)
    with torch.inference_mode(inference):
        one, other = cold.kept_floats(), cold.kept_floats()
    assert torch.equal(one, hot.floats())
    assert torch.equal(other, one)
    assert one.data_ptr() != other.data_ptr()
    before = other.clone()
    one.numpy()[:] = 5  # which a map that is shared would show
    assert torch.equal(other, before)
    assert torch.equal(cold.kept_floats(), before)


def private_bytes(address: int) -> int:
    """Of the map that begins there: pages that no other map has, and no file."""
    found, ours_now = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="ascii").splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            ours_now = first.startswith(f"{address:x}-")
        elif ours_now and first == "Anonymous:":
            found = 1024 * int(line.split()[1])
    return found


def test_the_pages_that_a_forward_samples_are_a_cold_layers_own() -> None:
    page = 4096
    weights = Weights(Weights.random(70, 2560).trits, cold=True)
    kept = [weights.kept_floats() for _ in range(3)]
    pages = {4 * place // page for place in places(kept[0])}
    assert len(pages) == SAMPLED
    for tensor in kept:
        assert float(tensor.sum()) == weights.trits.sum()  # every page is looked at
        assert private_bytes(tensor.data_ptr()) == page * len(pages)


KINDS = (
    ours.Int8,
    pytest.param(
        from_cpp.TritCpp,
        marks=pytest.mark.skipif(
            not from_cpp.LIBRARY.exists(), reason="tfmbs_forwards is not built"
        ),
    ),
)


@pytest.mark.parametrize("kind", KINDS)
def test_cold_layers_of_ours_keep_weights_apart_and_hot_ones_the_same(
    monkeypatch: pytest.MonkeyPatch, kind: type[ours.Ours]
) -> None:
    monkeypatch.setattr(worker, "last_level_cache", lambda: 10_000)
    weights = Weights.random(20, 2560)

    def addresses(copies: worker.Copies) -> list[int]:
        layers: Sequence[Any] = copies.layers
        cpp = issubclass(kind, from_cpp.FromCpp)
        return [(x.weights if cpp else x.layer.weight).data_ptr() for x in layers]

    copies = worker.Copies(kind(1, KERNELS), weights, cold=True)
    found = addresses(copies)
    assert len(set(found)) == len(found) >= 2
    assert weights.floats().data_ptr() not in found
    _, row = copies.timed(torch.randn(2, 2560), 1)
    assert row.check["ok"]
    hot = [worker.Copies(kind(1, KERNELS), weights, cold=False) for _ in range(2)]
    assert addresses(hot[0]) == addresses(hot[1]) == [weights.floats().data_ptr()]


# --- what is checked -----------------------------------------------------------------------------


def test_indices_are_spread_from_the_first_to_the_last() -> None:
    assert spread(1, 8).tolist() == [0]
    assert spread(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert spread(512, 8).tolist() == [0, 73, 146, 219, 292, 365, 438, 511]


@pytest.mark.parametrize("row", [0, 219, 511])
def test_a_wrong_row_is_noticed(row: int) -> None:
    weights, x = Weights.random(12, 40), torch.randn(512, 40)
    contestant = torch_layers.Fp32(1, KERNELS)
    call = contestant.build(weights).bind(x)
    assert contestant.check(call, x, weights)["ok"]
    output = call().clone()
    output[row] += 1
    assert not contestant.check(lambda: output, x, weights)["ok"]


# --- processes and threads -----------------------------------------------------------------------


@pytest.mark.parametrize(("best", "held"), [(True, {}), (False, HELD_TO["avx2"])])
def test_a_process_is_held_to_its_kernels_and_threads(
    monkeypatch: pytest.MonkeyPatch, best: bool, held: dict[str, str]
) -> None:
    found: dict[str, str] = {}

    def run(command: list[str], env: dict[str, str], **others: object) -> None:
        found.update(env)
        contest = dataclasses.asdict(Contest("avx2", best, 2, {}, {}, []))
        Path(command[-1]).write_text(json.dumps(contest), encoding="utf-8")

    for name in HELD_TO["avx2"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(subprocess, "run", run)
    contest = commands.run_job({"kernels": "avx2", "best": best, "threads": 2})
    assert contest.threads == 2
    assert found["TFMBS_KERNEL"] == "avx2"
    assert (found["OMP_NUM_THREADS"], found["MKL_NUM_THREADS"]) == ("2", "2")
    assert {name: found[name] for name in HELD_TO["avx2"] if name in found} == held


class FakeLibrary:
    """Every function of it answers with what `answers` has, or 0, and keeps its arguments."""

    def __init__(self, **answers: Any) -> None:
        self._answers, self.calls = answers, []

    def __getattr__(self, name: str) -> Any:
        def function(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            return self._answers.get(name, 0)

        self.__dict__[name] = function
        return function


def test_ggml_plans_for_the_contestants_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = np.zeros(1 << 16, np.uint8)
    base = FakeLibrary(ggml_init=1, ggml_get_data=memory.ctypes.data, ggml_nbytes=64)
    cpu = FakeLibrary(ggml_graph_plan=ggml.Plan(work_size=8))
    monkeypatch.setattr(ggml, "load", lambda build: (base, cpu))
    layer = ggml.Tq2(3, KERNELS).build(Weights.random(4, 256))
    layer.bind(torch.zeros(2, 256))()
    threads = [arguments[1] for name, arguments in cpu.calls if name == "ggml_graph_plan"]
    assert threads == [3]
    assert cpu.calls[-1][0] == "ggml_graph_compute"


def test_onnx_runtimes_sessions_share_one_pool_of_the_contestants_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pools: list[tuple[int, int]] = []
    monkeypatch.setattr(onnx_runtime, "_pools", [])
    monkeypatch.setattr(runtime, "set_global_thread_pool_sizes", lambda *n: pools.append(n))
    for kind in (onnx_runtime.DynamicInt8, onnx_runtime.TwoBits):
        assert not kind(3, KERNELS).session_options.use_per_session_threads
    assert pools == [(3, 1)]
    with pytest.raises(RuntimeError, match="has 3 threads already, not 2"):
        onnx_runtime.TwoBits(2, KERNELS)
    alone = onnx_runtime.TwoBits(1, KERNELS).session_options
    assert alone.use_per_session_threads
    assert alone.intra_op_num_threads == 1


def test_ceilings_are_of_the_threads_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, int]] = []
    asked: list[bytes] = []

    class Peaks:
        def __call__(self, name: bytes) -> int | None:
            asked.append(name)
            return None if name == b"fp32/avx512" else 1

    class Rate:
        def __init__(self, name: str, place: int) -> None:
            self.name, self.place = name, place

        def __call__(self, *arguments: Any) -> float:
            found.append((self.name, arguments[self.place]))
            return 1.0

    library = SimpleNamespace(
        tfmbs_peak=Peaks(), tfmbs_rate=Rate("products", 1), tfmbs_read_rate=Rate("read", 2)
    )
    monkeypatch.setattr(libraries, "load", lambda *names: library)
    monkeypatch.setattr(ceilings, "last_level_cache", lambda: 1 << 20)
    measured = ceilings.Ceilings(2, "avx512").measure()
    assert set(found) == {("products", 2), ("read", 2)}
    # Of the variant and its parents, as far as the library has them.
    own = {
        peak.key.encode(): peak.name
        for v in VARIANTS["avx512"].line()
        for peak in v.own_peaks.values()
    }
    assert b"int8/avx2" in own
    assert b"int8/avxvnni" not in own
    assert set(asked) == own.keys()
    peaks = {name for name in measured if not name.startswith("read")}
    assert peaks == set(own.values()) - {own[b"fp32/avx512"]}


def test_growth_beyond_the_cache_is_of_cold_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bool] = []
    chosen: list[bool] = []

    class Copies:
        def __init__(self, contestant: Any, weights: Weights, cold: bool) -> None:
            built.append(cold)

        def timed(self, x: torch.Tensor, threads: int) -> tuple[measure.Timed, Row]:
            return measure.Timed("x", lambda: None, threads), Row()

    monkeypatch.setattr(growth, "Copies", Copies)
    monkeypatch.setattr(growth, "contestants", lambda kinds: [("x", SimpleNamespace(name="x"))])
    monkeypatch.setattr(growth, "choose_storage", lambda weights, cold: chosen.append(cold))
    for cold in (False, True):
        points = growth.of_weights([(4, 8)], [1], cold, EFFORT, lambda: None)
        assert [p["level"] for p in points] == ["memory" if cold else "cache"]
    assert built == chosen == [False, True]
    steps = [step.args for kind, step in growth.steps([1], False) if kind == "weights"]  # type: ignore[attr-defined]
    assert [(shapes, cold) for shapes, _, cold, _ in steps] == [
        (growth.IN_CACHE, False), (growth.BEYOND, True),
    ]  # fmt: skip
