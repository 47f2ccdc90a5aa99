"""The layers' telemetry hints in the metadata of an exported model."""

from __future__ import annotations

import cases
import pytest
import pytfmbs
import torch
from torch import nn

pytest.importorskip("onnx")

from onnx_models import TORCH_WARNINGS, Halves, checked, export
from pytfmbs.onnx import metadata

pytestmark = TORCH_WARNINGS


@pytest.mark.parametrize("mode", ["portable", "custom"])
@pytest.mark.parametrize("how", ["own", "torch", "program"])
@pytest.mark.parametrize("optimize", [True, False])
def test_metadata_is_the_hint(mode: str, how: str, optimize: bool) -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig(tiles=8))
    model = nn.Sequential(
        pytfmbs.TFMBSLinear(30, 70, name="first", fabric=fabric, weight_quantizer="twn"),
        nn.ReLU(),
        pytfmbs.TFMBSLinear(
            70, 12, name="placed", fabric=fabric, weight_addr=0x1800, tile_mask=0b10100
        ),
        pytfmbs.TFMBSLinear(
            12, 3, name="last; of=3", fabric=fabric, activation="int8", weight_quantizer="absmean"
        ),
    ).eval()
    x = cases.tensor(cases.generator(6), (2, 30), torch.float32)
    proto = checked(export(model, x, how, mode=mode, optimize=optimize))
    found = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    hints = [m.telemetry_hint for m in model if isinstance(m, pytfmbs.TFMBSLinear)]
    for hint in hints:
        assert hint.pop("resident") is False
    assert found == hints


def test_metadata_has_the_address_that_the_device_chose() -> None:
    layer = pytfmbs.TFMBSLinear(40, 8, fabric=pytfmbs.Fabric(pytfmbs.FabricConfig())).eval()
    assert layer.prefetch()
    proto = checked(export(layer, torch.ones(1, 40)))
    (hint,) = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert hint["weight_addr"] == layer.telemetry_hint["weight_addr"] is not None


def test_custom_quantizers_name_travels() -> None:
    layer = pytfmbs.TFMBSLinear(6, 4, weight_quantizer=Halves()).eval()
    proto = checked(export(layer, torch.ones(1, 6)))
    (hint,) = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert hint["weight_quantizer"] == "halves"
    assert hint["sparsity"] == layer.telemetry_hint["sparsity"]


@pytest.mark.parametrize("zeros", [1, 3, 31])  # 312.5, 937.5 and 9687.5 parts of 10,000
@pytest.mark.parametrize("how", ["own", "program"])
def test_sparsity_is_rounded_as_the_device_does(how: str, zeros: int) -> None:
    layer = pytfmbs.TFMBSLinear(8, 4).eval()
    with torch.no_grad():
        layer.weight.fill_(1.0).view(-1)[:zeros] = 0.0
    proto = checked(export(layer, torch.ones(1, 8), how))
    (hint,) = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert hint["sparsity"] == layer.telemetry_hint["sparsity"]
    assert hint["sparsity"] == (zeros * 10_000 + 16) // 32 / 10_000
