"""The JSON: what it holds, and reading it back. `SCHEMA` changes when a reader would have to."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .machine import differences

SCHEMA = 3
# The parts of the results, each measured by a command of its own: fields of Results.
CONTESTS, GROWTH = "contests", "growth"


@dataclass
class Row:
    """One contestant at one case. seconds: a call's, of each of its rounds."""

    rounds: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    weight_bytes: int = 0
    layout: str = ""
    copies: int = 1  # of the weights, gone round
    check: dict[str, Any] = field(default_factory=dict)
    unavailable: str = ""

    @property
    def valid(self) -> bool:
        return bool(self.seconds) and bool(self.check.get("ok", False))

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Case:
    """A shape at a batch and a state, `hot` or `cold`; `rows` by contestant, `ceilings` by round."""

    outputs: int
    depth: int
    label: str
    batch: int
    state: str
    ceilings: dict[str, list[float]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)

    @property
    def shape(self) -> str:
        return f"{self.depth}→{self.outputs}"

    @property
    def products(self) -> int:
        return self.batch * self.outputs * self.depth

    def ceiling(self, name: str) -> float:
        """The median; 0 where it was not measured."""
        values = self.ceilings.get(name)
        return statistics.median(values) if values else 0.0

    def speed_ratio(self, name: str, other: str) -> float | None:
        """How many times as fast as `other` `name` is: the median over the rounds of both."""
        mine, theirs = self.rows.get(name), self.rows.get(other)
        if mine is None or theirs is None or not mine.valid or not theirs.valid:
            return None
        return _over_rounds(
            dict(zip(theirs.rounds, theirs.seconds, strict=True)),
            dict(zip(mine.rounds, mine.seconds, strict=True)),
        )

    def fastest(self, names: Iterable[str], of: str) -> tuple[str, float] | None:
        """The one of `names` over which `of`'s speed ratio is least, and that ratio; None where no
        two valid rows can be compared."""
        ratios = [
            (name, ratio) for name in names if (ratio := self.speed_ratio(of, name)) is not None
        ]
        return min(ratios, key=lambda found: found[1], default=None)

    def share_of(self, ceiling: str, name: str, amount: float) -> float | None:
        """`amount` (products or bytes of a call) a second over the ceiling of the same round."""
        row, limit = self.rows.get(name), self.ceilings.get(ceiling)
        if row is None or not row.valid or not limit or min(limit) <= 0:
            return None
        rates = {r: amount / s for r, s in zip(row.rounds, row.seconds, strict=True)}
        return _over_rounds(rates, dict(enumerate(limit)))


def _over_rounds(over: dict[int, float], under: dict[int, float]) -> float:
    """The median of the ratios of common rounds; where there are few, the ratio of medians."""
    common = over.keys() & under.keys()
    if len(common) >= 3:
        return statistics.median(over[r] / under[r] for r in common)
    return statistics.median(over.values()) / statistics.median(under.values())


@dataclass
class Contest:
    """What one process measured: one kernel set, one number of threads. contestants: what is known
    of each, by name."""

    kernels: str
    best: bool  # the kernel set is the one that this CPU gets by itself
    threads: int
    held_to: dict[str, str]
    contestants: dict[str, dict[str, Any]]
    cases: list[Case] = field(default_factory=list)
    cold_factor: int = 4  # cold layers are together so many times the last-level cache

    def peers(self, activation: str | None = None) -> Iterator[str]:
        for name, known in self.contestants.items():
            if not known["ours"] and activation in (None, known["activation"]):
                yield name


@dataclass
class Measured:
    """Where a part comes from. when: it began, UTC, as ISO 8601 has it; empty where nobody knows."""

    when: str
    machine: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def __str__(self) -> str:
        when = f"{self.when[:16].replace('T', ' ')} UTC" if self.when else "at an unknown time"
        quick = ", --quick" if self.options.get("quick") else ""
        of = f", of {self.package}" if self.package else ""
        return f"{when}{quick}{of}, with torch {self.machine['versions']['torch']}"

    @property
    def package(self) -> str:
        """Which pytfmbs was measured; empty in older files, which do not say."""
        found = (
            known["version"] + (f" ({known['revision']})" if known["revision"] else "")
            for known in self.machine.get("pytfmbs", ())
        )
        return " and ".join(f"pytfmbs {text}" for text in found)


