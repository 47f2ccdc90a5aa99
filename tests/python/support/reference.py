"""TFMBSLinear's numbers in NumPy, written from the formulas of the documentation and not from the
code.

Everything is done in the order and the precision that docs/python-api.md fixes, so tests ask for
equal bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

INT8_PLANES = 6


def exact(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as fp32, or fp64 if it is: 16-bit floats are fp32 values, so nothing is rounded."""
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return wide.detach().cpu().contiguous().numpy()


def sign_trits(values: np.ndarray) -> np.ndarray:
    """Signs as int8; NaN and both zeros are 0."""
    return (values > 0).astype(np.int8) - (values < 0).astype(np.int8)


def exact_sum(magnitudes: np.ndarray) -> float:
    """The exact sum of numbers that are not negative, rounded once to fp64; infinite beyond it."""
    try:
        return math.fsum(magnitudes.ravel().tolist())
    except OverflowError:
        return math.inf


def exact_mean(magnitudes: np.ndarray) -> float:
    """The exact sum, rounded, divided by how many they are; 0 of none."""
    return exact_sum(magnitudes) / magnitudes.size if magnitudes.size else 0.0


@dataclass(frozen=True)
class QuantizedWeight:
    """trits [out, in] int8; scale [1] or [out], of the epilogue's precision; nan [out]."""

    trits: np.ndarray
    scale: np.ndarray
    nan: np.ndarray


def quantize_weight(weight: torch.Tensor, quantizer: str) -> QuantizedWeight:
    """sign, absmean or twn of a matrix [out, in]. Statistics leave NaNs out."""
    values = exact(weight)
    precision = values.dtype
    missing = np.isnan(values)
    wide = values.astype(np.float64)
    magnitudes = np.where(missing, 0.0, np.abs(wide))
    trits, nan = sign_trits(values), missing.any(axis=1)
    if quantizer == "sign":
        return QuantizedWeight(trits, np.ones(1, precision), nan)
    if quantizer == "absmean":
        scale = max(exact_mean(magnitudes[~missing]), 1e-5)
        kept = magnitudes > 0.5 * scale
        return QuantizedWeight(trits * kept, np.array([scale]).astype(precision), nan)
    assert quantizer == "twn", quantizer
    means = [exact_mean(row[there]) for row, there in zip(magnitudes, ~missing, strict=True)]
    kept = magnitudes > (0.7 * np.array(means))[:, None]
    scales = [exact_mean(row[above]) for row, above in zip(magnitudes, kept, strict=True)]
    return QuantizedWeight(trits * kept, np.array(scales).astype(precision), nan)


@dataclass(frozen=True)
class QuantizedInput:
    """values [samples, in] int8 (trits, or -127...127); scale [samples]; nan [samples]."""

    values: np.ndarray
    scale: np.ndarray
    nan: np.ndarray


def quantize_input(rows: torch.Tensor, activation: str) -> QuantizedInput:
    """ternary or int8 of a matrix [samples, in]."""
    values = exact(rows)
    one = values.dtype.type
    if activation == "ternary":
        nan = np.isnan(values).any(axis=1)
        return QuantizedInput(sign_trits(values), np.ones(len(values), values.dtype), nan)
    assert activation == "int8", activation
    nan = ~np.isfinite(values).all(axis=1)
    finite = np.where(nan[:, None], one(0), values)
    largest = np.maximum(np.abs(finite).max(axis=1, initial=0), one(1e-5))
    levels = np.rint(finite * (one(127) / largest)[:, None])  # rint: halves to even
    return QuantizedInput(np.clip(levels, -127, 127).astype(np.int8), largest / one(127), nan)


def planes_of(values: np.ndarray, planes: int) -> np.ndarray:
    """Balanced-trit planes, [planes, samples, in], the most significant first: sum of 3^p times
    plane p."""
    rest = values.astype(np.int32)
    digits = []
    for _ in range(planes):
        trit = (rest + 1) % 3 - 1
        digits.append(trit.astype(np.int8))
        rest = (rest - trit) // 3
    assert not rest.any(), "value needs more planes"
    return np.stack(digits[::-1])


def linear(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    quantizer: str | QuantizedWeight = "sign",
    activation: str = "ternary",
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """The layer's output: exact integers, then fp32(acc)·(sx·sw) + b, each rounded once, then the
    output's dtype.

    input [..., in]; weight [out, in]; quantizer: a built-in's name, or what a custom one gave.
    """
    w = quantizer if isinstance(quantizer, QuantizedWeight) else quantize_weight(weight, quantizer)
    x = quantize_input(input.reshape(-1, input.shape[-1]), activation)
    precision = np.float64 if input.dtype == torch.float64 else np.float32
    # fp64 holds these integers exactly (127·5,000 < 2^53), and its matmul is fast.
    sums = x.values.astype(np.float64) @ w.trits.astype(np.float64).T
    with np.errstate(all="ignore"):  # infinite scales, fp16 overflow: part of what is tested
        scale = x.scale.astype(precision)[:, None] * w.scale.astype(precision)[None, :]
        y = sums.astype(np.int64).astype(precision) * scale
        if bias is not None:
            y = y + exact(bias).astype(precision)
    y[x.nan, :] = np.nan
    y[:, w.nan] = np.nan
    out = torch.from_numpy(y).reshape(*input.shape[:-1], weight.shape[0])
    return out.to(out_dtype or input.dtype)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal shape, dtype and bits, signs of zeros included; any NaN equals any NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    as_int = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    a, b = a.detach().contiguous(), b.detach().contiguous()
    equal = (a.view(as_int) == b.view(as_int)) | (a.isnan() & b.isnan())
    return bool(equal.all())
