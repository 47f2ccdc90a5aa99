"""Layers: modules, and the autograd function for code that brings its own parameters."""

from __future__ import annotations

from .function import TFMBSLinearFunction
from .linear import TFMBSLinear
from .linear_relu import TFMBSLinearReLU

__all__ = ["TFMBSLinear", "TFMBSLinearFunction", "TFMBSLinearReLU"]