@dataclass
class Results:
    """measured: of each part that is there. All are of one machine."""

    measured: dict[str, Measured]
    contests: list[Contest] = field(default_factory=list)
    growth: dict[str, Any] | None = None
    schema: int = SCHEMA

    @property
    def machine(self) -> dict[str, Any]:
        """With the versions that the contests had, where there are contests."""
        return (self.measured.get(CONTESTS) or self.measured[GROWTH]).machine

    @property
    def kernels(self) -> str:
        """The set that the machine gets by itself."""
        return str(self.machine["kernels"])

    @property
    def provenance(self) -> str:
        return "; ".join(f"{part} measured {found}" for part, found in self.measured.items())

    @property
    def mixture(self) -> str:
        """Which part is of which pytfmbs, in words; empty where all are of one."""
        found = {part: known.package for part, known in self.measured.items()}
        several = any(len(known.machine.get("pytfmbs", ())) > 1 for known in self.measured.values())
        if not several and len(set(found.values())) <= 1:
            return ""
        parts = (f"{part} of {text or 'an unknown pytfmbs'}" for part, text in found.items())
        return f"figures of different revisions: {', '.join(parts)}"

    def keep(self, older: Results) -> list[str]:
        """Takes over the parts that were not measured now, of the same machine. Returns what it
        drops and why, a line each."""
        dropped = []
        for part, found in older.measured.items():
            if part in self.measured:
                continue
            if other := differences(found.machine, self.machine):
                dropped.append(f"{part} of another machine dropped, measured {found} ({other})")
                continue
            self.measured[part] = found
            setattr(self, part, getattr(older, part))
        return dropped

    def write(self, path: Path) -> None:
        text = json.dumps(_short(asdict(self)), ensure_ascii=False, separators=(",", ":"))
        path.write_text(text.replace('{"outputs"', '\n{"outputs"') + "\n", encoding="utf-8")


def _short(value: Any) -> Any:
    """Floats to five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_short(item) for item in value]
    return value


def contest_from(data: dict[str, Any]) -> Contest:
    cases = [
        Case(**{**case, "rows": {name: Row(**row) for name, row in case["rows"].items()}})
        for case in data["cases"]
    ]
    return Contest(**{**data, "cases": cases})


def read(path: Path) -> Results:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    found = data.get("schema") if isinstance(data, dict) else None
    if found not in range(1, SCHEMA + 1):
        raise ValueError(f"{path} has schema {found!r}; this program reads 1 to {SCHEMA}")
    try:
        if found == 1:
            data = _from_schema_1(data)
        if found in (1, 2):
            data = _from_schema_2(data)
        measured = {part: Measured(**known) for part, known in data["measured"].items()}
        contests = [contest_from(contest) for contest in data["contests"]]
        results = Results(**{**data, "measured": measured, "contests": contests})
        there = {CONTESTS: bool(results.contests), GROWTH: bool(results.growth)}
        if {part for part, is_there in there.items() if is_there} != measured.keys():
            raise KeyError("measured")
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not hold the suite's results: {error!r}") from None
    if not measured:
        raise ValueError(f"{path} holds no results")
    return results


def _from_schema_1(data: dict[str, Any]) -> dict[str, Any]:
    """Which had one machine for both parts, and did not say when."""
    machine, contests, growth = data["machine"], data["contests"], data["growth"]
    known = {"when": "", "machine": machine}
    measured: dict[str, Any] = {}
    if contests:
        measured[CONTESTS] = {**known, "options": data["options"], "seconds": data["seconds"]}
    if growth:
        measured[GROWTH] = known
    return {"measured": measured, "contests": contests, "growth": growth}


def _from_schema_2(data: dict[str, Any]) -> dict[str, Any]:
    """Whose machines did not say which kernel set they get: figures of it do, where there are any."""
    best = [contest["kernels"] for contest in data["contests"] if contest["best"]]
    growth = [data["growth"]["kernels"]] if data["growth"] else []
    own = {CONTESTS: best, GROWTH: growth}
    measured = {}
    for part, known in data["measured"].items():
        if not own[part]:
            raise ValueError("an older file of forced kernel sets alone says not whose it is")
        measured[part] = {**known, "machine": {**known["machine"], "kernels": own[part][0]}}
    return {**data, "measured": measured, "schema": SCHEMA}


def _packages(measured: Iterable[Measured]) -> list[dict[str, Any]]:
    """Every pytfmbs of them, once; an unknown one too, beside known ones."""
    unknown: list[dict[str, Any]] = [{"version": "of an unknown version", "revision": None}]
    each = [known.machine.get("pytfmbs", unknown) for known in measured]
    if all(packages == unknown for packages in each):
        return []
    found: list[dict[str, Any]] = []
    for packages in each:
        found += [package for package in packages if package not in found]
    return found


def merge(results: Iterable[Results]) -> Results:
    """Contests and growth of several files, of one machine."""
    first, *others = results
    for other in others:
        if found := differences(first.machine, other.machine):
            raise ValueError(f"results of two machines: {found}")
        factors = {contest.cold_factor for contest in first.contests + other.contests}
        if len(factors) > 1:
            raise ValueError(f"cold layers of {sorted(factors)} times the cache are not compared")
        first.contests += other.contests
        first.growth = other.growth or first.growth
        both = [r.measured[CONTESTS] for r in (first, other) if CONTESTS in r.measured]
        first.measured |= other.measured
        if both:
            quick = any(found.options.get("quick") for found in both)
            machine = dict(both[-1].machine)
            if packages := _packages(both):
                machine["pytfmbs"] = packages
            first.measured[CONTESTS] = replace(
                both[-1],
                machine=machine,
                when=min(found.when for found in both),
                options={**both[-1].options, "quick": quick},
                seconds=sum(found.seconds for found in both),
            )
    return first
