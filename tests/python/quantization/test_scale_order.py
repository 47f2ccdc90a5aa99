"""A scale depends on the weights alone: not on their order, nor on how threads share them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import reference
import torch
from cases import DTYPES, campaign, generator
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import AbsMeanQuantizer, TwnQuantizer
from torch import Tensor

KINDS = ("normal", "two", "anywhere", "all")


def weight_of(
    rng: np.random.Generator, shape: tuple[int, int], dtype: torch.dtype, kind: str
) -> Tensor:
    """Normal numbers; two groups of magnitudes far apart; every magnitude of the type; and all
    with infinities and NaNs."""
    values = torch.from_numpy(rng.standard_normal(shape))
    info = torch.finfo(dtype)
    lowest, highest = np.log2(info.smallest_normal) - 5, np.log2(info.max) - 3
    if kind == "two":
        values *= torch.from_numpy(rng.choice(2.0 ** rng.uniform(lowest, highest, 2), shape))
    elif kind != "normal":
        values *= torch.from_numpy(2.0 ** rng.uniform(lowest, highest, shape))
    values = values.to(dtype)
    if kind == "all" and values.numel():
        for special in (float("inf"), -float("inf"), float("nan")):
            values.view(-1)[torch.from_numpy(rng.integers(0, values.numel(), 2))] = special
    return values


@campaign(150)
@given(
    rows=st.integers(0, 40),
    columns=st.one_of(st.integers(0, 70), st.integers(0, 3000)),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_permutations(rows: int, columns: int, dtype: torch.dtype, kind: str, seed: int) -> None:
    rng = generator(seed)
    weight = weight_of(rng, (rows, columns), dtype, kind)
    by_row = torch.from_numpy(rng.permutation(rows))
    by_column = torch.from_numpy(rng.permutation(columns))
    moved = weight[by_row][:, by_column].contiguous()

    for quantizer, scales_move in ((AbsMeanQuantizer(), False), (TwnQuantizer(), True)):
        trits, scale = quantizer(weight)
        moved_trits, moved_scale = quantizer(moved)
        assert reference.same_bits(moved_scale, scale[by_row] if scales_move else scale)
        assert torch.equal(moved_trits, trits[by_row][:, by_column])
        want = reference.quantize_weight(weight, quantizer.name)
        assert reference.same_bits(scale, torch.from_numpy(want.scale))
        np.testing.assert_array_equal(trits.numpy(), want.trits)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["normal", "anywhere"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads(dtype: torch.dtype, kind: str, threads: None) -> None:
    """Rows are shared from some 65,000 weights on: three threads get a part each."""
    weight = weight_of(generator(1), (700, 1000), dtype, kind)
    for quantizer in (AbsMeanQuantizer(), TwnQuantizer()):
        scales = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            scales.append(quantizer(weight)[1])
        assert reference.same_bits(scales[1], scales[0])
        assert reference.same_bits(scales[2], scales[0])
        want = reference.quantize_weight(weight, quantizer.name).scale
        assert reference.same_bits(scales[0], torch.from_numpy(want))


def test_the_order_matters_to_fp64() -> None:
    """What the tests above can see: these numbers, added in fp64, give another sum in another
    order."""
    row = np.abs(generator(2).standard_normal(1000))
    assert len({float(np.cumsum(generator(seed).permutation(row))[-1]) for seed in range(20)}) > 1
