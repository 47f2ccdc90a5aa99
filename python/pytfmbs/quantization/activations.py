"""How a layer quantizes its activations."""

from __future__ import annotations

from typing import Final

#: The runtime's names (cpp/runtime/src/layer_spec.cpp).
ACTIVATIONS: Final = ("ternary", "int8")
