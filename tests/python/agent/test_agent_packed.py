"""Plans for models with packed layers."""

from __future__ import annotations

import pytest
import pytfmbs
import torch
from agent_models import chain, steady
from pytfmbs import AdaptiveRuntimeAgent, Fabric, FabricConfig

WIDTHS = (784, *[60] * 24, 10)


@pytest.mark.parametrize("some", [False, True])
def test_an_agent_plans_packed_layers_as_the_trainable_ones(some: bool) -> None:
    x = torch.randn(2, WIDTHS[0])
    plans, outputs = [], []
    for frozen in (False, True):
        with Fabric(FabricConfig()) as fabric:
            torch.manual_seed(0)  # of the biases
            model = chain(fabric, WIDTHS)
            if frozen:
                if some:
                    for i in range(9):
                        model[i] = pytfmbs.freeze(model[i])
                else:
                    pytfmbs.freeze(model)
            steady(model, fabric, x)
            agent = AdaptiveRuntimeAgent(fabric.config)
            agent.observe(model)
            plan = agent.decide()
            assert not plan.default
            plans.append([(d.layer, d.action, d.tile_mask, d.weight_addr) for d in plan.decisions])
            applied = agent.apply(plan, model)
            outputs.append(model(x).detach())
            applied.revert()
            assert torch.equal(model(x), outputs[-1])
    assert plans[0] == plans[1]
    assert torch.equal(outputs[0], outputs[1])


@pytest.mark.parametrize("activation", ["ternary", "int8"])
@pytest.mark.parametrize("group", [32, 128])
def test_an_agent_reckons_with_groups_of_scales(group: int, activation: str) -> None:
    """What it says that the forward takes now is what the device counted."""
    torch.manual_seed(1)
    with Fabric(FabricConfig()) as fabric:
        layers = []
        for i, (inputs, outputs) in enumerate([(300, 90), (90, 40)]):
            trits = torch.randint(-1, 2, (outputs, inputs), dtype=torch.int8)
            scales = torch.rand(outputs, -(-inputs // group)) + 0.5
            layers.append(
                pytfmbs.TFMBSPackedLinear.from_trits(
                    trits,
                    scales,
                    group_size=group,
                    activation=activation,
                    name=f"l{i}",
                    fabric=fabric,
                )
            )
        model = torch.nn.Sequential(*layers)
        x = torch.randn(4, 300)
        counted, _ = steady(model, fabric, x)
        agent = AdaptiveRuntimeAgent(fabric.config)
        agent.observe(model)
        plan = agent.decide()
        assert plan.default_cycles == pytest.approx(counted["cycles"], rel=0.002)
