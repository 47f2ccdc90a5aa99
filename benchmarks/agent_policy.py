"""What the adaptive runtime agent saves: its placement against the device's default policy.

    python benchmarks/agent_policy.py                 shows the table
    python benchmarks/agent_policy.py --json FILE     and writes the figures
    python benchmarks/agent_policy.py --write         and writes the table into docs/agent.md, with
    the picture

All numbers are the device's own counters, of forwards in the steady state. The default evicts what
was used least recently. The agent observes the model after those forwards, decides and applies; then
the same forwards run again, and must give the same bits. Everything stays on the fabric. Weights and
inputs are from a fixed seed and there is no bias, so the numbers are the same everywhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytfmbs import Fabric, FabricConfig, TFMBSLinear
from pytfmbs.agent import AdaptiveRuntimeAgent
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "agent.md"
PICTURE = ROOT / "docs" / "images" / "agent-policy.png"
BEGIN, END = "<!-- agent_policy: begin -->", "<!-- agent_policy: end -->"

WARM_UP, FORWARDS = 3, 4
TABLE_COLUMNS = 100
DEFAULT, WIDE, SMALL = (4, 15, 1024), (8, 32, 2048), (2, 8, 256)  # tiles, lanes, bank depth


@dataclass(frozen=True)
class Network:
    """widths: of a chain of layers with ReLU between; heads: of one layer, side by side."""

    name: str
    widths: tuple[int, ...]
    samples: int
    geometry: tuple[int, int, int] = DEFAULT
    activation: str = "ternary"
    heads: int = 1

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return list(itertools.pairwise(self.widths)) * self.heads

    @property
    def size(self) -> float:
        """Words of all weights over words of all Banks A."""
        tiles, lanes, depth = self.geometry
        return sum(inputs * -(-outputs // lanes) for inputs, outputs in self.shapes) / (
            tiles * depth
        )


LARGER = (
    Network("784–60×24–10", (784, *[60] * 24, 10), 1),
    Network("784–60×24–10", (784, *[60] * 24, 10), 16),
    Network("784–120×12–10", (784, *[120] * 12, 10), 1),
    Network("784–256–64–256–784", (784, 256, 64, 256, 784), 16),
    Network("784–256–64–256–784", (784, 256, 64, 256, 784), 64),
    Network("1024–512–256–128–64–32–10", (1024, 512, 256, 128, 64, 32, 10), 16),
    Network("3000–60–120×6–10", (3000, 60, *[120] * 6, 10), 1),
    Network("12 heads of 600–15", (600, 15), 4, heads=12),
    Network("400–100×10–10, int8", (400, *[100] * 10, 10), 4, activation="int8"),
    Network("1024–512×8–10", (1024, *[512] * 8, 10), 1, WIDE),
    Network("768–768×4–10", (768, *[768] * 4, 10), 64, WIDE),
    Network("64–32×12–10", (64, *[32] * 12, 10), 1, SMALL),
)
# All layers but a small last one are larger than the banks each: they stream, whoever else stays.
NOTHING_TO_GAIN = (
    Network("256×7", (256,) * 7, 16),
    Network("512–512–512–10", (512, 512, 512, 10), 32),
)
FITTING = (
    Network("784–60–10", (784, 60, 10), 16),
    Network("256–60–60–10", (256, 60, 60, 10), 1),
    Network("250–30×20", (250, *[30] * 20), 16),
    Network("784–256–256–128–10", (784, 256, 256, 128, 10), 16, WIDE),
)
GROUPS = {
    "larger than the banks": LARGER,
    "larger, and no placement is better": NOTHING_TO_GAIN,
    "fitting": FITTING,
}


@dataclass(frozen=True)
class Figures:
    """Of one forward of the whole network."""

    cycles: float
    misses: float
    energy_nj: float


@dataclass(frozen=True)
class Comparison:
    network: Network
    default: Figures
    agent: Figures
    predicted_cycles: float

    @property
    def cycles_saved(self) -> float:
        return 1 - self.agent.cycles / self.default.cycles

    @property
    def energy_saved(self) -> float:
        return 1 - self.agent.energy_nj / self.default.energy_nj

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "size": self.network.size, "cycles_saved": self.cycles_saved}


class Heads(nn.Module):
    """Layers on one input, side by side."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.layers], dim=-1)


def build(network: Network, fabric: Fabric) -> nn.Module:
    rng = np.random.default_rng(2026)
    layers: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(network.shapes, 1):
        layer = TFMBSLinear(
            inputs, outputs, False, name=f"fc{index}", fabric=fabric, activation=network.activation
        )
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(rng.choice(np.float32([-1, 1]), (outputs, inputs))))
        layers.append(layer)
    if network.heads > 1:
        return Heads(layers).eval()
    chain = [module for layer in layers for module in (layer, nn.ReLU())]
    return nn.Sequential(*chain[:-1]).eval()


def batches(network: Network) -> list[Tensor]:
    rng = np.random.default_rng(2027)
    shape = (FORWARDS, network.samples, network.widths[0])
    return list(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))


def run(model: nn.Module, fabric: Fabric, inputs: Sequence[Tensor]) -> tuple[Figures, list[Tensor]]:
    """The mean forward once residency has settled, and the outputs."""
    with torch.inference_mode():
        for _ in range(WARM_UP):
            model(inputs[0])
        fabric.reset_counters()
        outputs = [model(x) for x in inputs]
    counted = fabric.profile()
    return Figures(
        cycles=counted["cycles"] / len(inputs),
        misses=counted["residency_misses"] / len(inputs),
        energy_nj=counted["energy_pj"] / len(inputs) / 1e3,
    ), outputs


