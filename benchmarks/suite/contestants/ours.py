"""pytfmbs itself: both products, telemetry off (the product) and on."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytfmbs
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..machine import last_level_cache
from .base import Call, Contestant, Layer, Weights


class OurLayer(Layer):
    def __init__(self, weights: Weights, activation: str) -> None:
        self.layer = pytfmbs.TFMBSLinear(
            weights.depth, weights.outputs, False, device="meta", activation=activation
        )
        self.layer.weight = torch.nn.Parameter(weights.kept_floats(), requires_grad=False)
        self.layer.eval()
        self.settle()

    def settle(self) -> None:
        """A forward packs, and packs anew where the layers beside it ask for another layout."""
        self.layer(torch.zeros(1, self.layer.in_features))
        self.weight_bytes = self.layer.packed_bytes
        self.layout = str(self.layer._layer.packed_layout)

    def bind(self, x: Tensor) -> Call:
        layer = self.layer
        return lambda: layer(x)


class Ours(Contestant):
    ours = True
    package = "pytfmbs"
    tolerance: ClassVar[float | None] = None
    telemetry = False

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels)  # TFMBS_KERNEL holds it to any set
        if pytfmbs.active_kernels() != kernels:
            raise RuntimeError(f"the kernels are {pytfmbs.active_kernels()}, not {kernels}")
        self.fabric = pytfmbs.Fabric()

    def build(self, weights: Weights) -> Layer:
        return OurLayer(weights, self.activation)

    def enter(self) -> None:
        self.fabric.telemetry = self.telemetry


class Int8(Ours):
    name = "pytfmbs int8 × ternary"
    activation = "int8"
    tolerance = 1e-6  # of fp32's rounding; the integers are equal

    def reference(self, x: NDArray[np.float64], trits: NDArray[np.int8]) -> NDArray[np.float64]:
        largest = np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-5).astype(np.float32)
        scale = np.float32(127) / largest
        quantized = np.rint(x.astype(np.float32) * scale).astype(np.int64)
        scaled: NDArray[np.float64] = (quantized @ trits.T.astype(np.int64)) * (
            largest.astype(np.float64) / 127
        )
        return scaled


class Int8Telemetry(Int8):
    name = "pytfmbs int8 × ternary, telemetry"
    telemetry = True
    hot_only = True


class Trit(Ours):
    name = "pytfmbs ternary × ternary"
    activation = "ternary"

    def reference(self, x: NDArray[np.float64], trits: NDArray[np.int8]) -> NDArray[np.float64]:
        return np.sign(x) @ trits.T.astype(np.float64)


class TritTelemetry(Trit):
    name = "pytfmbs ternary × ternary, telemetry"
    telemetry = True
    hot_only = True


def choose_storage(weights: Weights, *, cold: bool) -> None:
    """The layout that one such layer, or a cold set of them, gets by itself: the suite holds more
    layers at once than a model of that size would."""
    small = weights.outputs * weights.depth / 4 <= last_level_cache() / 2
    pytfmbs.set_weight_storage("cached" if small and not cold else "auto")
