"""Transformer blocks with ternary projections, compiled with a dynamic batch and length.

A block's result is compared stage by stage: a projection exactly, and what stands between two of
them within a bound on its rounding errors. Each stage gets the compiled one's own inputs: an error
of one rounding may move an activation by a step of int8.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from llama_blocks import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, MLP, Attention, rotate_half, tensors
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import compile
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("dialect_tools")

UNIT = 2.0**-24  # the largest relative error of one rounding to float32
_LIBM = 4 * UNIT  # of exp, sin and cos: two units in the last place
LEADS = ((2, 5), (1, 1), (3, 17), (1, 2), (0, 3), (2, 64))


def bound_of_norm(value: Tensor) -> Tensor:
    """Half the error of a sum of squares, and of the six operations around it."""
    return (HIDDEN / 2 + 6) * UNIT * value.abs()


def bound_of_silu(value: Tensor) -> Tensor:
    """exp; then a sum, a quotient and two products."""
    return (_LIBM + 4 * UNIT) * value.abs()


def bound_of_attention(block: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (block.heads(t.double()) for t in (q, k, v))
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
    time = q.shape[2]
    # Rotated: a product's error and the cosine's, for each of two terms, and their sum's.
    big_q, big_k = (t.abs() + rotate_half(t).abs() for t in (q, k))
    rotated = _LIBM + 3 * UNIT
    sums = big_q @ big_k.transpose(2, 3) / math.sqrt(HEAD_DIM)
    scores = ((2 * rotated + (HEAD_DIM + 3) * UNIT) * sums).tril()
    # A weight of the softmax is off by twice the largest error of its row's scores.
    weights = 2 * scores.amax(-1, keepdim=True) + _LIBM + (time + 4) * UNIT
    cos, sin = (t.double() for t in block.rotary(time))
    q, k = (t * cos + rotate_half(t) * sin for t in (q, k))
    future = torch.ones(time, time, dtype=torch.bool).triu(1)
    logits = (q @ k.transpose(2, 3) / math.sqrt(HEAD_DIM)).masked_fill(future, -math.inf)
    mixed = (logits.softmax(-1) * (weights + time * UNIT)) @ v.abs()
    return mixed.transpose(1, 2).flatten(2)


def assert_within(found: Tensor, wanted: Tensor, bound: Tensor) -> None:
    """Both are computed, so each may be off by the bound."""
    off = (found.double() - wanted.double()).abs()
    room = 2 * bound.double() + 2 * torch.finfo(torch.float32).tiny
    assert (off <= room).all(), f"{(off / room).max()} times the bound"


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def compiled(block: nn.Module, target: Any) -> Any:
    dims = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("time")},)
    program = torch.export.export(block, (torch.randn(2, 5, HIDDEN),), dynamic_shapes=dims)
    return compile(program, target=target)


def check_projections(block: nn.Module, values: dict[str, Tensor], pairs: dict[str, str]) -> None:
    """pairs: the name of a projection and of its result, to that of its input."""
    ternary = {name for name, m in block.named_children() if isinstance(m, TFMBSLinear)}
    assert ternary == set(pairs)
    for name, source in pairs.items():
        assert_equal(values[name], getattr(block, name)(values[source]))


@pytest.mark.parametrize(("activation", "target"), [("silu", "linalg"), ("relu2", "runtime")])
@torch.no_grad()
def test_an_mlp_equals_eager(activation: Any, target: Any) -> None:
    torch.manual_seed(0)
    block = MLP(activation).eval()
    with compiled(block, target) as program:
        for lead in LEADS:
            x = torch.randn(*lead, HIDDEN)
            result, values = tensors(program(x), block)
            check_projections(block, values, {"gate": "x", "up": "x", "down": "joined"})
            joined = block.join(values["gate"], values["up"])
            if activation == "relu2":
                assert_equal(result, block(x)[0])  # products alone, each rounded once
            else:
                assert_within(values["joined"], joined, bound_of_silu(joined))
            assert_equal(values["x"], x)
            assert_equal(result, x + values["down"])


@pytest.mark.parametrize(("fused", "target"), [(False, "linalg"), (True, "runtime")])
@torch.no_grad()
def test_attention_equals_eager(fused: bool, target: Any) -> None:
    torch.manual_seed(1)
    block = Attention(fused).eval()
    with compiled(block, target) as program:
        for lead in LEADS:
            x = torch.randn(*lead, HIDDEN)
            result, values = tensors(program(x), block)
            normed = block.norm(x)
            assert_within(values["normed"], normed, bound_of_norm(normed))
            sources = {"q": "normed", "k": "normed", "v": "normed", "o": "mixed"}
            check_projections(block, values, sources)
            q, k, v = (values[name] for name in "qkv")
            mixed = block.attend(q, k, v)
            assert_within(values["mixed"], mixed, bound_of_attention(block, q, k, v))
            assert_equal(result, x + values["o"])


class Ranges(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        n = x.shape[0]
        return (
            torch.arange(n) + x.sum().long() * 0,
            torch.arange(2, 2 * n, 3),
            torch.arange(n, -1, -2),
            torch.arange(n, dtype=torch.float64),
            torch.arange(0, n, 2, dtype=torch.float32),
        )


@torch.no_grad()
def test_ranges_of_sizes() -> None:
    model, dims = Ranges(), ({0: torch.export.Dim("n", min=3)},)
    program = torch.export.export(model, (torch.ones(6),), dynamic_shapes=dims)
    with compile(program) as function:
        for n in (6, 3, 40, 5):
            for found, wanted in zip(function(torch.ones(n)), model(torch.ones(n)), strict=True):
                assert found.dtype == wanted.dtype
                assert_equal(found, wanted)
