"""Weights that several processes share: what layers know of them.

The kinds of tensor are torch.distributed's, and ``pytfmbs.distributed`` computes with them. It
enters itself here once torch has them, so that layers need neither.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor


class ShardedKind(Protocol):
    """Computes for trainable layers (``layer``) whose weight is a tensor of one kind."""

    def forward(self, layer: Any, input: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        """The forward pass."""

    def quantized_weight(self, layer: Any, weight: Any) -> tuple[Tensor, Tensor]:
        """Trits and scale of this process's part."""


#: By the type of the weight.
KINDS: dict[type, ShardedKind] = {}
