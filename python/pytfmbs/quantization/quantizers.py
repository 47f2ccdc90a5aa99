"""Weight quantizers: from a weight matrix to trits and scales (formulas: docs/python-api.md,
"Quantizers")."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..errors import ArgumentError
from ..ops import torch_ops
from ..ops.dense import check_layout


@runtime_checkable
class WeightQuantizer(Protocol):
    """The interface of a ``weight_quantizer``: a name and a call.

    ``name`` appears in telemetry. The call takes the weight, [out, in] of a float dtype. It returns
    trits, int8 [out, in] of -1, 0 and +1, and scale, float32 or float64, [1] or [out]. Use torch ops,
    so that torch.compile and torch.export can trace it.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]: ...


class _BuiltIn:
    """A quantizer that the C++ core has; layers quantize with it inside the op."""

    name: str

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        trits, scale = torch_ops.quantize_weight(weight, self.name)
        return trits, scale

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class SignQuantizer(_BuiltIn):
    """trit = sign(w), scale 1."""

    name = "sign"


class AbsMeanQuantizer(_BuiltIn):
    """BitNet b1.58 (Ma et al. 2024): s = max(mean|w|, 1e-5), trit = round(w/s) clipped to ±1, one
    scale s."""

    name = "absmean"


class TwnQuantizer(_BuiltIn):
    """Ternary weight networks (Li et al. 2016), for each output: trit = sign(w) where |w| >
    0.7·mean|w|, else 0; scale = the mean of those |w|."""

    name = "twn"


BUILT_IN: dict[str, _BuiltIn] = {
    q.name: q for q in (SignQuantizer(), AbsMeanQuantizer(), TwnQuantizer())
}


def resolve(quantizer: str | WeightQuantizer) -> WeightQuantizer:
    """The quantizer of a name, or the object itself. Raises ValueError or TypeError, naming what is
    allowed."""
    if isinstance(quantizer, str):
        if quantizer not in BUILT_IN:
            allowed = ", ".join(map(repr, BUILT_IN))
            raise ValueError(
                f"weight_quantizer is {quantizer!r}; allowed are {allowed}, or a quantizer object"
            )
        return BUILT_IN[quantizer]
    if isinstance(quantizer, type) or not isinstance(quantizer, WeightQuantizer):
        raise TypeError(
            "weight_quantizer must be a name or an object with `name` and "
            f"`__call__(weight) -> (trits, scale)`, not {quantizer!r}"
        )
    return quantizer


def spec_name(quantizer: WeightQuantizer) -> str:
    """The quantizer's name in a layer specification: a built-in's own, else "custom"."""
    return quantizer.name if is_built_in(quantizer) else "custom"


def is_built_in(quantizer: WeightQuantizer) -> bool:
    """Whether it is one of the C++ core's: a user's own may have any name."""
    return isinstance(quantizer, _BuiltIn)


def as_trits(trits: Tensor) -> Tensor:
    """A matrix of trits of any real dtype as int8. Raises ArgumentError for the first value, in
    row-major order, that is no trit."""
    if not isinstance(trits, Tensor) or trits.dim() != 2:
        kind = f"of shape {tuple(trits.shape)}" if isinstance(trits, Tensor) else type(trits)
        raise ArgumentError(f"trits must be a matrix, out_features x in_features, not {kind}")
    if trits.dtype.is_complex:
        raise ArgumentError(f"trits are {trits.dtype}; they must be of an integer or float dtype")
    given = trits.detach()
    if given.device.type == "meta":
        return given.to(torch.int8)
    if given.dtype == torch.int8:
        wrong = (given + 1).view(torch.uint8) > 2
    else:
        if not given.dtype.is_floating_point:
            given = given.to(torch.int64)  # where 255 of uint8 is not -1
        wrong = (given != 0) & (given != 1) & (given != -1)
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise ArgumentError(
            f"trits hold {trits[row, column].item()} at row {row}, column {column}; "
            "allowed are -1, 0 and +1"
        )
    return given.to(torch.int8)


def check_trits(trits: Tensor) -> None:
    """Raises ArgumentError for the first int8 value that a quantizer gave, in row-major order, and
    that is no trit."""
    wrong = trits.abs() > 1
    wrong |= trits == -128  # whose absolute value is itself
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise ArgumentError(
            f"the weight quantizer gave {trits[row, column].item()} at row {row}, column {column}; "
            "allowed are -1, 0 and +1"
        )


def apply(quantizer: WeightQuantizer, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Trits and scale, [1] or [out], of a weight; what a user's quantizer gave is checked.

    Raises ArgumentError, naming the quantizer and what it gave.
    """
    if isinstance(quantizer, _BuiltIn):
        return quantizer(weight)
    given: Any = quantizer(weight)  # whatever a user's code gave
    name = f"quantizer {quantizer.name!r}"
    if not isinstance(given, tuple) or len(given) != 2:
        raise ArgumentError(f"{name} must give (trits, scale), not {type(given).__name__}")
    trits, scale = given
    if not isinstance(trits, Tensor) or not isinstance(scale, Tensor):
        kinds = f"{type(trits).__name__} and {type(scale).__name__}"
        raise ArgumentError(f"{name} must give tensors, not {kinds}")
    if trits.dtype != torch.int8 or trits.shape != weight.shape:
        raise ArgumentError(
            f"{name}: trits are {trits.dtype} of shape {tuple(trits.shape)}; "
            f"they must be int8 of the weight's, {tuple(weight.shape)}"
        )
    if scale.dtype not in (torch.float32, torch.float64) or scale.numel() not in (
        1,
        weight.shape[0],
    ):
        raise ArgumentError(
            f"{name}: scale is {scale.dtype} of {scale.numel()} values; it must be float32 or "
            f"float64 of 1 or {weight.shape[0]}"
        )
    check_layout(trits, f"{name}: trits")
    check_layout(scale, f"{name}: scale")
    if trits.device != weight.device or scale.device != weight.device:
        devices = f"{trits.device} and {scale.device}"
        raise ArgumentError(
            f"{name}: trits and scale are on {devices}, the weight on {weight.device}"
        )
    return trits, scale.reshape(-1)
