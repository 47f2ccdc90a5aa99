"""Ternary model files in and out: transformers' BitNet, GGUF, and pytfmbs's own (docs/checkpoints.md)."""

from .contents import ternary_tensor
from .converting import convert_checkpoint
from .gguf_writing import add_gguf_tensor
from .loading import load_into
from .opening import open_checkpoint
from .reader import Checkpoint
from .saving import save
from .tensors import TernaryTensor

__all__ = [
    "Checkpoint",
    "TernaryTensor",
    "add_gguf_tensor",
    "convert_checkpoint",
    "load_into",
    "open_checkpoint",
    "save",
    "ternary_tensor",
]
