"""Models of many architectures: each ternary layer is called and counted in every mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import Fabric, FabricConfig, TFMBSLinear
from small_models import TORCH, TRANSFORMERS, Built, Inputs
from torch import nn

OPTIONS: dict[str, Any] = {"weight_quantizer": "absmean", "activation": "int8"}
CONFIG = FabricConfig(tiles=2, lanes=15, bank_depth=256)
MODES: dict[str, tuple[bool, Callable[[], AbstractContextManager[Any]]]] = {
    "train": (True, nullcontext),
    "eval": (False, nullcontext),
    "no_grad": (False, torch.no_grad),
    "inference_mode": (False, torch.inference_mode),
}


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(CONFIG) as fabric:
        yield fabric


def values(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]


def run(model: Any, inputs: Inputs) -> torch.Tensor:
    return values(model(**inputs) if "input" not in inputs else model(inputs["input"]))


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().norm() / other.norm())


def counted_layers(fabric: Fabric, call: Callable[[], torch.Tensor]) -> dict[str, int]:
    """Broadcasts of each layer in a call: none where the layer was not called."""
    fabric.reset_counters()
    call()
    layers = fabric.profile_detailed()["layers"]
    return {name: counters["broadcasts"] for name, counters in layers.items()}


def reference(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The model's output with every ternary layer's product computed from its trits by torch."""

    def forward(layer: TFMBSLinear) -> Callable[[torch.Tensor], torch.Tensor]:
        def product(x: torch.Tensor) -> torch.Tensor:
            trits, scale = layer.quantized_weight()
            largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
            levels = (x * (127 / largest)).round().clamp(-127, 127)
            sums = levels.double() @ trits.T.double()
            y = (sums * (largest / 127).double() * scale.double()).float()
            return y if layer.bias is None else y + layer.bias

        return product

    layers = [m for m in model.modules() if isinstance(m, TFMBSLinear)]
    for layer in layers:
        layer.forward = forward(layer)
    try:
        with torch.no_grad():
            return run(model, inputs)
    finally:
        for layer in layers:
            del layer.forward


@pytest.mark.parametrize("mode", [*MODES, "compiled"])
@pytest.mark.parametrize("build", [*TRANSFORMERS, *TORCH], ids=lambda build: build.__name__)
def test_each_ternary_layer_is_called_and_counted(
    build: Callable[[], Built], mode: str, fabric: Fabric
) -> None:
    torch.manual_seed(7)
    torch.compiler.reset()
    model, inputs = build()
    with torch.no_grad():
        floats = run(model.eval(), inputs)
    pytfmbs.convert(model, fabric=fabric, **OPTIONS)
    layers = [m for m in model.modules() if isinstance(m, TFMBSLinear)]
    assert len(layers) == {**TRANSFORMERS, **TORCH}[build]
    training, context = MODES.get(mode, (False, torch.no_grad))
    model.train(training)
    called: Any = torch.compile(model, backend="eager") if mode == "compiled" else model
    got = []
    with context():
        run(called, inputs)  # compiles
        counted = counted_layers(fabric, lambda: got.append(run(called, inputs)) or got[0])
    assert set(counted) == {layer.name for layer in layers}
    assert all(count > 0 for count in counted.values()), counted
    if not training:
        # Not bit for bit: a level of int8 flips where sums differ in their last bits.
        wanted = reference(model, inputs)
        assert distance(got[0], wanted) < 0.02
        assert not layers or distance(floats, wanted) > 0.05


@pytest.mark.parametrize("build", [*TRANSFORMERS, *TORCH], ids=lambda build: build.__name__)
def test_what_stays_in_floats_is_listed(build: Callable[[], Built]) -> None:
    model, inputs = build()
    parameters = sum(p.numel() for p in model.parameters())
    pytfmbs.convert(model, **OPTIONS)
    example = (inputs["input"],) if "input" in inputs else inputs
    table = pytfmbs.summary(model, example)
    assert table.parameters == parameters
    assert {m.path for m in table.modules if m.ternary} == {
        path for path, m in model.named_modules() if isinstance(m, TFMBSLinear)
    }
    assert all(m.reason for m in table.modules)
    assert all(m.calls for m in table.modules if m.ternary)
    assert sum(m.parameter_share for m in table.modules) == pytest.approx(1)
    assert 0 < sum(m.mac_share for m in table.modules) <= 1 + 1e-9
    assert all(len(line) <= 80 for line in str(table).split("\n")[:-1])
