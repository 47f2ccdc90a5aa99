"""What a function asks of its arguments' sizes. Compiled code checks none: who calls it does.

The attribute ``tfmbs.requires`` of a function holds lines of text. Operands are numbers and names:

    %5 = size 0 1         dimension 1 of argument 0
    %7 = mul %5 60        a size that follows (see _OPERATIONS), within 64 bits
    equal %5 %6 WHY       must be equal
    broadcast %5 %6 WHY   must be equal, or one of them 1
    at_least %7 0 WHY     must not be less
    room %9 WHY           as many bytes must be there: of a tensor that the function makes

WHY, to the end of the line, names the operator that asks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .types import Extent

_LARGEST = 2**63 - 1  # MLIR's index, and a buffer's bytes
_SMALL_ROOM = 2**26  # bytes; such a buffer is not tried out

_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "min": min,
    "max": max,
    "broadcast": lambda a, b: b if a == 1 else a,
}
_RULES: dict[str, tuple[Callable[[int, int], bool], str, str]] = {
    # holds; of a number; of two sizes
    "equal": (lambda a, b: a == b, "it must be {}", "they must be equal"),
    "broadcast": (
        lambda a, b: a == b or 1 in (a, b),
        "it must be 1 or {}",
        "they must be equal, or one of them 1",
    ),
    "at_least": (lambda a, b: a >= b, "it must be at least {}", "it must not be less"),
}
_NUMBER = re.compile(r"-?\d{1,19}")


class Recorder:
    """Collects the requirements of a function while it is written."""

    def __init__(self) -> None:
        self.reason = ""  # the operator that is being written
        self._steps: dict[str, str] = {}
        self._operands: dict[str, tuple[Extent, ...]] = {}
        self._rules: dict[tuple[str, Extent, Extent], str] = {}
        #: Bytes an element of the product of some names, the most that a tensor needs.
        self._rooms: dict[tuple[str, ...], tuple[int, str]] = {}
        self._nonnegative: set[str] = set()

    def size(self, name: str, argument: int, axis: int) -> None:
        """A name for a size of an argument."""
        self._steps[name] = f"size {argument} {axis}"
        self._operands[name] = ()
        self._nonnegative.add(name)

    def step(self, name: str, operation: str, a: Extent, b: Extent) -> None:
        """A name for a size that follows from others."""
        self._steps[name] = f"{operation} {a} {b}"
        self._operands[name] = (a, b)
        enough = {"max": any, "sub": lambda _: False}.get(operation, all)
        if enough((self._is_nonnegative(a), self._is_nonnegative(b))):
            self._nonnegative.add(name)

    def _is_nonnegative(self, extent: Extent) -> bool:
        return extent >= 0 if isinstance(extent, int) else extent in self._nonnegative

    def equal(self, a: Extent, b: Extent) -> None:
        if a != b:
            a, b = (b, a) if isinstance(a, int) else (a, b)
            self._rules.setdefault(("equal", a, b), self.reason)

    def broadcast(self, a: Extent, b: Extent) -> None:
        if a != b and 1 not in (a, b):
            a, b = (b, a) if isinstance(a, int) else (a, b)
            self._rules.setdefault(("broadcast", a, b), self.reason)

    def at_least(self, a: Extent, least: int) -> None:
        known = a >= least if isinstance(a, int) else least <= 0 and self._is_nonnegative(a)
        if not known:
            self._rules.setdefault(("at_least", a, least), self.reason)

    def room(self, unit: int, names: tuple[str, ...]) -> None:
        """A tensor of unit bytes times the product of the names."""
        if unit > self._rooms.get(names, (0, ""))[0] and (names or unit > _SMALL_ROOM):
            self._rooms[names] = (unit, self.reason)

    def lines(self) -> list[str]:
        """The attribute's text: the requirements, and before them what they name."""
        wanted = [extent for rule in self._rules for extent in rule[1:]]
        products, rules = [], []
        for number, (names, (unit, reason)) in enumerate(self._rooms.items()):
            wanted += names
            total: Extent = unit
            for place, name in enumerate(names):
                product = f"%room{number}.{place}"
                products.append(f"{product} = mul {total} {name}")
                total = product
            rules.append(f"room {total} {reason}")
        needed: set[str] = set()
        while wanted:
            extent = wanted.pop()
            if isinstance(extent, str) and extent not in needed:
                needed.add(extent)
                wanted += self._operands[extent]
        steps = [f"{name} = {text}" for name, text in self._steps.items() if name in needed]
        for (kind, a, b), reason in self._rules.items():
            rules.append(f"{kind} {a} {b} {reason}")
        return [*steps, *products, *rules]


