"""Exported models of several layers, of layers used in unusual ways, and programs of torch.export."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cases
import numpy as np
import pytest
import pytfmbs
import torch
from torch import nn
from torch.nn.utils import parametrize

pytest.importorskip("onnx")

import pytfmbs.onnx as tfmbs_onnx
from onnx_models import TORCH_WARNINGS, assert_same, checked, evaluate, export, run
from pytfmbs.onnx import metadata

pytestmark = TORCH_WARNINGS


@pytest.mark.parametrize("batch", [1, 4])
def test_deep_model(batch: int) -> None:
    sizes = (784, 61, 1030, 2000, 33, 17, 60, 10)
    layers: list[nn.Module] = []
    for i, (depth, outputs) in enumerate(pairwise(sizes)):
        layers += [
            pytfmbs.TFMBSLinear(
                depth,
                outputs,
                name=f"deep{i}",
                weight_quantizer=cases.QUANTIZERS[i % 3],
                activation=cases.ACTIVATIONS[i % 2],
            ),
            nn.ReLU(),
        ]
    model = nn.Sequential(*layers[:-1]).eval()
    x = cases.tensor(cases.generator(2), (batch, 784), torch.float32)
    proto = checked(export(model, x))
    assert_same(run(proto, x), model, x)
    hints = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert [h["layer"] for h in hints] == [m.name for m in model[::2]]


class Twice(nn.Module):
    """One layer called twice, and one whose weight is tied to it."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.a = pytfmbs.TFMBSLinear(12, 12, name="twice.a", activation=activation)
        self.b = pytfmbs.TFMBSLinear(12, 12, name="twice.b", activation=activation)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(self.a(x))) + self.a(x)


@pytest.mark.parametrize("mode", ["portable", "custom"])
@pytest.mark.parametrize("how", ["own", "torch", "program"])
def test_layers_called_twice_and_tied_weights(mode: str, how: str) -> None:
    model = Twice("int8").eval()
    x = cases.tensor(cases.generator(3), (4, 12), torch.float32)
    proto = checked(export(model, x, how, mode=mode))
    names = [h["layer"] for node in proto.graph.node if (h := metadata.read(node)) is not None]
    # a(x) is there once
    assert sorted(names) == [model.a.name, model.a.name, model.b.name]
    weights = [t for t in proto.graph.initializer if t.data_type in (2, 3)]
    assert len(weights) == 1  # the trits, once
    found = run(proto, x) if mode == "portable" else evaluate(proto, x)
    assert_same(found, model, x)


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2 - 0.25


@pytest.mark.parametrize("how", ["own", "program"])
def test_parametrized_weight(how: str) -> None:
    layer = pytfmbs.TFMBSLinear(9, 4, weight_quantizer="twn").eval()
    parametrize.register_parametrization(layer, "weight", Doubled())
    x = cases.tensor(cases.generator(4), (2, 9), torch.float32)
    assert_same(run(checked(export(layer, x, how)), x), layer, x)


class Float32Out(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).to(torch.float32)


def test_autocast_chooses_the_outputs_type() -> None:
    layer = pytfmbs.TFMBSLinear(20, 6, activation="int8", weight_quantizer="twn").eval()

    class Autocast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(x).float()

    x = cases.tensor(cases.generator(5), (3, 20), torch.float32)
    model = Autocast().eval()
    with torch.autocast("cpu", torch.bfloat16):
        program = tfmbs_onnx.export(Float32Out(layer), (x,))
        custom = tfmbs_onnx.export(Float32Out(layer), (x,), mode="custom")
    assert_same(run(checked(program), x), model, x)
    assert_same(evaluate(checked(custom), x), model, x)


class Heads(nn.Module):
    """Three layers of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(pytfmbs.TFMBSLinear(16, 8, activation="int8") for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (head(x) for head in self.heads)
        return q * k + v


def test_layers_of_one_input_share_its_quantization() -> None:
    model, x = Heads().eval(), cases.tensor(cases.generator(9), (3, 16), torch.float32)
    proto = checked(export(model, x))
    assert [n.op_type for n in proto.graph.node].count("Round") == 1
    names = [h["layer"] for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert sorted(names) == sorted(head.name for head in model.heads)
    assert_same(run(proto, x), model, x)


def test_loaded_program(tmp_path: Path) -> None:
    layer = pytfmbs.TFMBSLinear(14, 5, weight_quantizer="twn", activation="int8").eval()
    x = cases.tensor(cases.generator(8), (2, 14), torch.float32)
    torch.export.save(torch.export.export(layer, (x,)), tmp_path / "layer.pt2")
    program = torch.export.load(tmp_path / "layer.pt2")
    assert_same(run(checked(tfmbs_onnx.export(program)), x), layer, x)


def test_program_is_not_changed_by_its_export() -> None:
    layer = pytfmbs.TFMBSLinear(10, 4).eval()
    x = torch.randn(2, 10)
    program = torch.export.export(layer, (x,))
    before = str(program.graph_module.code)
    tfmbs_onnx.export(program)
    assert str(program.graph_module.code) == before
    torch.testing.assert_close(program.module()(x), layer(x), rtol=0, atol=0)


def test_model_without_the_layer_exports_plainly() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).eval()
    x = torch.randn(3, 5)
    proto = checked(tfmbs_onnx.export(model, (x,), mode="custom"))
    assert all(metadata.layer(node) is None for node in proto.graph.node)
    np.testing.assert_allclose(run(proto, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
