"""Ternary model files in and out: transformers' BitNet, GGUF, and pytfmbs's own (docs/checkpoints.md)."""

from .loading import load_into
from .opening import open_checkpoint
from .reader import Checkpoint
from .saving import add_gguf_tensor, save, ternary_tensor
from .tensors import TernaryTensor

__all__ = [
    "Checkpoint",
    "TernaryTensor",
    "add_gguf_tensor",
    "load_into",
    "open_checkpoint",
    "save",
    "ternary_tensor",
]
