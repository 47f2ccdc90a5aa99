"""TFMBSLinearReLU: a layer and its ReLU in one pass over the output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import torch_ops, transforms
from .linear import TFMBSLinear


class TFMBSLinearReLU(TFMBSLinear):
    """``nn.Sequential(TFMBSLinear(...), nn.ReLU())`` as one module: the same arguments, parameters,
    numbers and telemetry.

    Where nothing is differentiated or traced, the ReLU is applied as the outputs are scaled, before
    they are rounded to their dtype, and the output is written once.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features], none below 0. Bad input raises what nn.Linear
        raises."""
        weight = self.weight
        if (
            torch.is_grad_enabled()
            or self._custom
            or type(weight) is not nn.Parameter
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()  # type: ignore[attr-defined]
            or transforms.differentiated()
        ):
            return torch.relu(super().forward(input))
        try:
            if not self.training:
                output = self._layer.direct_forward(input, weight, self.bias, True)
                if output is not None:
                    return output  # type: ignore[return-value]
            with self._named_in_profiles():
                return torch_ops.linear_relu(  # type: ignore[no-any-return]
                    input,
                    weight,
                    self.bias,
                    self._own_identity,
                    self._quantizer_name,
                    self._activation,
                    self._window,
                    self.training or self._is_shared(weight),
                )
        except (RuntimeError, TypeError) as error:
            self._raise_as_linear_does(error, input)
