"""Layers that the CPU alone computes: the same numbers, and nothing on the device."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from agent_models import chain, layers, steady
from cases import ACTIVATIONS, QUANTIZERS
from pytfmbs import AdaptiveRuntimeAgent, Fabric, FabricConfig, PlacementError, TFMBSLinear
from pytfmbs.agent import CpuCost


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(FabricConfig()) as fabric:
        yield fabric


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_same_numbers_nothing_counted(fabric: Fabric, quantizer: str, activation: str) -> None:
    layer = TFMBSLinear(
        300, 70, fabric=fabric, name="fc", weight_quantizer=quantizer, activation=activation
    )
    x = torch.randn(9, 300, requires_grad=True)
    wanted = layer(x)
    (wanted_grad,) = torch.autograd.grad(wanted.sum(), x)
    layer.offload = True
    assert b"fabric=none" in layer._layer.identity  # no device at all
    assert fabric.profile_detailed()["layers"] == {}
    before = fabric.profile()
    got = layer(x)
    (grad,) = torch.autograd.grad(got.sum(), x)
    assert torch.equal(got, wanted)
    assert torch.equal(grad, wanted_grad)
    assert fabric.profile() == before
    assert layer.offload
    assert "offload=True" in repr(layer)
    assert layer.fabric == fabric
    assert (layer.name, layer.tile_mask) == ("fc", 0b1111)
    assert (layer.resident, layer.weight_addr, layer.prefetch()) == (False, None, False)
    hint = layer.telemetry_hint
    assert (hint["layer"], hint["weight_addr"], hint["resident"]) == ("fc", None, False)
    assert fabric.profile() == before
    layer.offload = False
    assert torch.equal(layer(x), wanted)
    assert list(fabric.profile_detailed()["layers"]) == ["fc"]
    assert layer.resident


def test_the_stepped_engine_does_not_step_it() -> None:
    with Fabric(FabricConfig(), engine="stepped") as fabric:
        layer = TFMBSLinear(50, 20, fabric=fabric)
        x = torch.randn(3, 50)
        wanted = layer(x)
        layer.offload = True
        before = fabric.profile()
        assert torch.equal(layer(x), wanted)
        assert fabric.profile() == before


def test_it_gives_its_room_and_may_lose_its_address(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    layer = TFMBSLinear(600, 60, fabric=fabric, weight_addr=base)
    layer.pin()
    layer.offload = True
    assert not layer.pinned
    other = TFMBSLinear(600, 60, fabric=fabric, weight_addr=base)
    other.prefetch()
    assert other.resident
    before = fabric.profile_detailed()
    with pytest.raises(PlacementError, match="overlaps"):
        layer.offload = False
    with pytest.raises(PlacementError, match="offloaded"):
        layer.pin()
    assert layer.offload
    assert fabric.profile_detailed() == before
    layer(torch.randn(2, 600))
    layer.weight_addr = None
    layer.tile_mask = 0b0110
    layer.name = "renamed"
    assert (layer.tile_mask, layer.name, layer.weight_addr) == (0b0110, "renamed", None)
    layer.offload = False
    assert (layer.tile_mask, layer.name) == (0b0110, "renamed")
    with pytest.raises(TypeError, match="must be a bool"):
        layer.offload = 1  # type: ignore[assignment]


def test_copies_pickles_and_state_dicts(fabric: Fabric) -> None:
    layer = TFMBSLinear(40, 20, fabric=fabric, name="fc", activation="int8")
    plain_state = layer.state_dict()
    x = torch.randn(3, 40)
    wanted = layer(x)
    layer.offload = True
    assert layer.state_dict().keys() == plain_state.keys()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.offload
        assert torch.equal(twin(x), wanted)
    assert fabric.profile_detailed()["layers"] == {}
    twin = copy.deepcopy(layer)
    twin.offload = False
    assert torch.equal(twin(x), wanted)
    assert list(fabric.profile_detailed()["layers"]) == ["fc"]
    fresh = TFMBSLinear(40, 20, fabric=fabric, activation="int8")
    fresh.offload = True
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), wanted)


def test_compiled(fabric: Fabric) -> None:
    model = chain(fabric, (30, 20, 10))
    x = torch.randn(4, 30)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        wanted = compiled(x)
        layers(model)[0].offload = True
        before = fabric.profile()["cycles"]
        assert torch.equal(compiled(x), wanted)
        one = fabric.profile_detailed()
        assert list(one["layers"]) == ["fc2"]
        assert one["cycles"] > before
        layers(model)[0].offload = False
        assert torch.equal(compiled(x), wanted)
    assert sorted(fabric.profile_detailed()["layers"]) == ["fc1", "fc2"]


# --- the decision --------------------------------------------------------------------------------


def test_the_cpu_takes_what_it_is_faster_at(fabric: Fabric) -> None:
    """A clock so slow, or a CPU so slow, that there is no doubt; and one in between by layer."""
    model = chain(fabric, (784, 60, 10))
    x = torch.randn(8, 784)
    fast = CpuCost(1e-6, 1e12, 1e12)
    for cpu, clock, actions in (
        (fast, 1e3, ["cpu", "cpu"]),
        (CpuCost(1.0, 1e6, 1e6), 1e9, ["resident", "resident"]),
        # fc1 takes the fabric about 5,000 cycles, fc2 about 250; a call costs 1,000.
        (CpuCost(1e-6, 1e15, 1e15), 1e9, ["cpu", "resident"]),
    ):
        before, wanted = steady(model, fabric, x)
        agent = AdaptiveRuntimeAgent(cpu=cpu, clock_hz=clock)
        agent.observe(model)
        plan = agent.decide()
        assert [decision.action for decision in plan.decisions] == actions
        for decision, layer in zip(plan.decisions, layers(model), strict=True):
            work = 8 * layer.in_features * layer.out_features
            seconds = cpu.call_seconds + work / cpu.ternary_rate
            assert decision.alternatives["cpu"] == pytest.approx(seconds * clock)
        applied = agent.apply(plan, model)
        assert [layer.offload for layer in layers(model)] == [a == "cpu" for a in actions]
        counted, got = steady(model, fabric, x)
        assert torch.equal(got, wanted)
        rows = fabric.profile_detailed()["layers"]
        assert sorted(rows) == [f"fc{i}" for i, a in enumerate(actions, 1) if a != "cpu"]
        assert counted["cycles"] <= before["cycles"]
        applied.revert()
        assert [layer.offload for layer in layers(model)] == [False, False]
    after, got = steady(model, fabric, x)
    assert torch.equal(got, wanted)
    assert after == before


def test_a_layer_off_the_fabric_makes_room(fabric: Fabric) -> None:
    """Two layers that do not fit together: with one of them gone, no miss is left."""
    model = chain(fabric, (784, 60, 784, 10))
    x = torch.randn(2, 784)
    steady(model, fabric, x)
    agent = AdaptiveRuntimeAgent(cpu=CpuCost(1e-6, 1e12, 1e12), clock_hz=2e9)
    agent.observe(model)
    plan = agent.decide()
    assert "cpu" in {decision.action for decision in plan.decisions}
    assert plan.cycles < plan.default_cycles
    agent.apply(plan, model)
    counted, _ = steady(model, fabric, x)
    assert counted["residency_misses"] == plan.misses


def test_measured() -> None:
    cpu = CpuCost.measure(repeats=3)
    assert 0 < cpu.call_seconds < 0.1
    assert min(cpu.ternary_rate, cpu.int8_rate) > 1e6
    with pytest.raises(ValueError, match="call_seconds is 0"):
        CpuCost(0, 1, 1)
