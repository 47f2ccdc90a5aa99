"""The agent's plans: valid, as predicted, better than the default policy or the default itself."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from agent_models import chain, layers, steady
from cases import campaign, generator
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import (
    AdaptiveRuntimeAgent,
    ArgumentError,
    Fabric,
    FabricConfig,
    PlacementError,
    _fabric,
)
from pytfmbs.agent import Decision, Plan
from torch import Tensor, nn

DEEP = (784, *[60] * 24, 10)


def decided(
    model: nn.Module, fabric: Fabric, x: Tensor, forwards: int = 2, **options: float
) -> tuple[AdaptiveRuntimeAgent, Plan, dict[str, float], Tensor]:
    """An agent that saw the model run, its plan, and what it saw."""
    counted, y = steady(model, fabric, x, forwards=forwards)
    agent = AdaptiveRuntimeAgent(fabric.config, **options)  # type: ignore[arg-type]
    agent.observe(model)
    return agent, agent.decide(), counted, y


def words_of(decision: Decision, config: FabricConfig) -> int:
    """Words that the layer takes in each tile, counted without the package's help."""
    assert decision.tile_mask is not None
    groups = math.ceil(decision.out_features / config.lanes)
    passes = math.ceil(groups / bin(decision.tile_mask).count("1"))
    return passes * decision.in_features * math.ceil(config.lanes / 15)


def assert_valid(plan: Plan, config: FabricConfig) -> None:
    """Every kept layer in its bank, and no word of a tile two layers'."""
    bank = config.bank_depth * math.ceil(config.lanes / 15)
    taken: dict[int, list[tuple[int, int, str]]] = {tile: [] for tile in range(config.tiles)}
    for decision in plan.decisions:
        assert math.isfinite(decision.cycles)
        assert decision.action in ("resident", "reload", "stream")
        if plan.default:
            assert (decision.tile_mask, decision.weight_addr) == (None, None)
            continue
        assert decision.tile_mask is not None
        assert 0 < decision.tile_mask < 1 << config.tiles
        if decision.weight_addr is None:
            continue
        assert decision.action == "resident"
        word, odd = divmod(decision.weight_addr - config.bank_a_base(0), 4)
        assert odd == 0
        end = word + words_of(decision, config)
        assert 0 <= word < end <= bank
        for tile in range(config.tiles):
            if decision.tile_mask >> tile & 1:
                taken[tile].append((word, end, decision.layer))
    for spans in taken.values():
        for (_, end, one), (begin, _, other) in itertools.pairwise(sorted(spans)):
            assert end <= begin, (one, other)


LARGER = [
    (DEEP, 1, {}, FabricConfig()),
    ((784, *[120] * 12, 10), 1, {}, FabricConfig()),
    ((784, 256, 64, 256, 784), 16, {}, FabricConfig()),
    ((3000, 60, *[120] * 6, 10), 1, {}, FabricConfig()),
    ((400, *[100] * 10, 10), 4, {"activation": "int8"}, FabricConfig()),
    ((768, *[768] * 4, 10), 16, {}, FabricConfig(8, 32, 2048)),
    ((64, *[32] * 12, 10), 1, {"weight_quantizer": "absmean"}, FabricConfig(2, 8, 256)),
]


@pytest.mark.parametrize(("widths", "samples", "options", "config"), LARGER)
def test_fewer_cycles_where_the_banks_are_too_small(
    widths: Sequence[int], samples: int, options: dict[str, str], config: FabricConfig
) -> None:
    weights = sum(
        inputs * math.ceil(outputs / config.lanes) for inputs, outputs in itertools.pairwise(widths)
    )
    assert weights > config.tiles * config.bank_depth
    with Fabric(config) as fabric:
        model = chain(fabric, widths, **options)
        x = torch.from_numpy(generator(1).standard_normal((samples, widths[0]))).float()
        agent, plan, default, wanted = decided(model, fabric, x)
        assert_valid(plan, config)
        assert not plan.default
        assert plan.default_misses == default["residency_misses"]
        assert plan.default_cycles == pytest.approx(default["cycles"], rel=0.005)
        agent.apply(plan, model)
        counted, got = steady(model, fabric, x)
        assert torch.equal(got, wanted)
        assert counted["cycles"] == pytest.approx(plan.cycles, rel=0.005)
        assert counted["residency_misses"] == plan.misses
        assert counted["cycles"] < default["cycles"]
        # What each layer was told, and what it was predicted.
        rows = fabric.profile_detailed()["layers"]
        for decision, layer in zip(plan.decisions, layers(model), strict=True):
            assert layer.tile_mask == decision.tile_mask
            assert layer.given_weight_addr == decision.weight_addr
            assert rows[layer.name]["cycles"] / 2 == pytest.approx(decision.cycles, rel=0.02)
            hits = rows[layer.name]["residency_hits"]
            assert (hits == 2) == (decision.action == "resident")
        # Seen again, it stays.
        agent.observe(model)
        again = agent.decide()
        assert [(d.tile_mask, d.weight_addr) for d in again.decisions] == [
            (d.tile_mask, d.weight_addr) for d in plan.decisions
        ]
        assert agent.apply(again, model).changed == []


