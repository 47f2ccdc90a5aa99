"""The path of ``TFMBSLinearReLU`` in saved models; it is defined in pytfmbs.nn.linear_relu."""

from .nn.linear_relu import TFMBSLinearReLU

__all__ = ["TFMBSLinearReLU"]
