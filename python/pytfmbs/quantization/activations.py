"""How a layer quantizes its activations: the modes of cpp/linear/src/activation.cpp."""

from __future__ import annotations

from typing import Final

from .. import _fabric

#: Names of the modes, and the straight-through window that each has by default.
WINDOWS: Final[dict[str, float | None]] = dict(_fabric.activation_modes())
ACTIVATIONS: Final = tuple(WINDOWS)
