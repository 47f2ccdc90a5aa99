"""transformers' BitLinear: what a BitNet checkpoint runs on there."""

from __future__ import annotations

import torch

from .base import Contestant, Layer, Unavailable, Weights
from .torch_layers import ModuleLayer


class BitLinear(Contestant):
    name = "transformers BitLinear bf16"
    activation = "int8"
    package = "transformers"
    tolerance = 2e-2
    slow = True

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels, held)
        from transformers.integrations import bitnet

        self.bitnet = bitnet

    def build(self, weights: Weights) -> Layer:
        if weights.outputs % 4:
            raise Unavailable("needs outputs in multiples of 4")
        layer = self.bitnet.BitLinear(
            weights.depth, weights.outputs, bias=False, dtype=torch.bfloat16
        )
        layer.weight = self.bitnet.pack_weights(torch.from_numpy(weights.trits.copy()))  # type: ignore[assignment]
        return ModuleLayer(layer, weights.trits.size // 4, torch.bfloat16)
