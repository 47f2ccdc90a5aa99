"""What an agent decided, with the figures behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .._fabric import FabricConfig

if TYPE_CHECKING:
    from rich.table import Table

ACTIONS = {
    "resident": "its weights stay in Bank A",
    "reload": "its weights are loaded again where others took their place",
    "stream": "its weights go through a window of Bank A on every forward",
    "cpu": "the CPU computes it, off the fabric",
}


@dataclass(frozen=True)
class Decision:
    """One layer's. Cycles are predicted, of one forward in the steady state.

    action: a key of ACTIONS. tile_mask, weight_addr: what the layer is given; None is automatic.
    cycles: under the plan. default_cycles: as the layer is placed without it. alternatives: what the actions
    that are open to the layer would cost it on the plan's tiles. The CPU's time is in cycles of the
    fabric's clock. reason: all of it in words.
    """

    layer: str
    action: str
    tile_mask: int | None
    weight_addr: int | None
    cycles: float
    default_cycles: float
    alternatives: Mapping[str, float]
    reason: str
    in_features: int
    out_features: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """Decisions in the order of the network, and totals of one forward of all its layers.

    default: nothing is worth changing, and everything stays as it is; the default_ figures are of
    that, and decisions say what is given already.
    """

    config: FabricConfig
    decisions: tuple[Decision, ...]
    default: bool
    cycles: float
    default_cycles: float
    misses: float
    default_misses: float
    candidates: int

    def __getitem__(self, layer: str) -> Decision:
        """The decision of a layer. Raises KeyError."""
        for decision in self.decisions:
            if decision.layer == layer:
                return decision
        raise KeyError(
            f"no layer {layer!r} in the plan; it has {[d.layer for d in self.decisions]}"
        )

    @property
    def gain(self) -> float:
        """Share of the cycles without the plan that it is predicted to save."""
        return 1 - self.cycles / self.default_cycles if self.default_cycles else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        config = self.config
        return {
            "config": {
                "tiles": config.tiles,
                "lanes": config.lanes,
                "bank_depth": config.bank_depth,
            },
            "default": self.default,
            "cycles": self.cycles,
            "default_cycles": self.default_cycles,
            "gain": self.gain,
            "misses": self.misses,
            "default_misses": self.default_misses,
            "candidates": self.candidates,
            "decisions": [decision.to_dict() for decision in self.decisions],
        }

    def table(self, title: str = "The plan, a layer at a time") -> Table:
        """A table for the terminal. Needs rich (the extra ``demo``)."""
        from rich.markup import escape

        from ..telemetry.report import new_table

        table = new_table(title)
        table.add_column("layer")
        table.add_column("action", no_wrap=True)
        for heading in ("tiles", "at", "cycles", "before", "saved"):
            table.add_column(heading, justify="right", no_wrap=True)
        for decision in self.decisions:
            table.add_row(
                escape(decision.layer),
                decision.action,
                "–" if decision.action == "cpu" else tiles_text(decision.tile_mask),
                "auto" if decision.weight_addr is None else f"{decision.weight_addr:#x}",
                f"{decision.cycles:,.0f}",
                f"{decision.default_cycles:,.0f}",
                _saved(decision.cycles, decision.default_cycles),
            )
        table.add_section()
        table.add_row(
            "all",
            "",
            "",
            "",
            f"{self.cycles:,.0f}",
            f"{self.default_cycles:,.0f}",
            _saved(self.cycles, self.default_cycles),
            style="bold",
        )
        return table


def tiles_text(mask: int | None) -> str:
    """A tile mask in words: 0b110111 is "0–2, 4, 5"."""
    if mask is None:
        return "auto"
    runs: list[list[int]] = []
    for tile in range(mask.bit_length()):
        if not mask >> tile & 1:
            continue
        if runs and runs[-1][-1] == tile - 1:
            runs[-1].append(tile)
        else:
            runs.append([tile])
    parts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(parts)


def _saved(now: float, before: float) -> str:
    return f"{100 * (1 - now / before):.1f} %" if before else "–"
