"""One process of a run: one kernel set, one number of threads."""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .ceilings import COLD_FACTOR, Ceilings
from .contestants import CONTESTANTS
from .contestants.base import Call, Contestant, Layer, Unavailable, Weights
from .contestants.ours import choose_storage
from .machine import HELD_TO, last_level_cache, version
from .measure import FULL, QUICK, Effort, Timed, run_rounds
from .results import Case, Contest, Row
from .shapes import Shape

# Where contestants of hundreds of milliseconds a call take part.
SLOW_SHAPE, SLOW_BATCHES = (4096, 4096), (1, 512)
COLD_DEPTH = 2560  # smaller layers live in a cache
SEED = 2026
SETTLE_SECONDS = 3.0  # the longest that one contestant's cold layers are waited for


@dataclass(frozen=True)
class Job:
    kernels: str
    best: bool
    threads: int
    shapes: Sequence[Shape]
    batches: Sequence[int]
    cold_batches: Sequence[int]
    states: Sequence[str]
    products: Sequence[str]
    peers: Sequence[str] | None  # parts of names; None: all
    slow_everywhere: bool = False
    quick: bool = False

    @property
    def effort(self) -> Effort:
        return QUICK if self.quick else FULL

    def rounds_of_all(self) -> int:
        return self.effort.rounds * sum(len(list(self.cases(shape))) for shape in self.shapes)

    def cases(self, shape: Shape) -> list[tuple[str, int]]:
        """Hot ones first: the cold ones' many layers would change what a layer gets by itself."""
        found = [("hot", batch) for batch in self.batches if "hot" in self.states]
        if "cold" in self.states and shape.depth >= COLD_DEPTH:
            found += [("cold", batch) for batch in self.cold_batches]
        return found


def wanted(kind: type[Contestant], job: Job) -> bool:
    if kind.ours:
        return kind.activation in job.products
    return job.peers is None or any(part.lower() in kind.name.lower() for part in job.peers)


def gather(job: Job) -> tuple[dict[str, Contestant], dict[str, dict[str, Any]]]:
    """The contestants that take part, and what is known of all that were asked for."""
    present: dict[str, Contestant] = {}
    known: dict[str, dict[str, Any]] = {}
    for kind in CONTESTANTS:
        if not wanted(kind, job):
            continue
        entry = {
            "ours": kind.ours,
            "activation": kind.activation,
            "package": kind.package,
            "version": version(kind.package),
            "unavailable": "",
        }
        known[kind.name] = entry
        try:
            present[kind.name] = kind(job.threads, job.kernels, held=not job.best)
        except (Unavailable, ImportError, OSError, AttributeError) as error:
            if kind.ours:
                raise
            entry["unavailable"] = str(error).splitlines()[0] or type(error).__name__
    return present, known


def in_turn(calls: Sequence[Call]) -> Call:
    """Goes round the calls, one a call."""
    if len(calls) == 1:
        return calls[0]
    turn = itertools.cycle(calls).__next__
    return lambda: turn()()


def settle_memory(calls: Sequence[Call]) -> None:
    """Goes round the calls until three rounds in a row took the shortest time but for 5 %: for
    seconds after many layers were made, the kernel still joins their pages to huge ones, and reads
    wait for it."""
    least, steady, until = 0.0, 0, time.perf_counter() + SETTLE_SECONDS
    while steady < 3 and time.perf_counter() < until:
        start = time.perf_counter()
        for call in calls:
            call()
        seconds = time.perf_counter() - start
        steady = steady + 1 if abs(seconds - least) <= 0.05 * least else 0
        least = seconds if least == 0.0 else min(least, seconds)


