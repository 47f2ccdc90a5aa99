"""The public path of the weight quantizers; they are defined in pytfmbs.quantization.quantizers."""

from .quantization.quantizers import (
    AbsMeanQuantizer,
    SignQuantizer,
    TwnQuantizer,
    WeightQuantizer,
)

__all__ = ["AbsMeanQuantizer", "SignQuantizer", "TwnQuantizer", "WeightQuantizer"]
