"""What everybody who makes or reads a ``telemetry_hint`` agrees on."""

from __future__ import annotations

import math


def rounded_sparsity(zeros: int, size: int) -> float:
    """Zeros among the trits, to four decimals, halves up, as ``Fabric.profile_detailed`` says it."""
    scaled = (zeros / size if size else 0.0) * 1e4
    whole = math.floor(scaled)
    return (whole + 1 if scaled - whole >= 0.5 else whole) / 1e4