@dataclass(frozen=True)
class _Step:
    operation: str
    a: Extent
    b: Extent


class Requirements:
    """The requirements of a function, to be checked before each call."""

    def __init__(self, lines: Sequence[str], ranks: Sequence[int]) -> None:
        """Raises ValueError for a line that is none."""
        self._steps: dict[str, _Step] = {}
        self._rules: list[tuple[str, Extent, Extent, str]] = []
        line = ""
        try:
            for line in lines:
                self._read(line, ranks)
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{line!r} is no requirement of tfmbs.requires") from error

    def _read(self, line: str, ranks: Sequence[int]) -> None:
        head, *words = line.split(" ")
        if words[0] == "=":
            operation, a, b = words[1:]
            if operation == "size":
                if not 0 <= int(b) < ranks[int(a)] or int(a) < 0:
                    raise IndexError
                self._steps[head] = _Step(operation, int(a), int(b))
                return
            _ = _OPERATIONS[operation]
            self._steps[head] = _Step(operation, self._operand(a), self._operand(b))
        elif head == "room":
            self._rules.append((head, self._operand(words[0]), 0, " ".join(words[1:])))
        else:
            _ = _RULES[head]
            a, b, *reason = words
            self._rules.append((head, self._operand(a), self._operand(b), " ".join(reason)))

    def _operand(self, text: str) -> Extent:
        if _NUMBER.fullmatch(text):
            return int(text)
        _ = self._steps[text]  # comes before it
        return text

    def check(self, entry: str, shapes: Sequence[Sequence[int]]) -> None:
        """Raises ValueError, or MemoryError for room, where shapes of arguments do not fit."""
        values: dict[str, int] = {}

        def value(extent: Extent) -> int:
            return extent if isinstance(extent, int) else values[extent]

        for name, step in self._steps.items():
            if step.operation == "size":
                values[name] = shapes[int(step.a)][int(step.b)]
                continue
            right = value(step.b)
            if right == 0 and step.operation in ("floordiv", "ceildiv"):
                raise ValueError(f"{self._subject(entry, step.b)} is 0, and divides")
            found = _OPERATIONS[step.operation](value(step.a), right)
            if abs(found) > _LARGEST:
                raise ValueError(
                    f"{self._subject(entry, name)} is {found}; the largest is {_LARGEST}"
                )
            values[name] = found
        for kind, a, b, reason in self._rules:
            if kind == "room":
                self._check_room(entry, a, value(a), reason)
            elif not _RULES[kind][0](value(a), value(b)):
                _, of_number, of_two = _RULES[kind]
                text = f"{self._subject(entry, a)} is {value(a)}"
                if isinstance(b, int):
                    text += f"; {of_number.format(b)}"
                else:
                    text += f", and {self._subject(entry, b)} is {value(b)}: {of_two}"
                raise ValueError(f"{text} ({reason})")

    def _check_room(self, entry: str, extent: Extent, size: int, reason: str) -> None:
        if size <= _SMALL_ROOM:
            return
        try:
            np.empty(size, np.uint8)
        except (MemoryError, ValueError):
            raise MemoryError(
                f"there is no room for a tensor of {size} bytes in {entry}; "
                f"{self._subject(entry, extent)} ({reason})"
            ) from None

    def _subject(self, entry: str, extent: Extent) -> str:
        """What a size is, in words."""
        leaves = list(dict.fromkeys(self._leaves(extent)))
        places = [f"argument {argument} of {entry}, dimension {axis}," for argument, axis in leaves]
        if isinstance(extent, str) and self._steps[extent].operation == "size":
            return places[0]
        return f"a size that follows from {' and '.join(places) or 'the model alone'}"

    def _leaves(self, extent: Extent) -> Iterator[tuple[int, int]]:
        seen: set[Extent] = set()
        stack = [extent]
        while stack:
            name = stack.pop()
            if isinstance(name, int) or name in seen:
                continue
            seen.add(name)
            step = self._steps[name]
            if step.operation == "size":
                yield int(step.a), int(step.b)
            else:
                stack += (step.b, step.a)
