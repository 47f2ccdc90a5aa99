"""The torch ops, namespace ``tfmbs`` (torch_ops.py), and what everything that calls them shares.

Importing this package loads the C++ libraries.
"""

from __future__ import annotations

from .libraries import load_torch_ops

load_torch_ops()

from .torch_ops import (  # noqa: E402
    linear,
    linear_relu,
    linear_trits,
    onnx_linear,
    pack,
    pack_trits,
    packed_linear,
    prefetch,
    prefetch_packed,
    prefetch_trits,
    quantize_activation,
    quantize_weight,
)

__all__ = [
    "linear",
    "linear_relu",
    "linear_trits",
    "onnx_linear",
    "pack",
    "pack_trits",
    "packed_linear",
    "prefetch",
    "prefetch_packed",
    "prefetch_trits",
    "quantize_activation",
    "quantize_weight",
]
