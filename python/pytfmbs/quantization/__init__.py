"""From floats to trits: weight quantizers, names of activations, PT-5."""

from __future__ import annotations

from .activations import ACTIVATIONS
from .packing import pack_pt5, unpack_pt5
from .quantizers import AbsMeanQuantizer, SignQuantizer, TwnQuantizer, WeightQuantizer

__all__ = [
    "ACTIVATIONS",
    "AbsMeanQuantizer",
    "SignQuantizer",
    "TwnQuantizer",
    "WeightQuantizer",
    "pack_pt5",
    "unpack_pt5",
]
