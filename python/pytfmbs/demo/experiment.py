"""Every network, every seed: accuracy on the held-out digits, and cycles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean

import torch
from torch import nn

from .._fabric import Fabric
from .data import Digits
from .recipes import CHOSEN, FP32, QUANTIZED, RECIPES, Recipe
from .train import accuracy, train


@dataclass
class Row:
    """A network's results, a seed at a time."""

    key: str
    title: str
    recipe: Recipe
    accuracies: list[float] = field(default_factory=list)  # percent of the held-out digits
    cycles: list[float] = field(default_factory=list)  # a digit; empty for fp32

    @property
    def accuracy(self) -> float:
        return mean(self.accuracies)


@dataclass
class Results:
    """The rows by key, and the first seed's chosen network."""

    seeds: int
    epochs: int
    rows: dict[str, Row]
    model: nn.Sequential

    @property
    def below_fp32(self) -> float:
        """Points of accuracy that the chosen ternary network lies below fp32, in the mean."""
        return self.rows["fp32"].accuracy - self.rows["chosen"].accuracy

    @property
    def above_quantized(self) -> float:
        """Points that it lies above the best of the fp32 networks just quantized."""
        best = max(self.rows[f"{recipe.key}_quantized"].accuracy for recipe in QUANTIZED)
        return self.rows["chosen"].accuracy - best


def run(
    digits: Digits, seeds: Sequence[int], epochs: int, after_epoch: Callable[[Recipe, int], object]
) -> Results:
    """Trains every recipe with every seed, and quantizes each fp32 network as it is."""
    rows = {recipe.key: Row(recipe.key, recipe.title, recipe) for recipe in RECIPES}
    quantized = {
        recipe: Row(f"{recipe.key}_quantized", "just quantized", recipe) for recipe in QUANTIZED
    }
    rows |= {row.key: row for row in quantized.values()}
    shown: nn.Sequential | None = None
    for seed in seeds:
        for recipe in RECIPES:
            model = train(
                recipe,
                digits.train_images,
                digits.train_labels,
                epochs=epochs,
                seed=seed,
                after_epoch=partial(after_epoch, recipe, seed),
            )
            _measure(rows[recipe.key], model, digits)
            if recipe is FP32:
                for target, row in quantized.items():
                    _measure(row, _quantize(model, target), digits)
            if recipe is CHOSEN and shown is None:
                shown = model
    if shown is None:
        raise ValueError("run takes at least one seed")
    return Results(len(seeds), epochs, rows, shown)


def _quantize(fp32: nn.Sequential, recipe: Recipe) -> nn.Sequential:
    """The same parameters in a ternary network: quantization after training."""
    model = recipe.build().eval()
    model.load_state_dict(fp32.state_dict())
    return model


def _measure(row: Row, model: nn.Sequential, digits: Digits) -> None:
    fabric = Fabric()
    fabric.reset_counters()
    row.accuracies.append(accuracy(model, digits.test_images, digits.test_labels))
    if row.recipe.quantizer is not None:
        row.cycles.append(fabric.profile()["cycles"] / len(digits.test_images))


def show_on_fabric(model: nn.Sequential, digits: Digits) -> dict[str, object]:
    """``profile_detailed()`` of one forward over the held-out digits."""
    fabric = Fabric()
    fabric.reset_counters()
    with torch.inference_mode():
        model(digits.test_images)
    return fabric.profile_detailed()