@pytest.mark.parametrize(
    ("widths", "config"),
    [
        ((784, 60, 10), FabricConfig()),
        ((256, 60, 60, 10), FabricConfig()),
        ((250, *[30] * 20), FabricConfig()),
        ((784, 256, 256, 128, 10), FabricConfig(8, 32, 2048)),
    ],
)
def test_what_fits_keeps_its_place(widths: Sequence[int], config: FabricConfig) -> None:
    with Fabric(config) as fabric:
        model = chain(fabric, widths)
        x = torch.randn(3, widths[0])
        agent, plan, default, wanted = decided(model, fabric, x)
        assert plan.default
        assert plan.gain == 0
        addresses = [layer.weight_addr for layer in layers(model)]
        assert None not in addresses
        rows = fabric.profile_detailed()
        assert agent.apply(plan, model).changed == []
        assert fabric.profile_detailed() == rows
        counted, got = steady(model, fabric, x)
        assert counted == default
        assert torch.equal(got, wanted)
        assert [layer.weight_addr for layer in layers(model)] == addresses


_geometries = st.builds(
    FabricConfig, st.integers(1, 6), st.sampled_from([1, 4, 15, 17]), st.integers(15, 220)
)


@campaign(150)
@given(
    config=_geometries, widths=st.lists(st.integers(1, 90), min_size=2, max_size=8),
    samples=st.integers(1, 12), seed=st.integers(0, 2**31), zeros=st.sampled_from([0.0, 0.5, 0.97]),
    activation=st.sampled_from(["ternary", "int8"]),
)  # fmt: skip
def test_never_worse(
    config: FabricConfig,
    widths: list[int],
    samples: int,
    seed: int,
    zeros: float,
    activation: str,
) -> None:
    """Any network on any device: the same bits, no more cycles, and as many as predicted."""
    with Fabric(config) as fabric:
        model = chain(fabric, widths, seed, zeros, activation=activation)
        x = torch.from_numpy(generator(seed, 1).standard_normal((samples, widths[0]))).float()
        agent, plan, default, wanted = decided(model, fabric, x, 6, max_candidates=600)
        assert_valid(plan, config)
        assert plan.candidates <= 600
        assert plan.default or plan.gain > agent.min_gain
        assert plan.default_misses == default["residency_misses"]
        agent.apply(plan, model)
        counted, got = steady(model, fabric, x, forwards=6)  # periods of 1, 2, 3 and 6 rounds
        assert torch.equal(got, wanted)
        assert counted["cycles"] <= default["cycles"]
        assert counted["residency_misses"] == plan.misses
        if zeros < 0.9:  # else tiles step apart, and passes of other groups take other times
            assert plan.cycles == pytest.approx(counted["cycles"], rel=0.05)


def period_of_six(model: nn.Module, fabric: Fabric, x: Tensor) -> tuple[dict[str, float], Tensor]:
    """A mean over periods of 1, 2, 3 and 6 rounds."""
    return steady(model, fabric, x, warm_up=8, forwards=6)


