"""litespark-inference: its runtime's calls for a linear layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .base import Call, Contestant, Layer, Unavailable, Weights

MOST_ROWS = 64  # a call of its batched product takes


class PackedLayer(Layer):
    def __init__(self, kernel: Any, packed: Any) -> None:
        self.kernel, self.packed, self.weight_bytes = kernel, packed, packed.nbytes

    def bind(self, x: Tensor) -> Call:
        kernel, packed, values = self.kernel, self.packed, x.numpy()
        rows, depth = values.shape
        quantized = np.empty((rows, depth), np.int8)
        scales = np.empty(rows, np.float32)
        output = np.empty((rows, packed.shape[0]), np.float32)
        if rows == 1:
            row, row_q, row_out = values[0], quantized[0], output[0]

            def one() -> Any:
                scale = kernel.quantize_activation(row, row_q)
                kernel.matmul_packed_m1(row_q, packed, 1.0, scale, row_out)
                return output

            return one
        parts = [slice(first, first + MOST_ROWS) for first in range(0, rows, MOST_ROWS)]
        cuts = [(quantized[part], scales[part], output[part]) for part in parts]

        def call() -> Any:
            kernel.quantize_activation_batched(values, quantized, scales)
            for q, scale, out in cuts:
                kernel.matmul_packed_mT(q, scale, packed, 1.0, out)
            return output

        return call


class Litespark(Contestant):
    name = "litespark-inference"
    activation = "int8"
    package = "litespark-inference"
    tolerance = 2e-2
    holdable = ("avx2",)

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels, held)
        from litespark_inference.torchless import kernel, pack

        kernel.ensure_built()
        self.kernel, self.pack = kernel, pack.pack_ternary_4_per_byte

    def build(self, weights: Weights) -> Layer:
        if weights.depth % 4:
            raise Unavailable("needs depths in multiples of 4")
        if "litespark" not in weights.shared:
            weights.shared["litespark"] = self.pack(weights.trits)
        return PackedLayer(self.kernel, weights.shared["litespark"].copy())
