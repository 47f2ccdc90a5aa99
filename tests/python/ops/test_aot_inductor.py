"""AOTInductor packages: a model compiled ahead of time gives eager's numbers and telemetry."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytfmbs import Fabric, TFMBSLinear, TFMBSPackedLinear
from torch import nn


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_package_of_every_kind_of_layer(tmp_path: Path) -> None:
    """Constants of a package lie where they like: packed weights are aligned by the runtime."""
    torch.manual_seed(1)
    fabric = Fabric()
    trits = torch.randint(-1, 2, (48, 96), dtype=torch.int8)
    model = nn.Sequential(
        TFMBSLinear(32, 96, weight_quantizer="absmean", activation="int8", fabric=fabric),
        nn.ReLU(),
        TFMBSPackedLinear.from_trits(trits, torch.rand(48), torch.randn(48), fabric=fabric),
        nn.ReLU(),
        TFMBSPackedLinear.from_trits(
            trits[:40, :48], torch.rand(40, 2), group_size=32, fabric=fabric
        ),
        TFMBSLinear(40, 5, fabric=fabric),
    ).eval()
    x = torch.randn(4, 32)
    with torch.no_grad():
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        package = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "model.pt2")
        )
        compiled = torch._inductor.aoti_load_package(package)
        for batch in (4, 7, 1):
            x = torch.randn(batch, 32)
            model(x)  # residency settles
            compiled(x)
            fabric.reset_counters()
            expected = model(x)
            eager = fabric.profile()
            fabric.reset_counters()
            assert torch.equal(compiled(x), expected)
            assert fabric.profile() == eager
        assert eager["cycles"] > 0
