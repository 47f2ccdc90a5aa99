"""The ratios that the project holds itself to, from a run's figures.

Each bar is one line of BARS. A bar is judged at every kernel set, shape, batch and number of threads
that it is about, and met where all of them are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from .ceilings import READ_MEMORY
from .contestants.from_cpp import Int8Cpp, TritCpp
from .contestants.ours import Int8, Int8Telemetry, Trit, TritTelemetry
from .results import Case, Contest, Results
from .variants import VARIANTS, held_to
from .worker import COLD_DEPTH

FP32 = "torch fp32"


@dataclass(frozen=True)
class Found:
    """value: the figure; against: whom or what it is a ratio to."""

    value: float
    against: str


Figure = Callable[[Contest, Case, str], Found | None]


def over_peers(activation: str | None = None) -> Figure:
    """Times as fast as the fastest baseline whose product was right."""

    def figure(contest: Contest, case: Case, name: str) -> Found | None:
        fastest = case.fastest(contest.peers(activation), name)
        return None if fastest is None else Found(fastest[1], fastest[0])

    return figure


def over(other: str) -> Figure:
    def figure(_: Contest, case: Case, name: str) -> Found | None:
        ratio = case.speed_ratio(name, other)
        return None if ratio is None else Found(ratio, other)

    return figure


def of_dot_product_peak(contest: Contest, case: Case, name: str) -> Found | None:
    peak = VARIANTS[contest.kernels].peaks["int8"].name
    share = case.share_of(peak, name, case.products)
    return None if share is None else Found(share, peak)


def of_read_bandwidth(_: Contest, case: Case, name: str) -> Found | None:
    row = case.rows.get(name)
    share = case.share_of(READ_MEMORY, name, row.weight_bytes) if row else None
    return None if share is None else Found(share, READ_MEMORY)


def bits_a_weight(_: Contest, case: Case, name: str) -> Found | None:
    row = case.rows.get(name)
    if row is None or not row.weight_bytes:
        return None
    return Found(8 * row.weight_bytes / (case.outputs * case.depth), row.layout or "packed weights")


class Group(Enum):
    """What a bar is about, as tables name it."""

    ROW_HOT = "one row, hot"
    ROW_COLD = "one row, cold"
    ROWS = "many rows"
    TRIT = "ternary × ternary"
    AVX2 = "AVX2"
    CALLS = "calls"
    TELEMETRY = "telemetry"
    GROWTH = "growth"  # judge_growth()'s; no Bar's


@dataclass(frozen=True)
class Bar:
    """batches: None is all; least or most: what the figure is held to; sets: kernel sets that it is
    about, None is all, where they are the CPU's own; forced: where they are forced on a CPU that has
    a better one too; every_shape: small layers too."""

    group: Group
    text: str
    name: str
    batches: tuple[int, ...] | None
    state: str
    figure: Figure
    least: float | None = None
    most: float | None = None
    sets: frozenset[str] | None = None
    forced: bool = False
    every_shape: bool = False
    unit: str = "×"

    def is_about(self, contest: Contest) -> bool:
        own = self.sets is None or contest.kernels in self.sets
        return own and (contest.best or self.forced)

    def met(self, value: float) -> bool:
        above = self.least is None or value >= self.least
        return above and (self.most is None or value <= self.most)

    @property
    def aim(self) -> str:
        if self.most is not None:
            return f"≤ {self.show(self.most)}"
        return f"≥ {self.show(self.least or 0.0)}"

    def show(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.0f} %"
        return f"{value:.2f}{self.unit}"


INT8, TRIT = Int8.name, Trit.name
INT8_CPP, TRIT_CPP = Int8Cpp.name, TritCpp.name
# Multiples of the vpdpbusd peak, and of peers beside it, are aims of AVX-512 VNNI; packed weights
# are read at 75 % of the bandwidth where there is no VBMI to decode them. Which variant is held to
# which is in the list of variants ("targets").
AVX512, AVX2, WITHOUT_VBMI = held_to("avx512"), held_to("avx2"), held_to("without_vbmi")
BARS = (
    Bar(Group.ROW_HOT, "int8 × ternary, fastest baseline", INT8, (1,), "hot", over_peers(), 1.5,
        sets=AVX512),
    Bar(Group.ROW_HOT, "int8 × ternary, torch fp32", INT8, (1,), "hot", over(FP32), 25, sets=AVX512),
    Bar(Group.ROW_HOT, "int8 × ternary from C++, vpdpbusd peak", INT8_CPP, (1,), "hot",
        of_dot_product_peak, 0.75, sets=AVX512, unit="%"),
    Bar(Group.ROW_HOT, "int8 × ternary, vpdpbusd peak", INT8, (1,), "hot", of_dot_product_peak, 0.75,
        sets=AVX512, unit="%"),
    Bar(Group.ROW_COLD, "int8 × ternary from C++, read bandwidth", INT8_CPP, (1,), "cold",
        of_read_bandwidth, 0.85, sets=AVX512, unit="%"),
    Bar(Group.ROW_COLD, "int8 × ternary, read bandwidth", INT8, (1,), "cold", of_read_bandwidth, 0.85,
        sets=AVX512, unit="%"),
    Bar(Group.ROW_COLD, "int8 × ternary from C++, read bandwidth", INT8_CPP, (1,), "cold",
        of_read_bandwidth, 0.75, sets=WITHOUT_VBMI, unit="%"),
    Bar(Group.ROW_COLD, "int8 × ternary, read bandwidth", INT8, (1,), "cold", of_read_bandwidth, 0.75,
        sets=WITHOUT_VBMI, unit="%"),
    Bar(Group.ROW_COLD, "int8 × ternary, bits per weight", INT8, (1,), "cold", bits_a_weight, most=1.65,
        unit=" bits"),
    Bar(Group.ROW_COLD, "int8 × ternary, fastest baseline", INT8, (1,), "cold", over_peers(), 1.2),
    Bar(Group.ROWS, "int8 × ternary, fastest baseline", INT8, (8, 64, 512), "hot", over_peers(), 0.97),
    Bar(Group.ROWS, "int8 × ternary from C++, vpdpbusd peak", INT8_CPP, (512,), "hot",
        of_dot_product_peak, 0.88, sets=AVX512, unit="%"),
    Bar(Group.ROWS, "int8 × ternary, vpdpbusd peak", INT8, (512,), "hot", of_dot_product_peak, 0.88,
        sets=AVX512, unit="%"),
    Bar(Group.ROWS, "int8 × ternary, torch fp32", INT8, (512,), "hot", over(FP32), 4.5, sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary from C++, vpdpbusd peak", TRIT_CPP, (512,), "hot",
        of_dot_product_peak, 2.0, sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, vpdpbusd peak", TRIT, (512,), "hot", of_dot_product_peak, 2.0,
        sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, fastest int8 baseline", TRIT, (512,), "hot", over_peers("int8"), 2.3,
        sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, torch fp32", TRIT, (512,), "hot", over(FP32), 10, sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary from C++, vpdpbusd peak", TRIT_CPP, (64,), "hot",
        of_dot_product_peak, 1.8, sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, vpdpbusd peak", TRIT, (64,), "hot", of_dot_product_peak, 1.8,
        sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, fastest int8 baseline", TRIT, (64,), "hot", over_peers("int8"), 2.0,
        sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, torch fp32", TRIT, (64,), "hot", over(FP32), 8, sets=AVX512),
    Bar(Group.TRIT, "ternary × ternary, int8 × ternary", TRIT, (1,), "hot", over(INT8), 1.0),
    Bar(Group.AVX2, "int8 × ternary, fastest AVX2 baseline", INT8, (1,), "hot", over_peers(), 1.3,
        sets=AVX2, forced=True),
    Bar(Group.AVX2, "int8 × ternary, torch fp32 of AVX2", INT8, (512,), "hot", over(FP32), 2.5,
        sets=AVX2, forced=True),
    Bar(Group.CALLS, "int8 × ternary, nn.Linear fp32", INT8, None, "hot", over(FP32), 1.0,
        every_shape=True),
    Bar(Group.CALLS, "ternary × ternary, nn.Linear fp32", TRIT, None, "hot", over(FP32), 1.0,
        every_shape=True),
    Bar(Group.CALLS, "int8 × ternary with telemetry, nn.Linear fp32", Int8Telemetry.name, None, "hot",
        over(FP32), 1.0, every_shape=True),
    Bar(Group.CALLS, "ternary × ternary with telemetry, nn.Linear fp32", TritTelemetry.name, None, "hot",
        over(FP32), 1.0, every_shape=True),
    Bar(Group.TELEMETRY, "int8 × ternary, telemetry on : off", INT8, (1,), "hot",
        over(Int8Telemetry.name), most=1.15),
    Bar(Group.TELEMETRY, "int8 × ternary, telemetry on : off", INT8, (8, 64, 512), "hot",
        over(Int8Telemetry.name), most=1.10),
    Bar(Group.TELEMETRY, "ternary × ternary, telemetry on : off", TRIT, None, "hot",
        over(TritTelemetry.name), most=1.10),
)  # fmt: skip
# Growth: time per weight or per row, the largest over the smallest; two threads' speed.
WITHIN_LEVEL, SPEED_UP = 1.15, 1.7
# Below, the fixed cost of a call shows beside one row's product; the picture has these points too.
LEAST_WEIGHTS = 8 << 20


@dataclass(frozen=True)
class Verdict:
    bar: Bar
    kernels: str
    threads: int
    shape: str
    batch: int
    found: Found

    @property
    def met(self) -> bool:
        return self.bar.met(self.found.value)


def judge(results: Results) -> Iterator[Verdict]:
    """Every bar at every case that it is about and that was measured."""
    for bar in BARS:
        for contest in results.contests:
            if not bar.is_about(contest):
                continue
            for case in contest.cases:
                if case.state != bar.state or not (bar.every_shape or case.depth >= COLD_DEPTH):
                    continue
                if bar.batches is not None and case.batch not in bar.batches:
                    continue
                found = bar.figure(contest, case, bar.name)
                if found is not None:
                    yield Verdict(
                        bar, contest.kernels, contest.threads, case.shape, case.batch, found
                    )


def left_out(results: Results) -> str:
    """Which bars are not judged because they are about other kernel sets; empty where none is."""
    sets: set[str] = set()
    for bar in BARS:
        if bar.sets is not None and not any(bar.is_about(found) for found in results.contests):
            sets |= bar.sets
    if not sets:
        return ""
    return f"Not checked: targets of CPUs whose own ISA variant is {' or '.join(sorted(sets))}."


@dataclass(frozen=True)
class GrowthVerdict:
    text: str
    value: float
    aim: str
    met: bool


def judge_growth(growth: dict[str, list[dict[str, float | str]]]) -> Iterator[GrowthVerdict]:
    """Spreads of time per weight and per row, by product and threads, and what two threads bring; each
    says over which sizes, for layers of fewer than LEAST_WEIGHTS are in none."""
    for kind, what in (("weights", "time per weight"), ("rows", "time per row")):
        groups: dict[tuple[object, ...], dict[int, float]] = {}
        for point in growth[kind]:
            if kind == "weights" and int(point["count"]) < LEAST_WEIGHTS:
                continue
            key = (point["product"], point["level"], point["threads"])
            count = int(point["count"])
            groups.setdefault(key, {})[count] = float(point["seconds"]) / count
        for (product, level, threads), each in groups.items():
            spread = max(each.values()) / min(each.values())
            counts = (
                f"{min(each):,} to {max(each):,} {kind}"
                if len(each) > 1
                else f"{min(each):,} {kind}"
            )
            yield GrowthVerdict(
                f"{product}, {level}: {what}, {counts}, {threads} thr.", spread,
                f"≤ {WITHIN_LEVEL:.2f}×", spread <= WITHIN_LEVEL,
            )  # fmt: skip
    times: dict[tuple[str, str, int], dict[int, float]] = {}
    for kind in ("weights", "rows"):
        for point in growth[kind]:
            small = kind == "weights" and int(point["count"]) < LEAST_WEIGHTS
            if point["bound"] == "compute" and not small:
                pair = (str(point["product"]), kind, int(point["count"]))
                times.setdefault(pair, {})[int(point["threads"])] = float(point["seconds"])
    for (product, what, count), by_threads in times.items():
        if {1, 2} <= by_threads.keys():
            ratio = by_threads[1] / by_threads[2]
            yield GrowthVerdict(
                f"{product}, {count:,} {what}: two threads", ratio,
                f"≥ {SPEED_UP:.1f}×", ratio >= SPEED_UP,
            )  # fmt: skip
