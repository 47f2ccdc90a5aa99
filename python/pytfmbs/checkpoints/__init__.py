"""Ternary model files in and out: transformers' BitNet, GGUF, and pytfmbs's own (docs/checkpoints.md)."""

from .opening import open_checkpoint
from .reader import Checkpoint
from .tensors import TernaryTensor

__all__ = ["Checkpoint", "TernaryTensor", "open_checkpoint"]
