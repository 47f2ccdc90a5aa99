"""The ISA variants of the kernels: cpp/kernels/variants.json, which the build reads too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parents[2] / "cpp" / "kernels"
LIST = KERNELS / "variants.json"


@dataclass(frozen=True)
class Peak:
    """What the instructions of a variant can do at most. name: in results; label: in pictures; key:
    of the function tfmbs_<product>_peak_<variant>."""

    name: str
    label: str
    key: str


@dataclass(frozen=True)
class Variant:
    """What an entry does not say of layouts, targets and peaks is its parent's. own: operations that
    it has a file of. peaks: by product, of its own."""

    name: str
    parent: Variant | None
    needs: str
    tested: str
    trit_layouts: tuple[str, str]
    int8_layouts: tuple[str, str]
    targets: frozenset[str] = frozenset()
    heading: str | None = None
    own: tuple[str, ...] = ()
    own_peaks: dict[str, Peak] = field(default_factory=dict)

    def line(self) -> Iterator[Variant]:
        """Itself, its parent, and so on."""
        variant: Variant | None = self
        while variant is not None:
            yield variant
            variant = variant.parent

    @property
    def peaks(self) -> dict[str, Peak]:
        """The best that its instructions have, by product."""
        found: dict[str, Peak] = {}
        for variant in self.line():
            found = {**variant.own_peaks, **found}
        return found


def _variant(entry: dict[str, Any], before: dict[str, Variant]) -> Variant:
    name, parent = str(entry["name"]), before.get(entry.get("parent", ""))

    def layouts(field: str) -> tuple[str, str]:
        if field in entry:
            cached, streamed = entry[field]
            return str(cached), str(streamed)
        assert parent is not None, f"{name} has neither {field} nor a parent"
        return parent.trit_layouts if field == "trit_layouts" else parent.int8_layouts

    inherited = parent.targets if parent is not None else frozenset()
    return Variant(
        name,
        parent,
        entry["needs"],
        entry["tested"],
        layouts("trit_layouts"),
        layouts("int8_layouts"),
        frozenset(entry.get("targets", inherited)),
        entry.get("heading"),
        tuple(sorted(path.parent.name for path in KERNELS.glob(f"src/*/{name}.cpp"))),
        {
            product: Peak(name_in_results, label, f"{product}/{name}")
            for product, (name_in_results, label) in entry.get("peaks", {}).items()
        },
    )


def read(path: Path = LIST) -> dict[str, Variant]:
    """By name, slowest first."""
    found: dict[str, Variant] = {}
    for entry in json.loads(path.read_text(encoding="utf-8"))["variants"]:
        found[entry["name"]] = _variant(entry, found)
    return found


VARIANTS = read()


def held_to(target: str) -> frozenset[str]:
    """The names of the variants that have the target."""
    return frozenset(name for name, variant in VARIANTS.items() if target in variant.targets)
