"""pytfmbs.summary: a table of 80 columns, data, and no trace left in the model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import Fabric, FabricConfig
from torch import Tensor, nn

OPTIONS: dict[str, Any] = {"weight_quantizer": "absmean", "activation": "int8"}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.conv = nn.Conv1d(16, 8, 3, bias=False)
        self.norm = nn.BatchNorm1d(8)
        self.lstm = nn.LSTM(8, 4)
        self.up = nn.Linear(4, 6)
        self.lm_head = nn.Linear(6, 10, bias=False)

    def forward(self, ids: Tensor) -> Tensor:  # [2, 7]
        x = self.norm(self.conv(self.table(ids).transpose(1, 2)))  # [2, 8, 5]
        return self.lm_head(self.up(self.lstm(x.permute(2, 0, 1))[0]))


def test_counts_and_shares() -> None:
    model = pytfmbs.convert(Model(), **OPTIONS)
    ids = torch.zeros(2, 7, dtype=torch.long)
    table = pytfmbs.summary(model, ids)
    rows = {m.path: m for m in table.modules}
    assert list(rows) == ["table", "conv", "norm", "lstm", "up", "lm_head"]
    assert [m.ternary for m in table.modules] == [False, False, False, False, True, False]
    assert {path: m.reason for path, m in rows.items()} == {
        "table": "look-up table",
        "conv": "no nn.Linear (Conv1d)",
        "norm": "norm",
        "lstm": "no nn.Linear (LSTM)",
        "up": "absmean, int8",
        "lm_head": "output head",
    }
    assert {path: m.macs for path, m in rows.items()} == {
        "table": 0,
        "conv": 2 * 8 * 5 * 16 * 3,
        "norm": 0,
        "lstm": 10 * 16 * (8 + 4),
        "up": 10 * 4 * 6,
        "lm_head": 10 * 6 * 10,
    }
    assert table.macs == sum(m.macs or 0 for m in table.modules)
    assert (rows["up"].bits_per_weight, rows["conv"].bits_per_weight) == (2, 32)
    assert rows["conv"].bytes == 4 * rows["conv"].parameters == 4 * 8 * 16 * 3
    assert table.parameters == sum(p.numel() for p in model.parameters())
    assert all(m.calls == 1 for m in table.modules)
    plain = pytfmbs.summary(model)
    assert plain.macs is None
    assert all(m.macs is m.mac_share is m.calls is None for m in plain.modules)
    data = json.loads(json.dumps(table.to_dict()))
    assert data["ternary_modules"] == 1
    assert data["modules"][4]["path"] == "up"
    assert data["ternary_parameter_share"] == pytest.approx(30 / table.parameters)


def test_the_model_and_its_device_stay_as_they_were() -> None:
    with Fabric(FabricConfig(tiles=2)) as fabric:
        model = pytfmbs.convert(Model(), fabric=fabric, **OPTIONS)
        model.norm.eval()
        ids = torch.zeros(2, 7, dtype=torch.long)
        model(ids)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        modes = [m.training for m in model.modules()]
        profile = fabric.profile()
        for inputs in (ids, (ids,), {"ids": ids}):
            pytfmbs.summary(model, inputs)
        with pytest.raises(TypeError):
            pytfmbs.summary(model, {"no": ids})
        assert fabric.profile()["cycles"] == profile["cycles"]
        assert fabric.telemetry
        assert modes == [m.training for m in model.modules()]
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(TypeError, match="model must be"):
        pytfmbs.summary("no model")  # type: ignore[arg-type]


def test_the_table_fits_80_columns() -> None:
    model = nn.Module()
    model.add_module("model", nn.Module())
    layers = nn.ModuleList()
    for _ in range(18):
        layer = nn.Module()
        layer.self_attn = nn.Module()
        layer.self_attn.q_proj = nn.Linear(8, 8)
        layer.self_attn.a_name_that_is_longer_than_most_names = nn.Linear(8, 8)
        layers.append(layer)
    model.model.layers = layers
    pytfmbs.convert(model, **OPTIONS)
    lines = str(pytfmbs.summary(model)).split("\n")
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("model.layers.17.self_attn.q_proj ") for line in lines)
    assert any("…" in line and "than_most_names" in line for line in lines)
    assert "absmean, int8" in lines[2]


def test_packed_tied_and_uncalled_modules() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Identity())
    model[1].weight = model[0].weight
    model[2].unused = nn.Linear(64, 64)
    pytfmbs.convert(model, **OPTIONS)
    table = pytfmbs.summary(model, torch.randn(2, 64))
    assert [m.parameters for m in table.modules] == [64 * 65, 64, 64 * 65]
    assert [m.calls for m in table.modules] == [1, 1, 0]
    assert "not called" in str(table)
    assert "'2.unused'" in str(table)
    pytfmbs.freeze(model)
    packed = pytfmbs.summary(model, torch.randn(2, 64))
    assert [m.reason for m in packed.modules] == ["packed, int8"] * 3
    assert packed.modules[0].parameters == 64 * 65
    assert packed.modules[0].bytes < 0.2 * table.modules[0].bytes
