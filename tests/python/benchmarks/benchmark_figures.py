"""Figures of benchmarks that nobody measured, for tests of what becomes of them."""

from __future__ import annotations

from benchmarks.suite import judge
from benchmarks.suite.ceilings import READ_MEMORY
from benchmarks.suite.contestants import ours, torch_layers
from benchmarks.suite.results import Case, Contest, Measured, Results, Row
from benchmarks.suite.variants import VARIANTS

INT8, TRIT, FP32 = ours.Int8.name, ours.Trit.name, torch_layers.Fp32.name


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
    """Ours takes 1 ms, the fastest baseline 1.6, a wrong peer nothing, fp32 30."""
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
    case.ceilings = {
        VARIANTS[kernels].peaks["int8"].name: [products / 0.8e-3] * 4,
        READ_MEMORY: [2560 * 20 / 0.9e-3] * 4,
    }
    return Contest(kernels, best, 1, {}, known, [case])


MACHINE = {"cpu": "a CPU", "cores": 2, "caches": {"L3": 32 << 20}, "versions": {"torch": "2"},
           "kernels": "avx512"}  # fmt: skip


def package(revision: str | None, version: str = "0.1") -> list[dict[str, str | None]]:
    """As a machine's description has it."""
    return [{"version": version, "revision": revision}]


def measured(hour: int, **machine: object) -> Measured:
    return Measured(f"2026-05-01T{hour:02}:00:30+00:00", {**MACHINE, **machine})


def results(*contests: Contest, hour: int = 9, **machine: object) -> Results:
    return Results({"contests": measured(hour, **machine)}, list(contests))


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
