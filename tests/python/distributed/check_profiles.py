"""Telemetry of several processes."""

from __future__ import annotations

from pathlib import Path

import pytfmbs
import torch
import torch.distributed as dist
from check_tensor_parallel import mesh_of
from ranks import check
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module


@check
def profiles(folder: Path) -> None:
    """Columns in multiples of a pass, rows in multiples of a chunk: the counts are one process's."""
    mesh = mesh_of(4)
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(120, 240), nn.ReLU(), nn.Linear(240, 60))
    model = pytfmbs.convert(model, weight_quantizer="absmean", activation="int8").eval()
    x = torch.randn(6, 120)
    device = pytfmbs.Fabric()
    device.reset_counters()
    with torch.no_grad():
        expected = model(x)
        one = device.profile_detailed()
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        many = parallelize_module(model, mesh, plan)
        device.reset_counters()
        assert torch.equal(many(x), expected)
    own = device.profile_detailed()
    whole = pytfmbs.distributed.gather_profile()
    if dist.get_rank() != 0:
        assert whole is None
        return
    assert whole is not None
    assert len(whole["ranks"]) == 4
    assert whole["ranks"][0]["layers"]["0"]["active_ops"] == own["layers"]["0"]["active_ops"]
    assert whole["slowest_cycles"] == max(rank["cycles"] for rank in whole["ranks"])
    for name in ("0", "2"):
        of_one, of_all = one["layers"][name], whole["layers"][name]
        for key in ("active_ops", "zero_skips"):
            assert of_one[key] == of_all[key], (name, key, of_one[key], of_all[key])
    # 240 outputs are four passes of 60 lanes, one for each process; each has a start-up of its own.
    equal = ("compute_cycles", "dma_cycles", "mem_reads", "mem_writes", "broadcasts")
    for key in (*equal, "sram_reads", "sram_writes", "cycles_saved", "energy_pj"):
        assert one["layers"]["0"][key] == whole["layers"]["0"][key], key
    assert one["layers"]["0"]["cycles"] < whole["layers"]["0"]["cycles"]
    assert whole["layers"]["0"]["residency_misses"] == 4
