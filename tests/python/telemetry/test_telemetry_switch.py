"""Telemetry that is switched on after the weights were packed counts what it would have counted."""

from __future__ import annotations

import pytest
import torch
from pytfmbs import Fabric, FabricConfig, TFMBSLinear


@pytest.mark.parametrize("activation", ["ternary", "int8"])
@pytest.mark.parametrize("outputs", [7, 64, 600, 1300])
def test_switched_on_late(activation: str, outputs: int) -> None:
    torch.manual_seed(outputs)
    x = torch.randn(5, 90)
    early, late = (
        TFMBSLinear(
            90,
            outputs,
            weight_quantizer="absmean",
            activation=activation,
            fabric=Fabric(FabricConfig()),
        ).eval()
        for _ in range(2)
    )
    with torch.no_grad():
        # So many zeros that groups of outputs are empty at some depths.
        early.weight.mul_(torch.rand_like(early.weight) < 0.1)
    late.load_state_dict(early.state_dict())
    late.fabric.telemetry = False
    with torch.no_grad():
        assert torch.equal(early(x), late(x))
        late.fabric.telemetry = True
        early.fabric.reset_counters()
        late.fabric.reset_counters()
        assert torch.equal(early(x), late(x))
    assert early.fabric.profile_detailed() == late.fabric.profile_detailed()
    assert late.fabric.profile_detailed()["cycles"] > 0
