"""The file of layer shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SHAPES_FILE = Path(__file__).resolve().parents[1] / "shapes.txt"


@dataclass(frozen=True)
class Shape:
    outputs: int
    depth: int
    label: str = ""

    @property
    def name(self) -> str:
        return f"{self.depth}→{self.outputs}"

    @property
    def weights(self) -> int:
        return self.outputs * self.depth


def parse_shapes(text: str, source: str = "shapes") -> list[Shape]:
    """One shape a line, `out_features in_features  # label`; empty lines and comments are skipped."""
    shapes = []
    for number, line in enumerate(text.splitlines(), 1):
        figures, _, label = line.partition("#")
        if not figures.strip():
            continue
        try:
            outputs, depth = (int(word) for word in figures.split())
        except ValueError:
            raise ValueError(
                f"{source}:{number}: expected 'out_features in_features  # label', got {line!r}"
            ) from None
        if outputs < 1 or depth < 1:
            raise ValueError(f"{source}:{number}: features must be at least 1, got {line!r}")
        shapes.append(Shape(outputs, depth, label.strip()))
    return shapes


def select_shapes(chosen: Sequence[str] | None) -> list[Shape]:
    """`chosen`: files of shapes, shapes as 4096x4096 (in x out), or parts of names and labels of
    the suite's own file; None: all of that file."""
    known = parse_shapes(SHAPES_FILE.read_text(encoding="utf-8"), SHAPES_FILE.name)
    if not chosen:
        return known
    found: list[Shape] = []
    for choice in chosen:
        if Path(choice).is_file():
            found += parse_shapes(Path(choice).read_text(encoding="utf-8"), choice)
            continue
        depth, times, outputs = choice.replace("→", "x").partition("x")
        if times and depth.isdigit() and outputs.isdigit() and int(depth) and int(outputs):
            shape = Shape(int(outputs), int(depth))
            same = [s for s in known if (s.outputs, s.depth) == (shape.outputs, shape.depth)]
            found += same or [shape]
            continue
        matches = [s for s in known if choice.lower() in f"{s.name} {s.label}".lower()]
        if not matches:
            raise ValueError(
                f"no shape matches {choice!r}: give a file, in_features x out_features as 784x60, "
                f"or a part of a name or label in {SHAPES_FILE.name}"
            )
        found += matches
    return list(dict.fromkeys(found))