def compare(network: Network) -> Comparison:
    inputs = batches(network)
    with Fabric(FabricConfig(*network.geometry)) as fabric:
        model = build(network, fabric)
        default, wanted = run(model, fabric, inputs)
        agent = AdaptiveRuntimeAgent(fabric.config)
        agent.observe(model)
        plan = agent.decide()
        agent.apply(plan, model)
        better, outputs = run(model, fabric, inputs)
    if not all(torch.equal(a, b) for a, b in zip(wanted, outputs, strict=True)):
        raise AssertionError(f"{network.name}: the outputs changed with the placement")
    return Comparison(network, default, better, plan.cycles)


def measure() -> dict[str, list[Comparison]]:
    return {group: [compare(network) for network in GROUPS[group]] for group in GROUPS}


# --- tables --------------------------------------------------------------------------------------


def header() -> list[str]:
    return [
        "network",
        "samples",
        "tiles×lanes×depth",
        "size",
        "cycles: default",
        "agent",
        "saved",
        "misses: default",
        "agent",
        "µJ: default",
        "agent",
        "saved",
    ]


def row(found: Comparison) -> list[str]:
    network, default, agent = found.network, found.default, found.agent
    return [
        network.name,
        str(network.samples),
        "×".join(map(str, network.geometry)),
        f"{network.size:.1f}",
        f"{default.cycles:,.0f}",
        f"{agent.cycles:,.0f}",
        percent(found.cycles_saved),
        f"{default.misses:.0f}",
        f"{agent.misses:.0f}",
        f"{default.energy_nj / 1e3:.2f}",
        f"{agent.energy_nj / 1e3:.2f}",
        percent(found.energy_saved),
    ]


def percent(share: float) -> str:
    return "–" if share == 0 else f"{100 * share:.1f} %".replace("-", "−")


def markdown(results: dict[str, list[Comparison]]) -> str:
    """The table as docs/agent.md has it, markers included."""
    head = header()
    lines = [head, [":---", *["---:"] * (len(head) - 1)]]
    for group, found in results.items():
        lines.append([f"**{group}**", *[""] * (len(head) - 1)])
        lines += [row(comparison) for comparison in found]
    return "\n".join([BEGIN, "", *(f"| {' | '.join(line)} |" for line in lines), "", END])


def show(results: dict[str, list[Comparison]], width: int | None = None) -> None:
    """The table; in 100 columns where that is no terminal. device: tiles×lanes×depth."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(title="A forward in the steady state: default policy → agent", box=SIMPLE)
    table.add_column("network\n  samples, device, size", min_width=26)
    for name in (
        "cycles\ndefault → agent",
        "saved\n",
        "misses\n",
        "µJ\ndefault → agent",
        "saved\n",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for group, found in results.items():
        table.add_section()
        table.add_row(f"[bold]{group}")
        for comparison in found:
            name, samples, geometry, size, *figures = row(comparison)
            cycles, fewer, saved, misses, hit, energy, less, spared = figures
            table.add_row(
                f"{name}\n  [dim]{samples}, {geometry}, {size}[/]",
                f"{cycles} → {fewer}",
                saved,
                f"{misses} → {hit}",
                f"{energy} → {less}",
                spared,
            )
    console = Console(width=width)
    if width is None and not console.is_terminal:
        console.width = TABLE_COLUMNS
    console.print(table)


def draw(results: dict[str, list[Comparison]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    found = sorted(results["larger than the banks"], key=lambda c: c.cycles_saved)
    figure, axes = plt.subplots(figsize=(10, 0.52 * len(found) + 1.6), layout="constrained")
    places = np.arange(len(found))
    height = 0.36
    kinds = (
        ("cycles", "#0072b2", "white", height / 2, [c.cycles_saved for c in found]),
        ("energy", "#e69f00", "black", -height / 2, [c.energy_saved for c in found]),
    )
    for label, color, ink, offset, saved in kinds:
        left = [100 * (1 - share) for share in saved]
        axes.barh(places + offset, left, height, color=color, label=label)
        for place, width, share in zip(places + offset, left, saved, strict=True):
            text = f"{-100 * share:+.0f} %".replace("-", "−")
            axes.text(width - 1, place, text, ha="right", va="center", fontsize=8.5, color=ink)
    axes.axvline(100, color="0.35", linewidth=1)
    names = [
        f"{c.network.name}\n{c.network.samples} sample{'s' if c.network.samples > 1 else ''}, "
        f"{'×'.join(map(str, c.network.geometry))}, {c.network.size:.1f}× the banks"
        for c in found
    ]
    axes.set_yticks(places, names, fontsize=8.5)
    axes.set(
        xlim=(0, 102), ylim=(-0.6, len(found) - 0.4),
        xlabel="with the agent, % of the default policy (least recently used)",
    )  # fmt: skip
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    figure.suptitle(
        "A forward with the agent's placement, of networks larger than the banks", x=0.01, ha="left"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument(
        "--write", action="store_true", help=f"write {PAGE.name} and {PICTURE.name}"
    )
    arguments = parser.parse_args()
    results = measure()
    show(results)
    if arguments.json is not None:
        figures = {group: [c.to_dict() for c in found] for group, found in results.items()}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + markdown(results) + after, encoding="utf-8")
        draw(results, PICTURE)


if __name__ == "__main__":
    main()
