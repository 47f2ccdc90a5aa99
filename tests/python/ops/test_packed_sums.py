"""packed_sums: the exact sums of int8 values and packed weights."""

from __future__ import annotations

import pytest
import torch
from pytfmbs import TFMBSPackedLinear
from pytfmbs.ops import torch_ops


def layer(outputs: int, inputs: int, **options: object) -> tuple[TFMBSPackedLinear, torch.Tensor]:
    trits = torch.randint(-1, 2, (outputs, inputs), dtype=torch.int8)
    made = TFMBSPackedLinear.from_trits(trits, 0.5, **options)
    made.offload = True
    return made, trits


def arguments(made: TFMBSPackedLinear) -> tuple[object, ...]:
    return (made._panels, made._scales, made._own_identity, made._layout, made.out_features,
            made.in_features)  # fmt: skip


@pytest.mark.parametrize("packing", ["packed2", "packed_base3"])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 7, 3), (3, 64, 64), (70, 333, 130), (0, 8, 8), (1, 1, 1), (200, 65, 1000)],
)
def test_sums_are_exact(rows: int, inputs: int, outputs: int, packing: str) -> None:
    made, trits = layer(outputs, inputs, packing=packing)
    values = torch.randint(-127, 128, (rows, inputs), dtype=torch.int8)
    sums = torch_ops.packed_sums(values, *arguments(made))
    assert sums.dtype == torch.int32
    assert torch.equal(sums.long(), values.long() @ trits.long().T)


def test_leading_dimensions_and_strides() -> None:
    made, trits = layer(9, 20)
    values = torch.randint(-127, 128, (20, 3, 2), dtype=torch.int8).permute(2, 1, 0)
    sums = torch_ops.packed_sums(values, *arguments(made))
    assert torch.equal(sums.long(), values.long() @ trits.long().T)


def test_two_parts_add_up_to_the_whole() -> None:
    made, trits = layer(33, 100)
    values = torch.randint(-127, 128, (5, 100), dtype=torch.int8)
    parts = []
    for part in (slice(0, 48), slice(48, 100)):
        half = TFMBSPackedLinear.from_trits(trits[:, part], 0.5)
        half.offload = True
        parts.append(torch_ops.packed_sums(values[:, part], *arguments(half)))
    assert torch.equal(parts[0] + parts[1], torch_ops.packed_sums(values, *arguments(made)))


def test_opcheck() -> None:
    made, _ = layer(9, 20)
    values = torch.randint(-127, 128, (2, 20), dtype=torch.int8)
    torch.library.opcheck(torch_ops.packed_sums, (values, *arguments(made)))


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (torch.full((1, 20), -128, dtype=torch.int8), "-128"),
        (torch.zeros(1, 20), "int8"),
        (torch.zeros(1, 19, dtype=torch.int8), "19 features"),
        (torch.zeros((), dtype=torch.int8), "dimension"),
    ],
)
def test_what_is_refused(values: torch.Tensor, word: str) -> None:
    made, _ = layer(9, 20)
    with pytest.raises(RuntimeError, match=word):
        torch_ops.packed_sums(values, *arguments(made))

