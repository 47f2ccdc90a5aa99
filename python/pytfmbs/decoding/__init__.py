"""Faster decoding: decoder blocks in one call each, and an output head of int8 (docs/decoding.md)."""

from .compare import DecodeComparison, compare_decoding
from .prepare import DecodeReport, prepare_for_decode, restore_after_decode

__all__ = [
    "DecodeComparison",
    "DecodeReport",
    "compare_decoding",
    "prepare_for_decode",
    "restore_after_decode",
]