class Copies:
    """A contestant's layers of one shape: one, or as many as do not fit the cache."""

    def __init__(self, contestant: Contestant, weights: Weights, cold: bool) -> None:
        weights = replace(weights, cold=cold)
        self.contestant, self.weights = contestant, weights
        least = COLD_FACTOR * last_level_cache() if cold else 0
        contestant.enter()
        self.layers: list[Layer] = [contestant.build(weights)]
        # Many layers may settle on a denser layout than one has, and then take more of them.
        while (more := 1 + least // self.layers[0].weight_bytes - len(self.layers)) > 0:
            self.layers += [contestant.build(weights) for _ in range(more)]
            for layer in self.layers:
                layer.settle()

    def timed(self, x: torch.Tensor, threads: int) -> tuple[Timed, Row]:
        calls = [layer.bind(x) for layer in self.layers]
        self.contestant.enter()
        if len(calls) > 1:
            settle_memory(calls)
        row = Row(
            weight_bytes=self.layers[0].weight_bytes,
            layout=self.layers[0].layout,
            copies=len(calls),
            check=self.contestant.check(calls[-1], x, self.weights),
        )
        name, enter = self.contestant.name, self.contestant.enter
        block = self.contestant.timed_block(self.layers, x)
        return Timed(name, in_turn(calls), threads, enter, block), row


def build_all(
    contestants: dict[str, Contestant], weights: Weights, shape: Shape, state: str, job: Job
) -> tuple[dict[str, Copies], dict[str, str]]:
    """Those that can do the shape, and why the others cannot."""
    choose_storage(weights, cold=state == "cold")
    built: dict[str, Copies] = {}
    absent: dict[str, str] = {}
    for name, contestant in contestants.items():
        if state == "cold" and contestant.hot_only:
            absent[name] = "measured with hot weights"
            continue
        if contestant.slow and not job.slow_everywhere:
            if not job.best or job.quick or state == "cold":
                absent[name] = (
                    "too slow for --quick, cold weights and forced kernels, but with --slow-peers"
                )
                continue
            if (shape.depth, shape.outputs) != SLOW_SHAPE:
                absent[name] = "too slow: measured at 4096→4096 only, or with --slow-peers"
                continue
        try:
            built[name] = Copies(contestant, weights, state == "cold")
        except Unavailable as reason:
            absent[name] = str(reason)
    return built, absent


def measure_case(
    built: dict[str, Copies],
    absent: dict[str, str],
    case: Case,
    job: Job,
    ceilings: Ceilings | None,
    advance: Callable[[], None] = lambda: None,
) -> Case:
    """The case with its rows."""
    x = torch.randn(case.batch, case.depth, generator=torch.Generator().manual_seed(SEED))
    rows = {name: Row(unavailable=reason) for name, reason in absent.items()}
    entrants: list[Timed] = []
    for name, copies in built.items():
        slow = copies.contestant.slow and not job.slow_everywhere
        if slow and case.batch not in SLOW_BATCHES:
            rows[name] = Row(unavailable="too slow: not measured at this batch")
            continue
        timed, rows[name] = copies.timed(x, job.threads)
        entrants.append(timed)
    found = run_rounds(entrants, job.effort, ceilings.measure if ceilings else None, SEED, advance)
    for timed in entrants:
        row = rows[timed.name]
        row.rounds, row.seconds = timed.rounds, timed.seconds
    return replace(case, ceilings=found, rows=rows)


def run(job: Job) -> Contest:
    torch.set_num_threads(job.threads)
    held = {name: os.environ[name] for name in HELD_TO.get(job.kernels, {}) if name in os.environ}
    contestants, known = gather(job)
    contest = Contest(job.kernels, job.best, job.threads, held, known, cold_factor=COLD_FACTOR)
    ceilings = Ceilings(job.threads, job.kernels)
    columns = (
        TextColumn("{task.description:<52}"), BarColumn(24), MofNCompleteColumn(),
        TimeElapsedColumn(),
    )  # fmt: skip
    with (
        torch.inference_mode(),
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        task = progress.add_task("", total=job.rounds_of_all())
        for shape in job.shapes:
            weights = Weights.random(shape.outputs, shape.depth)
            for state, group in itertools.groupby(job.cases(shape), key=lambda case: case[0]):
                place = f"{job.kernels}, {job.threads} thr., {shape.name}, {state}"
                progress.update(task, description=f"{place}: preparing")
                built, absent = build_all(contestants, weights, shape, state, job)
                for _, batch in group:
                    progress.update(task, description=f"{place}, batch {batch}")
                    case = Case(shape.outputs, shape.depth, shape.label, batch, state)
                    contest.cases.append(
                        measure_case(
                            built, absent, case, job, ceilings, lambda: progress.advance(task)
                        )
                    )
                del built
                gc.collect()
            del weights
            gc.collect()
    return contest
