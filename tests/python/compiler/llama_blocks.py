"""Blocks of a Llama-shaped model with ternary projections, which show what stands between them.

``forward`` returns the block's output and, by name, every value that a projection reads or writes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytfmbs import TFMBSLinear
from torch import Tensor, nn

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 48, 4, 2, 12, 80
THETA = 10_000.0

Values = dict[str, Tensor]


def projection(inputs: int, outputs: int, name: str) -> TFMBSLinear:
    """As BitNet b1.58's."""
    return TFMBSLinear(
        inputs, outputs, bias=False, name=name, weight_quantizer="absmean", activation="int8"
    )


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class MLP(nn.Module):
    """SwiGLU, or BitNet's squared ReLU."""

    def __init__(self, activation: Literal["silu", "relu2"]) -> None:
        super().__init__()
        self.gate = projection(HIDDEN, INTERMEDIATE, "gate")
        self.up = projection(HIDDEN, INTERMEDIATE, "up")
        self.down = projection(INTERMEDIATE, HIDDEN, "down")
        self.activation = activation

    def join(self, gate: Tensor, up: Tensor) -> Tensor:
        gate = F.silu(gate) if self.activation == "silu" else F.relu(gate).square()
        return gate * up

    def forward(self, x: Tensor) -> tuple[Tensor, Values]:
        values = {"x": x, "gate": self.gate(x), "up": self.up(x)}
        values["joined"] = self.join(values["gate"], values["up"])
        values["down"] = self.down(values["joined"])
        return x + values["down"], values


class Attention(nn.Module):
    """Norm, grouped queries with rotary embedding, causal softmax, output projection, residual."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.norm = RMSNorm(HIDDEN)
        self.q = projection(HIDDEN, HEADS * HEAD_DIM, "q")
        self.k = projection(HIDDEN, KV_HEADS * HEAD_DIM, "k")
        self.v = projection(HIDDEN, KV_HEADS * HEAD_DIM, "v")
        self.o = projection(HEADS * HEAD_DIM, HIDDEN, "o")
        self.fused = fused  # scaled_dot_product_attention, not its steps
        frequencies = THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def rotary(self, time: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [time, HEAD_DIM]."""
        angles = torch.arange(time, dtype=torch.float32)[:, None] * self.frequencies
        angles = torch.cat([angles, angles], -1)
        return angles.cos(), angles.sin()

    def heads(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        return x.view(batch, time, width // HEAD_DIM, HEAD_DIM).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[batch, time, HEADS · HEAD_DIM] of the three projections' results."""
        batch, time = q.shape[:2]
        q, k, v = (self.heads(t) for t in (q, k, v))
        cos, sin = self.rotary(time)
        q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
            scores = q @ k.transpose(2, 3) / math.sqrt(HEAD_DIM)
            future = torch.ones(time, time, dtype=torch.bool).triu(1)
            mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
        return mixed.transpose(1, 2).reshape(batch, time, HEADS * HEAD_DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, Values]:
        normed = self.norm(x)
        values = {"normed": normed, "q": self.q(normed), "k": self.k(normed), "v": self.v(normed)}
        values["mixed"] = self.attend(values["q"], values["k"], values["v"])
        values["o"] = self.o(values["mixed"])
        return x + values["o"], values


def rotate_half(x: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return torch.cat([-high, low], -1)


def tensors(results: tuple[Any, ...], block: nn.Module) -> tuple[Tensor, Values]:
    """A compiled block's results, which are flat, as ``forward`` gives them."""
    names = {
        MLP: ("x", "gate", "up", "joined", "down"),
        Attention: ("normed", "q", "k", "v", "mixed", "o"),
    }
    return results[0], dict(zip(names[type(block)], results[1:], strict=True))
