"""Plans carried out: whole or not at all, and undone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from agent_models import chain, layers, steady
from pytfmbs import AdaptiveRuntimeAgent, Fabric, FabricConfig, PlacementError, TFMBSLinear
from pytfmbs.agent import Plan
from torch import nn

WIDTHS = (784, *[60] * 24, 10)


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(FabricConfig()) as fabric:
        yield fabric


def settings(model: nn.Module) -> list[tuple[Any, ...]]:
    return [
        (
            layer.name, layer.given_weight_addr, layer.given_tile_mask, layer.tile_mask,
            layer.pinned, layer.offload,
        )
        for layer in layers(model)
    ]  # fmt: skip


def planned(model: nn.Module, fabric: Fabric) -> tuple[AdaptiveRuntimeAgent, Plan]:
    steady(model, fabric, torch.ones(1, WIDTHS[0]))
    agent = AdaptiveRuntimeAgent(fabric.config)
    agent.observe(model)
    plan = agent.decide()
    assert not plan.default
    return agent, plan


def test_revert(fabric: Fabric) -> None:
    """Addresses, masks and pins of the user's come back, and the numbers never changed."""
    model = chain(fabric, WIDTHS)
    first, second, third, *_ = layers(model)
    second.weight_addr = fabric.config.bank_a_base(0) + 4 * 900
    third.tile_mask = 0b1010
    layers(model)[-1].pin()
    x = torch.randn(2, WIDTHS[0])
    wanted = model(x)
    agent, plan = planned(model, fabric)
    before = settings(model)
    applied = agent.apply(plan, model)
    assert settings(model) != before
    assert set(applied.changed) <= {decision.layer for decision in plan.decisions}
    assert torch.equal(model(x), wanted)
    assert not applied.reverted
    applied.revert()
    assert applied.reverted
    assert settings(model) == before
    assert torch.equal(model(x), wanted)
    assert layers(model)[-1].resident
    first.tile_mask = 1
    applied.revert()  # once is enough
    assert first.given_tile_mask == 1


def test_a_plan_that_was_reverted_is_not_in_force(fabric: Fabric) -> None:
    model = chain(fabric, WIDTHS)
    agent, plan = planned(model, fabric)
    agent.apply(plan, model).revert()
    agent.observe(model)
    assert agent.decide().decisions == plan.decisions


def test_another_plan_goes_over_the_first(fabric: Fabric) -> None:
    """Every kept layer at another's place: nobody's old address is in a new one's way."""
    model = chain(fabric, WIDTHS)
    agent, plan = planned(model, fabric)
    agent.apply(plan, model)
    same = [d for d in plan.decisions if d.weight_addr is not None and d.in_features == 60]
    assert len(same) >= 2
    turned = dict(zip((d.layer for d in same), (*same[1:], same[0]), strict=True))
    moved = dataclasses.replace(
        plan,
        decisions=tuple(
            dataclasses.replace(
                d, weight_addr=turned[d.layer].weight_addr, tile_mask=turned[d.layer].tile_mask
            )
            if d.layer in turned
            else d
            for d in plan.decisions
        ),
    )
    x = torch.randn(2, WIDTHS[0])
    wanted = model(x)
    applied = agent.apply(moved, model)
    assert set(applied.changed) == set(turned)
    for decision, layer in zip(moved.decisions, layers(model), strict=True):
        assert layer.given_weight_addr == decision.weight_addr
    assert torch.equal(model(x), wanted)
    applied.revert()
    for decision, layer in zip(plan.decisions, layers(model), strict=True):
        assert layer.given_weight_addr == decision.weight_addr


def test_an_error_leaves_the_model_as_it_was(fabric: Fabric) -> None:
    """Somebody else's layer lies where the last kept layer should: found out after others moved."""
    model = chain(fabric, WIDTHS)
    agent, plan = planned(model, fabric)
    last = [d for d in plan.decisions if d.weight_addr is not None][-1]
    stranger = TFMBSLinear(
        1, 1, fabric=fabric, weight_addr=last.weight_addr, tile_mask=last.tile_mask
    )
    layers(model)[3].weight_addr = fabric.config.bank_a_base(0) + 4 * 400
    layers(model)[5].pin()
    before = settings(model)
    x = torch.randn(2, WIDTHS[0])
    wanted = model(x)
    with pytest.raises(PlacementError, match=f"'{last.layer}'.*overlaps"):
        agent.apply(plan, model)
    assert settings(model) == before
    assert torch.equal(model(x), wanted)
    del stranger
    agent.apply(plan, model)
    assert torch.equal(model(x), wanted)


@pytest.mark.parametrize("at", range(0, 24, 5))
def test_any_failure_on_the_way(fabric: Fabric, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    model = chain(fabric, WIDTHS)
    agent, plan = planned(model, fabric)
    before = settings(model)
    calls = 0
    move = TFMBSLinear._move

    def failing(self: TFMBSLinear, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            raise MemoryError
        move(self, *arguments)

    monkeypatch.setattr(TFMBSLinear, "_move", failing)
    with pytest.raises(MemoryError):
        agent.apply(plan, model)
    monkeypatch.undo()
    assert settings(model) == before
    model(torch.randn(1, WIDTHS[0]))


def test_models_that_are_not_the_plans(fabric: Fabric) -> None:
    model = chain(fabric, WIDTHS)
    agent, plan = planned(model, fabric)
    before = settings(model)
    shorter = nn.Sequential(*list(model)[:-1])
    with pytest.raises(ValueError, match="no layer 'fc25' of the plan"):
        agent.apply(plan, shorter)
    longer = nn.Sequential(model, TFMBSLinear(10, 10, fabric=fabric, name="extra"))
    with pytest.raises(ValueError, match="the plan does not contain layer 'extra'"):
        agent.apply(plan, longer)
    with Fabric(FabricConfig()) as other:
        with pytest.raises(ValueError, match="'fc1' is of 783 inputs and 60 outputs"):
            agent.apply(plan, chain(other, (783, *WIDTHS[1:])))
        twice = nn.Sequential(model, chain(other, WIDTHS))
        with pytest.raises(ValueError, match="two layers of the model are named 'fc1'"):
            agent.apply(plan, twice)
    with Fabric(FabricConfig(tiles=2)) as other:
        with pytest.raises(ValueError, match=r"tiles=2.*plan is for.*tiles=4"):
            agent.apply(plan, chain(other, WIDTHS))
        with pytest.raises(ValueError, match=r"plan is for.*tiles=4.*agent for.*tiles=2"):
            AdaptiveRuntimeAgent(other.config).apply(plan, model)
    assert settings(model) == before


def test_a_default_plan_changes_nothing(fabric: Fabric) -> None:
    """What the user gave stays where nothing is better."""
    model = chain(fabric, (256, 60, 60, 10))
    layers(model)[0].weight_addr = fabric.config.bank_a_base(0) + 4 * 100
    layers(model)[1].tile_mask = 0b1
    layers(model)[2].pin()
    x = torch.randn(1, 256)
    counted, _ = steady(model, fabric, x)
    agent = AdaptiveRuntimeAgent()
    agent.observe(model)
    plan = agent.decide()
    assert plan.default
    assert (plan.gain, plan.default_cycles) == (0, pytest.approx(counted["cycles"], rel=0.005))
    assert plan["fc1"].weight_addr == fabric.config.bank_a_base(0) + 4 * 100
    assert plan["fc2"].tile_mask == 0b1
    before, rows = settings(model), fabric.profile_detailed()
    assert agent.apply(plan, model).changed == []
    assert settings(model) == before
    assert fabric.profile_detailed() == rows
