"""Weight quantizers: from a weight matrix to trits and scales (formulas: docs/python-api.md,
"Quantizers")."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from . import ops


@runtime_checkable
class WeightQuantizer(Protocol):
    """What a layer's ``weight_quantizer`` has to be: write your own by writing these two.

    ``name`` shows in telemetry. The call takes the weight, [out, in] of a float dtype, and returns
    trits, int8 [out, in] of -1, 0 and +1, and scale, float32 or float64, of one value or one an
    output, [1] or [out]. It should consist of torch ops, so that torch.compile and torch.export can
    trace it. The product is exact in the trits; the scale is applied to it afterwards.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]: ...


class _BuiltIn:
    """A quantizer that the C++ core has; layers quantize with it inside the op."""

    name: str

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        trits, scale = ops.quantize_weight(weight, self.name)
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
    """Ternary weight networks (Li et al. 2016), an output at a time: trit = sign(w) where |w| >
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
    return quantizer.name if isinstance(quantizer, _BuiltIn) else "custom"
