"""A layer's identity as data: what ops carry of its name, place and device."""

from __future__ import annotations

import torch
from torch import Tensor

# Identities are padded with zeros to a multiple of this, so that layers of one kind have vectors of
# one size: torch.compile guards on sizes, not on contents.
_UNIT = 512


def identity_tensor(identity: bytes) -> Tensor:
    """The identity, uint8, [a multiple of 512], up to its first zero byte."""
    padded = identity.ljust(-(-(len(identity) + 1) // _UNIT) * _UNIT, b"\0")
    return torch.frombuffer(bytearray(padded), dtype=torch.uint8)


def identity_text(identity: Tensor) -> str:
    """And back."""
    return bytes(identity.cpu().tolist()).split(b"\0", 1)[0].decode()
