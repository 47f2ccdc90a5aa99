"""An output head with int8 weights: half of bf16's bytes, which a decode step reads once a token."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ..ops import decode_ops
from ..ops.observers import is_storage_of, storage_reference

_CODES = "_tfmbs_codes"


class Int8Linear(nn.Linear):
    """What an ``nn.Linear`` becomes: its weight stays as it is (it may be the embedding's too) and is
    read no more; int8 values of it are.

    Formula: weight and input are quantized a row at a time, q = round(127 x / max|x|); the product is
    exact and scaled back (docs/decoding.md). A weight that changed is quantized anew.

    Raises RuntimeError where a gradient is asked for: there is none.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]; float32, bfloat16 or float16."""
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):
            raise RuntimeError(
                "an int8 output head has no gradient: use torch.no_grad(), or "
                "pytfmbs.restore_after_decode(model) before training"
            )
        values, scales = self._codes()
        return decode_ops.int8_linear(input, values, scales, self.bias)  # type: ignore[no-any-return]

    def _codes(self) -> tuple[Tensor, Tensor]:
        kept: _Kept | None = self.__dict__.get(_CODES)
        if kept is not None and torch.compiler.is_dynamo_compiling():
            return kept.codes
        if kept is None or not kept.is_of(self.weight):
            kept = _Kept.of(self.weight)
            self.__dict__[_CODES] = kept
        return kept.codes

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop(_CODES, None)
        return state


class _Kept(NamedTuple):
    """Codes of a weight, and what tells whether it is still what they were made of: its memory, told
    from all that takes the address later, and its version."""

    codes: tuple[Tensor, Tensor]
    storage: StorageWeakRef | None
    state: tuple[Any, ...]

    @classmethod
    def of(cls, weight: Tensor) -> _Kept:
        codes = decode_ops.int8_rows(weight.detach())
        return cls(codes, storage_reference(weight), _state_of(weight))

    def is_of(self, weight: Tensor) -> bool:
        if weight.is_inference():  # torch does not count its changes
            return False
        return is_storage_of(self.storage, weight) and self.state == _state_of(weight)


def _state_of(weight: Tensor) -> tuple[Any, ...]:
    version = None if weight.is_inference() else weight._version
    return weight.storage_offset(), weight.stride(), weight.dtype, weight.shape, version


def to_int8(head: nn.Linear) -> None:
    """Makes an nn.Linear an Int8Linear, in place."""
    object.__setattr__(head, "__class__", Int8Linear)
    assert isinstance(head, Int8Linear)
    with torch.no_grad():
        head._codes()


def to_float(head: Int8Linear) -> None:
    """Undoes it."""
    head.__dict__.pop(_CODES, None)
    object.__setattr__(head, "__class__", nn.Linear)