def assert_not_worse_and_back(model: nn.Module, fabric: Fabric, x: Tensor, tried: int) -> Plan:
    """Against what is in force, masks and addresses of the user's included."""
    told = [(layer.given_tile_mask, layer.given_weight_addr) for layer in layers(model)]
    before, wanted = period_of_six(model, fabric, x)
    agent = AdaptiveRuntimeAgent(fabric.config, max_candidates=tried)
    agent.observe(model)
    plan = agent.decide()
    assert plan.default_misses == before["residency_misses"]
    assert plan.default_cycles == pytest.approx(before["cycles"], rel=0.05)
    applied = agent.apply(plan, model)
    counted, got = period_of_six(model, fabric, x)
    assert torch.equal(got, wanted)
    assert counted["cycles"] <= before["cycles"]
    assert counted["residency_misses"] == plan.misses
    if plan.default:
        assert applied.changed == []
        assert counted == before
    applied.revert()
    assert [(layer.given_tile_mask, layer.given_weight_addr) for layer in layers(model)] == told
    after, got = period_of_six(model, fabric, x)
    assert torch.equal(got, wanted)
    assert after == before
    return plan


@pytest.mark.parametrize("samples", [1, 3])
def test_a_mask_of_the_users(samples: int) -> None:
    """Who is in the bank when a plan is applied decides what the device settles in."""
    with Fabric(FabricConfig(2, 18, 95)) as fabric:
        model = chain(fabric, (16, 7, 100, 60, 100, 15, 1, 1), activation="int8")
        layers(model)[1].tile_mask = 2
        x = torch.from_numpy(generator(5).standard_normal((samples, 16))).float()
        plan = assert_not_worse_and_back(model, fabric, x, 500)
        assert not plan.default
        assert plan.gain > 0.1


def test_what_is_in_force(tmp_path: Path) -> None:
    """A model says what its layers were told, pins included, and a stored history still does; a hint
    says the mask; a profile and a module say nothing of it."""
    with Fabric(FabricConfig(2, 18, 95)) as fabric:
        model = chain(fabric, (16, 7, 100, 60, 100, 15, 1, 1), activation="int8")
        narrow, pinned = layers(model)[1], layers(model)[5]
        narrow.tile_mask = 2
        pinned.pin()
        x = torch.from_numpy(generator(5).standard_normal((3, 16))).float()
        before, _ = period_of_six(model, fabric, x)
        agent = AdaptiveRuntimeAgent(fabric.config, min_gain=0.99)
        agent.observe(model)
        plan = agent.decide()
        assert plan.default
        assert plan.default_misses == before["residency_misses"]
        assert plan.default_cycles == pytest.approx(before["cycles"], rel=0.005)
        assert (plan["fc2"].tile_mask, plan["fc6"].weight_addr) == (2, pinned.weight_addr)
        assert [d.tile_mask for d in plan.decisions].count(None) == 6
        agent.save_history(tmp_path / "history.json")
        loaded = AdaptiveRuntimeAgent(fabric.config, min_gain=0.99)
        loaded.load_history(tmp_path / "history.json")
        assert loaded.decide() == plan
        hinted = AdaptiveRuntimeAgent(fabric.config, min_gain=0.99)
        hinted.observe([layer.telemetry_hint for layer in layers(model)])
        assert hinted.decide()["fc2"].tile_mask == 2
        assert hinted.decide()["fc6"].weight_addr is None
        impossible = AdaptiveRuntimeAgent(fabric.config)  # of a device with more tiles
        impossible.observe({**narrow.telemetry_hint, "tile_mask": 4})
        assert impossible.decide()["fc2"].tile_mask is None


