"""Sizes, data and settings that the tests share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, settings

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
QUANTIZERS = ("sign", "absmean", "twn")
ACTIVATIONS = ("ternary", "int8")

#: Derandomized: the same examples on every machine and run, so a failure repeats. Set the
#: environment's
#: HYPOTHESIS_PROFILE=explore (conftest.py) for new ones. A failing example is printed with its
#: blob.
SETTINGS: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
    "phases": (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
}


def campaign(examples: int) -> settings:
    """Settings of one property: how many examples, everything else from the profile and
    SETTINGS."""
    return settings(max_examples=examples, **SETTINGS)


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def tensor(rng: np.random.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape)).to(dtype)


def sparse(rng: np.random.Generator, values: torch.Tensor, zeros: float) -> torch.Tensor:
    """values with a share of its elements set to 0."""
    mask = torch.from_numpy(rng.random(tuple(values.shape)) < zeros)
    return values.masked_fill(mask, 0.0)
