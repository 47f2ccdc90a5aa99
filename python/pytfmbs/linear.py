"""The path of ``TFMBSLinear`` in saved models; it is defined in pytfmbs.nn.linear."""

from .nn.linear import TFMBSLinear

__all__ = ["TFMBSLinear"]