@campaign(80)
@given(
    config=_geometries, widths=st.lists(st.integers(1, 90), min_size=2, max_size=7),
    samples=st.integers(1, 12), seed=st.integers(0, 2**31), data=st.data(),
)  # fmt: skip
def test_never_worse_than_what_was_given(
    config: FabricConfig, widths: list[int], samples: int, seed: int, data: st.DataObject
) -> None:
    with Fabric(config) as fabric:
        model = chain(fabric, widths, seed)
        for layer in layers(model):
            if data.draw(st.booleans()):
                layer.tile_mask = data.draw(st.integers(1, (1 << config.tiles) - 1))
            if data.draw(st.integers(0, 3)) == 0:
                word = data.draw(st.integers(0, config.bank_depth // 2))
                with contextlib.suppress(PlacementError):
                    layer.weight_addr = config.bank_a_base(0) + 4 * word
        x = torch.from_numpy(generator(seed, 1).standard_normal((samples, widths[0]))).float()
        try:
            model(x)
        except PlacementError:  # addresses that leave another layer no window
            return
        assert_not_worse_and_back(model, fabric, x, 300)


@campaign(25)
@given(
    widths=st.lists(st.sampled_from([8, 20, 33, 60]), min_size=3, max_size=4),
    depth=st.sampled_from([30, 60, 100]), samples=st.integers(1, 6),
)  # fmt: skip
def test_the_walk_finds_what_trying_all_finds(widths: list[int], depth: int, samples: int) -> None:
    """Where everything can be tried, the walk of large networks comes within 10 % of it."""
    from pytfmbs.agent import search

    config = FabricConfig(3, 4, depth)
    agent = AdaptiveRuntimeAgent(config, min_gain=0)
    agent.observe(
        [
            {"layer": f"l{i}", "in_features": a, "out_features": b}
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        ]
    )
    every = agent.decide(samples=samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_EXHAUSTIVE", 0)
        walked = agent.decide(samples=samples)
    assert every.cycles <= walked.cycles <= 1.1 * every.cycles


def test_progress_and_the_bound() -> None:
    agent = AdaptiveRuntimeAgent(max_candidates=1500)
    agent.observe(
        [
            {"layer": f"l{i}", "in_features": a, "out_features": b}
            for i, (a, b) in enumerate(itertools.pairwise([784, *[100] * 40, 10]))
        ]
    )
    calls: list[tuple[int, int, float]] = []
    plan = agent.decide(progress=lambda *call: calls.append(call))
    assert plan.candidates <= 1500
    assert calls
    tried, most, cycles = zip(*calls, strict=True)
    assert list(tried) == sorted(tried)
    assert set(most) == {1500}
    assert list(cycles) == sorted(cycles, reverse=True)
    assert plan.cycles <= cycles[-1]
    assert agent.decide() == plan


def test_the_plan_in_words_and_tables() -> None:
    from rich.console import Console

    with Fabric(FabricConfig()) as fabric:
        model = chain(fabric, DEEP)
        _, plan, _, _ = decided(model, fabric, torch.randn(1, 784))
        kept = [d for d in plan.decisions if d.weight_addr is not None]
        assert kept
        for decision in plan.decisions:
            assert f"{decision.cycles:,.0f} cycles" in decision.reason
            assert f"{decision.default_cycles:,.0f} under the default policy" in decision.reason
            assert decision.alternatives["resident"] <= decision.alternatives["reload"]
            assert plan[decision.layer] is decision
        with pytest.raises(KeyError, match="no layer 'fc99'"):
            plan["fc99"]
        assert sum(d.cycles for d in plan.decisions) == pytest.approx(plan.cycles)
        assert sum(d.default_cycles for d in plan.decisions) == pytest.approx(plan.default_cycles)
        console = Console(width=80)
        with console.capture() as capture:
            console.print(plan.table())
        text = capture.get()
        assert f"{plan.cycles:,.0f}" in text
        for decision in kept:
            assert f"{decision.weight_addr:#x}" in text
        assert max(map(len, text.splitlines())) <= 80


def test_the_allocator_without_a_device() -> None:
    """What a device does, told without one; and what it refuses."""
    config = FabricConfig()
    base = config.bank_a_base(0)
    bank = _fabric.BankMap(config)
    given = bank.enter("given", 60, 500, 0b1111, base + 4 * 100)
    first, second = bank.enter("first", 60, 300, 0b1111), bank.enter("second", 60, 300, 0b1111)
    large = bank.enter("large", 60, 2000, 0b1111)
    assert [bank.admit(given), bank.admit(given)] == [
        (100, 500, False, False),
        (100, 500, False, True),
    ]
    assert bank.admit(first) == (600, 300, False, False)
    assert bank.admit(second) == (600, 300, False, False)  # the first made way
    assert bank.admit(first)[3] is False
    assert bank.admit(large) == (900, 124, True, False)
    with pytest.raises(PlacementError, match=r"'late'.*'given'"):
        bank.enter("late", 60, 100, 0b1000, base + 4 * 550)
    with pytest.raises(ArgumentError, match="'wide': tile_mask 16 is outside 1 to 15"):
        bank.enter("wide", 60, 100, 0b10000)
    with pytest.raises(ArgumentError, match="layer 4 of 4 does not exist"):
        bank.admit(4)
