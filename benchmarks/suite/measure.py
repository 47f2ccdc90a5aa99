"""Timing: contestants take turns in rounds, so that a drift of the machine meets all of them.

A round times each contestant once, in a random order, as a block of calls with torch's Timer (or by
the contestant itself, where the calls are not Python's), and measures the ceilings. So round r of
one contestant stands beside round r of another, and ratios are taken within rounds.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.benchmark import Timer

SLOW = 20e-3  # seconds a call, from which a block is one warm-up and one call
ONE_ROUND = 1.5  # seconds a call, from which one round must do
REST = 0.3  # seconds, the longest that threads are waited for
WAKE = 1e-3  # seconds of calls, in which a contestant's own threads wake


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _warm_up(number: int) -> int:
    """Calls before so many that are timed: those of Timer.timeit."""
    return max(2, number // 100)


def rest() -> None:
    """Waits until the threads that the last contestant left spinning sleep, which the processor time
    of this process tells: libgomp's spin for some 10 ms after a call, ONNX Runtime's for 60 ms."""
    until, window, busy = time.perf_counter() + REST, 2e-3, 0.1
    while time.perf_counter() < until:
        start, used = time.perf_counter(), time.process_time()
        time.sleep(window)
        if time.process_time() - used < busy * (time.perf_counter() - start):
            return


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Effort:
    """rounds: at most; budget: seconds that a contestant may take for them at one case, beyond
    which it sits rounds out, but for least_rounds; block: seconds of calls a round."""

    rounds: int
    least_rounds: int
    budget: float
    block: float


FULL = Effort(rounds=12, least_rounds=3, budget=0.3, block=2e-3)
QUICK = Effort(rounds=5, least_rounds=2, budget=0.05, block=1e-3)


@dataclass
class Timed:
    """call: what is timed; enter: run before each block; threads: torch's, for this contestant;
    block: what times so many calls itself, in seconds, instead of a loop in Python."""

    name: str
    call: Callable[[], Any]
    threads: int
    enter: Callable[[], None] = lambda: None
    block: Callable[[int], float] | None = None
    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # a call's, of each of `rounds`

    def __post_init__(self) -> None:
        self._timer = Timer("call()", globals={"call": self.call}, num_threads=self.threads)

    def prepare(self, effort: Effort) -> None:
        """Settles how many calls a block has, and which rounds it takes part in."""
        self.enter()
        with torch_threads(self.threads):
            once = min(_seconds(self.call) for _ in range(2))
        if once < SLOW:
            once = self._time(max(1, int(effort.block / 4 / max(once, 1e-9))))
        self._slow = once >= SLOW
        self._number = max(1, int(effort.block / max(once, 1e-9)))
        warm_up = 1 if self._slow else _warm_up(self._number)  # blocked_autorange has one
        cost = once * (self._number + warm_up)
        least = 1 if once >= ONE_ROUND else effort.least_rounds
        rounds = min(effort.rounds, max(least, int(effort.budget / cost)))
        self._takes_part = {i * effort.rounds // rounds for i in range(rounds)}

    def _time(self, number: int) -> float:
        """Seconds a call, of so many after a warm-up."""
        if self.block is not None:
            with torch_threads(self.threads):
                self.block(_warm_up(number))
                return self.block(number) / number
        return self._timer.timeit(number).median

    def _time_slow(self) -> float:
        return self._timer.blocked_autorange(min_run_time=1e-6).median

    def wake(self) -> None:
        """Calls until its threads surely run: a first call may do without those that wake."""
        until = time.perf_counter() + WAKE
        with torch_threads(self.threads):
            while time.perf_counter() < until:
                self.call()

    def take_turn(self, number: int, after_rest: bool = False) -> None:
        """after_rest: no thread may spin at its beginning."""
        if number not in self._takes_part:
            return
        self.enter()
        if after_rest:
            rest()
            if not self._slow:
                self.wake()
        self.rounds.append(number)
        self.seconds.append(self._time_slow() if self._slow else self._time(self._number))


def run_rounds(
    contestants: list[Timed],
    effort: Effort,
    ceilings: Callable[[], dict[str, float]] | None = None,
    seed: int = 0,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Fills in the contestants' rounds; returns the ceilings of each. `advance` is called once a
    round."""
    order = random.Random(seed)
    threaded = any(timed.threads > 1 for timed in contestants)  # one leaves threads spinning
    found: dict[str, list[float]] = {}
    for timed in contestants:
        if threaded:
            rest()
        timed.prepare(effort)
    for number in range(effort.rounds):
        if ceilings is not None:
            if threaded:
                rest()
            for name, value in ceilings().items():
                found.setdefault(name, []).append(value)
        for timed in order.sample(contestants, len(contestants)):
            timed.take_turn(number, after_rest=threaded)
        advance()
    return found


def quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
