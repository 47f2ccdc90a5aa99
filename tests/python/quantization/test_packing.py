"""PT-5 from Python: round trips, the code's table, and every refusal."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from cases import campaign
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import EncodingError, pack_pt5, unpack_pt5

TRITS = st.lists(st.integers(-1, 1), max_size=120)
DTYPES = (
    torch.int8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64,
    torch.bfloat16, torch.float16,
)  # fmt: skip


def pt5(trits: list[int]) -> list[int]:
    """docs/format.md: the sum of digit·3^i, +1 as 1 and -1 as 2, five trits a byte, zeros at the
    end."""
    padded = trits + [0] * (-len(trits) % 5)
    return [
        sum((t % 3) * 3**i for i, t in enumerate(padded[a : a + 5]))
        for a in range(0, len(padded), 5)
    ]


@campaign(300)
@given(trits=TRITS)
def test_round_trip(trits: list[int]) -> None:
    for source in (torch.tensor(trits, dtype=torch.int8), np.array(trits, dtype=np.int8)):
        packed: Any = pack_pt5(source)
        assert type(packed) is type(source)
        assert packed.tolist() == pt5(trits)
        assert unpack_pt5(packed, len(trits)).tolist() == trits
        assert unpack_pt5(packed).tolist() == trits + [0] * (-len(trits) % 5)


@pytest.mark.parametrize(
    ("trits", "byte"),
    [
        ((0,) * 5, 0),
        ((1, 0, 0, 0, 0), 1),
        ((-1, 0, 0, 0, 0), 2),
        ((-1, 1, 0, 0, 0), 5),
        ((-1,) * 5, 242),
    ],
)
def test_the_pages_table(trits: tuple[int, ...], byte: int) -> None:
    assert pack_pt5(torch.tensor(trits)).tolist() == [byte]


def test_every_byte() -> None:
    codes = torch.arange(243, dtype=torch.uint8)
    trits = unpack_pt5(codes)
    assert len({tuple(row) for row in trits.view(243, 5).tolist()}) == 243
    assert torch.equal(pack_pt5(trits), codes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype: torch.dtype) -> None:
    trits = [-1, 0, 1, 1, -1, 0, 0, 1]
    assert pack_pt5(torch.tensor(trits, dtype=dtype)).tolist() == pt5(trits)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.int64, np.float32, np.float64, np.float16]
)
def test_every_numpy_dtype(dtype: type) -> None:
    trits = [-1, 0, 1, 1, -1, 0, 0, 1]
    assert pack_pt5(np.array(trits, dtype)).tolist() == pt5(trits)


def test_any_shape_and_layout() -> None:
    """Row-major order, whatever lies in memory."""
    square = torch.tensor([[1, 0, -1], [0, 1, 1], [-1, -1, 0]])
    assert torch.equal(pack_pt5(square), pack_pt5(square.flatten()))
    assert torch.equal(pack_pt5(square.t()), pack_pt5(square.t().contiguous().flatten()))
    assert pack_pt5(square.numpy().T).tolist() == pack_pt5(square.t()).tolist()
    codes = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)
    assert torch.equal(
        unpack_pt5(codes.t()), unpack_pt5(torch.tensor([1, 3, 2, 4], dtype=torch.uint8))
    )


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_bytes_beyond_242_are_faults(make: Any) -> None:
    for code in range(243, 256):
        packed = make([0, 7, code, 255], dtype=torch.uint8 if make is torch.tensor else np.uint8)
        with pytest.raises(EncodingError) as caught:
            unpack_pt5(packed, 1)  # a fault is one even beyond what was asked for
        assert caught.value.offset == 2
        assert f"{code:#x}" in str(caught.value)


@pytest.mark.parametrize(
    "value", [2, -2, 127, 0.5, float("nan"), float("inf"), 257, -255, 2**32 + 1]
)
def test_values_that_are_no_trits(value: float) -> None:
    for source in (
        torch.tensor([0.0, 1.0, value, 9.0], dtype=torch.float64),
        np.array([0.0, 1.0, value, 9.0]),
    ):
        with pytest.raises(
            ValueError, match=re.escape(f"value {float(value)} at index 2 ")
        ) as caught:
            pack_pt5(source)
        assert caught.value.offset == 2  # type: ignore[attr-defined]
    if float(value).is_integer():
        with pytest.raises(ValueError, match=f"value {int(value)} at index 1 "):
            pack_pt5(torch.tensor([0, int(value)], dtype=torch.int64))


@pytest.mark.parametrize("count", [-1, 11, 1.5, "3", True])
def test_wrong_count(count: Any) -> None:
    with pytest.raises(ValueError, match="2 bytes hold 0 to 10 trits"):
        unpack_pt5(torch.zeros(2, dtype=torch.uint8), count)


@pytest.mark.parametrize(
    "wrong",
    [
        [0, 1],
        None,
        "0",
        torch.tensor([True]),
        torch.tensor([1j]),
        np.array([True]),
        np.array(["a"]),
    ],
)
def test_wrong_types(wrong: Any) -> None:
    with pytest.raises(TypeError):
        pack_pt5(wrong)


@pytest.mark.parametrize(
    "wrong", [[0, 1], b"\0", torch.tensor([1], dtype=torch.int8), np.array([1], dtype=np.int64)]
)
def test_packed_must_be_bytes(wrong: Any) -> None:
    with pytest.raises(TypeError):
        unpack_pt5(wrong)


def test_the_argument_is_left_alone() -> None:
    trits = torch.tensor([1.0, -1.0, 0.0])
    packed = pack_pt5(trits)
    unpack_pt5(packed)[:] = 0
    assert trits.tolist() == [1.0, -1.0, 0.0]
    assert packed.tolist() == [1 + 2 * 3]
    assert pack_pt5(torch.empty(0)).numel() == 0
    assert unpack_pt5(torch.empty(0, dtype=torch.uint8)).numel() == 0
