"""Networks that the agent's tests run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from cases import generator
from pytfmbs import Fabric, TFMBSLinear
from torch import Tensor, nn


def chain(
    fabric: Fabric, widths: Sequence[int], seed: int = 0, zeros: float = 0.0, **options: object
) -> nn.Sequential:
    """Layers fc1, fc2, ... with ReLU between; a share of the weights is zero."""
    rng = generator(seed)
    modules: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
        layer = TFMBSLinear(inputs, outputs, fabric=fabric, name=f"fc{index}", **options)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(rng.standard_normal((outputs, inputs))))
            layer.weight[torch.from_numpy(rng.random((outputs, inputs))) < zeros] = 0.0
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules[:-1]).eval()


def layers(model: nn.Module) -> list[TFMBSLinear]:
    return [module for module in model.modules() if isinstance(module, TFMBSLinear)]


def steady(
    model: nn.Module, fabric: Fabric, x: Tensor, warm_up: int = 4, forwards: int = 2
) -> tuple[dict[str, float], Tensor]:
    """Counters of one forward once residency has settled, and the output."""
    with torch.inference_mode():
        for _ in range(warm_up):
            model(x)
        fabric.reset_counters()
        for _ in range(forwards):
            y = model(x)
    counted = fabric.profile()
    return {key: value / forwards for key, value in counted.items() if key != "layers"}, y
