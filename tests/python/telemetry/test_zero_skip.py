"""What zeros save: fewer cycles, never more, and energy with every one; and docs/zero-skip.md is
current."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from benchmark_scripts import load_script
from cases import ACTIVATIONS, campaign, generator, tensor
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import TFD, Fabric, FabricConfig, TFMBSLinear

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def table() -> ModuleType:
    return load_script("zero_skip_table")


def measure(
    weight: torch.Tensor,
    x: torch.Tensor,
    activation: str = "ternary",
    config: FabricConfig | None = None,
) -> dict[str, float]:
    """Counters of one forward, the load of the weights included."""
    with Fabric(config or FabricConfig()) as fabric, torch.no_grad():
        layer = TFMBSLinear(
            weight.shape[1], weight.shape[0], False, fabric=fabric, activation=activation
        )
        layer.weight.copy_(weight)
        layer(x)
        return fabric.profile()


@campaign(200)
@given(
    inputs=st.integers(1, 400), outputs=st.integers(1, 80), samples=st.integers(1, 5),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=4), seed=st.integers(0, 2**31),
    where=st.sampled_from(["activations", "weights", "depths"]),
    activation=st.sampled_from(ACTIVATIONS), depth=st.sampled_from([15, 60, 200, 1024]),
)  # fmt: skip
def test_cycles_never_rise_with_zeros(
    inputs: int,
    outputs: int,
    samples: int,
    shares: list[float],
    seed: int,
    where: str,
    activation: str,
    depth: int,
) -> None:
    """Any layer, resident or streamed: more zeros in the same places and beyond, no more cycles, no
    more energy."""
    rng = generator(seed)
    weight = tensor(rng, (outputs, inputs), torch.float32)
    x = tensor(rng, (samples, inputs), torch.float32)
    x[:, 0] = 9.0  # keeps an int8 token's scale, so that only the zeros change
    rank_x = torch.from_numpy(rng.random((samples, inputs)))
    rank_x[:, 0] = 1.0
    rank_w = torch.from_numpy(rng.random((outputs, 1 if where == "depths" else inputs)))
    if where == "depths":
        rank_w = torch.from_numpy(rng.random((1, inputs)))
    before: dict[str, float] | None = None
    for share in sorted(shares):
        if where == "activations":
            now = measure(
                weight,
                x.masked_fill(rank_x < share, 0.0),
                activation,
                FabricConfig(bank_depth=depth),
            )
        else:
            now = measure(
                weight.masked_fill(rank_w < share, 0.0),
                x,
                activation,
                FabricConfig(bank_depth=depth),
            )
        assert now["cycles"] <= now["dense_cycles"]
        if before is not None:
            assert now["cycles"] <= before["cycles"]
            assert now["compute_cycles"] <= before["compute_cycles"]
            assert now["dense_cycles"] == before["dense_cycles"]
            assert now["dma_cycles"] == before["dma_cycles"]
            assert now["zero_skips"] >= before["zero_skips"]
            assert now["energy_saved_pj"] >= before["energy_saved_pj"]
            assert now["energy_pj"] <= before["energy_pj"]
        before = now


@pytest.mark.parametrize("what", ["activation", "weight"])
def test_every_zero_counts(what: str) -> None:
    """One more zero at a time: zero_skips and energy_saved_pj rise each time, by as much as the
    zero is worth."""
    rng = generator(3)
    weight, x = tensor(rng, (17, 31), torch.float32), tensor(rng, (2, 31), torch.float32)
    before = measure(weight, x)
    assert before["zero_skips"] == 0
    assert before["active_ops"] == 2 * 17 * 31
    for k in rng.permutation(31):
        if what == "activation":
            x[0, k] = 0.0
        else:
            weight[5, k] = 0.0
        now = measure(weight, x)
        # A zero activation rests the 17 lanes that it would have fed; a zero weight one lane, for
        # both samples.
        assert now["zero_skips"] - before["zero_skips"] == (17 if what == "activation" else 2)
        assert now["active_ops"] + now["zero_skips"] == 2 * 17 * 31
        assert now["energy_saved_pj"] > before["energy_saved_pj"]
        assert now["energy_pj"] < before["energy_pj"]
        assert now["cycles"] <= before["cycles"]
        before = now


def signs(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.choice(np.float32([-1, 1]), shape))


def test_784_to_60_falls_strictly_to_the_dma_floor() -> None:
    """While a sample computes, 53 words come and 60 go: below 106 of 784 depths the DMA is what is
    waited for.

    Down to there every zero activation saves its cycle; beyond it none does.
    """
    rng = generator(4)
    weight, row = signs(rng, 60, 784), signs(rng, 784)
    # Zeros spread evenly over the words, so that no word runs empty before the floor.
    order = np.argsort(np.arange(784) % 15 * 60 + np.arange(784) // 15)
    floor = 53 + 60
    with Fabric(FabricConfig()) as fabric, torch.no_grad():
        layer = TFMBSLinear(784, 60, False, fabric=fabric).eval()
        layer.weight.copy_(weight)
        layer.prefetch()

        def steady(nonzero: int) -> int:
            """Cycles that one more sample of so many activations costs."""
            x = row.clone()
            x[order[nonzero:]] = 0.0
            cycles = []
            for samples in (3, 4):
                fabric.reset_counters()
                layer(x.expand(samples, 784))
                cycles.append(fabric.profile()["cycles"])
            return cycles[1] - cycles[0]

        for nonzero in (784, 783, 700, 500, 300, 200, 150, 110, 107, 106):
            assert steady(nonzero) == 4 + nonzero + 3
        for nonzero in (106, 105, 60, 1, 0):
            assert steady(nonzero) == floor
        # A 7-cycle start-up and drain and 106 steps are the DMA's 113 words: here the floor begins.
        assert floor == 4 + 106 + 3


@pytest.mark.parametrize("samples", [1, 64])
def test_784_to_60_falls_strictly_with_activation_sparsity(samples: int) -> None:
    rng = generator(5)
    weight, x = signs(rng, 60, 784), signs(rng, samples, 784)
    rank = torch.from_numpy(rng.random((samples, 784)))
    cycles = [
        measure(weight, x.masked_fill(rank < share, 0.0))["cycles"]
        for share in np.arange(0, 0.86, 0.05)
    ]
    assert all(a > b for a, b in itertools.pairwise(cycles)), cycles
    assert cycles[-1] < cycles[0]


def test_weight_zeros_save_cycles_where_a_depth_is_empty_across_a_tile() -> None:
    rng = generator(6)
    weight, x = signs(rng, 60, 784), signs(rng, 8, 784)
    dense = measure(weight, x)["cycles"]
    # One lane of each tile keeps its weight: nothing is empty, and no cycle is saved.
    almost = torch.zeros(60, 784)
    almost[::15] = weight[::15]
    assert measure(almost, x)["cycles"] == dense
    # Emptied on three tiles of four: the fourth is waited for.
    three = weight.clone()
    three[:45, ::2] = 0.0
    assert measure(three, x)["cycles"] == dense
    # Emptied on all four: a cycle a depth and sample.
    before = dense
    emptied = weight.clone()
    for k in (0, 100, 333, 783):
        emptied[:, k] = 0.0
        now = measure(emptied, x)["cycles"]
        assert before - now == 8
        before = now


def test_unstructured_weight_zeros_pay_late() -> None:
    """Next to nothing at 50 %, and more with every step from 80 % on."""
    rng = generator(7)
    weight, x = signs(rng, 60, 784), signs(rng, 16, 784)
    rank = torch.from_numpy(rng.random((60, 784)))

    def cycles(share: float) -> float:
        return measure(weight.masked_fill(rank < share, 0.0), x)["cycles"]

    assert cycles(0.5) > 0.99 * cycles(0.0)
    late = [cycles(share) for share in (0.8, 0.85, 0.9, 0.95, 0.99)]
    assert all(a > b for a, b in itertools.pairwise(late)), late


def test_int8_planes_skip_on_their_own() -> None:
    """Small values leave the high planes empty: 784 cycles a plane become 53."""
    weight = signs(generator(8), 60, 784)
    x = torch.ones(1, 784)
    x[0, 0] = 127.0  # the scale: the others are 1, one trit of the lowest plane
    # 127 = (1, -1, -1, -1, 0, 1): all planes but the second lowest have one trit, and it alone.
    got = measure(weight, x, "int8")
    assert got["compute_cycles"] == 4 + 784 + 5 * 53 + 3
    assert got["active_ops"] == 60 * (784 + 4)


def test_low_level_tasks_obey_their_hint() -> None:
    """The same task with and without zero-skip: same sums; without it every depth is a cycle and
    every lane works."""
    with Fabric(FabricConfig()) as fabric:
        config = fabric.config
        word = (1).to_bytes(4, "little")  # trits + 0 0 ... of lane 0
        fabric.load(config.bank_a_base(0), word * 5 + bytes(4 * 10))
        fabric.load(config.bank_b_base(0), word)
        profiles, sums = [], []
        for skip in (True, False):
            fabric.reset_counters()
            fabric.run(TFD(15, zero_skip=skip))
            profiles.append(fabric.profile())
            sums.append(fabric.results(0))
        assert sums[0] == sums[1] == [1] + [0] * 14
        assert [p["cycles"] for p in profiles] == [4 + 1 + 3, 4 + 15 + 3]
        assert [p["active_ops"] for p in profiles] == [1, 15 * 15]
        assert [p["zero_skips"] for p in profiles] == [15 * 15 - 1, 0]
        assert [p["dense_cycles"] for p in profiles] == [22, 22]


# --- the page ------------------------------------------------------------------------------------


def test_the_pages_table_is_current(table: ModuleType) -> None:
    page = (ROOT / "docs" / "zero-skip.md").read_text(encoding="utf-8")
    wanted = table.markdown(table.sweep())
    assert wanted in page, "run: python benchmarks/zero_skip_table.py --write"
    assert page.count(table.BEGIN) == 1
    picture = ROOT / "docs" / "images" / "zero-skip.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "images/zero-skip.png" in page


def test_the_table_is_the_stepped_engines_too(table: ModuleType) -> None:
    percents = (0, 50, 95)
    assert table.sweep(percents) == table.sweep(percents, "stepped")


def test_the_table_says_what_the_page_says(table: ModuleType) -> None:
    points = table.sweep()
    at = {percent: i for i, percent in enumerate(table.PERCENT)}
    for kind in ("activations", "structured"):
        cycles = [p.cycles for p in points[kind]]
        falling = cycles[: at[90] + 1]
        assert all(a > b for a, b in itertools.pairwise(falling))
        assert max(cycles[at[90] :]) - min(cycles[at[90] :]) < 2  # the floor
    loose = [p.cycles for p in points["unstructured"]]
    assert loose[at[60]] == loose[0]
    assert loose[at[95]] < loose[at[90]] < loose[at[85]] < loose[at[80]] < loose[at[60]]
    for kind in table.KINDS:
        for a, b in zip(points[kind], points[kind][1:], strict=False):
            assert b.zero_skips > a.zero_skips
            assert b.saved_nj > a.saved_nj
            assert b.energy_nj < a.energy_nj


def test_the_script_runs(
    table: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.show(table.sweep())
    assert "792.8" in capsys.readouterr().out
    table.draw(tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").stat().st_size > 10_000
