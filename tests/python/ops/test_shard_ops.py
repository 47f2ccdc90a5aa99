"""The ops of layers that several processes share, against plain torch."""

from __future__ import annotations

import random
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import _fabric
from pytfmbs.ops import torch_ops
from pytfmbs.ops.identity import identity_tensor
from pytfmbs.ops.panels import panels_of_trits
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def same(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == expected.dtype
    assert torch.equal(found.nan_to_num(nan=77.0), expected.nan_to_num(nan=77.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantizer", ["absmean", "twn"])
def test_statistics_of_parts_are_those_of_the_whole(dtype: torch.dtype, quantizer: str) -> None:
    pick = random.Random(0)
    for seed in range(20):
        torch.manual_seed(seed)
        outputs, inputs = pick.randrange(1, 40), pick.randrange(1, 90)
        weight = (torch.randn(outputs, inputs) * 10 ** pick.uniform(-4, 2)).to(dtype)
        if seed % 4 == 0:
            weight[pick.randrange(outputs), pick.randrange(inputs)] = float("nan")
        each, cut = quantizer == "twn", pick.randrange(inputs + 1)
        parts = [weight[:, :cut], weight[:, cut:]]
        wide = dtype == torch.float64
        sums = sum(torch_ops.weight_magnitudes(p, each) for p in parts)
        thresholds, scale = torch_ops.weight_rule(sums, quantizer, wide)
        if each:
            above = sum(torch_ops.weight_magnitudes(p, each, thresholds) for p in parts)
            _, scale = torch_ops.weight_rule(above, quantizer, wide)
        made = [torch_ops.trits_above(p, thresholds) for p in parts]
        trits, wanted = torch_ops.quantize_weight(weight, quantizer)
        same(torch.cat([t for t, _ in made], 1), trits)
        same(scale, wanted)
        nans = torch.stack([n for _, n in made]).amax(0)
        assert torch.equal(nans.bool(), weight.isnan().any(1))


def quantized_rows(x: Tensor, top: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Values and scales of rows by the formula, with a given absolute maximum."""
    wide = x if x.dtype == torch.float64 else x.float()
    if activation == "ternary":
        values = (wide > 0).int() - (wide < 0).int()
        return values, torch.ones(x.shape[0], dtype=wide.dtype)
    top = torch.clamp(top, min=torch.tensor(1e-5, dtype=wide.dtype))
    # Divided, and not multiplied by a reciprocal as 127 / top is.
    inverse = torch.full_like(top, 127).div(top)
    values = torch.round(wide * inverse.unsqueeze(1)).clamp(-127, 127)
    finite = top.isfinite()
    return (
        torch.where(finite.unsqueeze(1), values, 0.0).int(),
        torch.where(finite, top / 127, torch.ones_like(top)),
    )


def packed(trits: Tensor, activation: str, group: int) -> tuple[Any, ...]:
    """A layer's arguments of packed_sums after the input and the magnitudes."""
    layout = _fabric.packing_layout(activation, "packed2" if group else "auto")
    outputs, inputs = trits.shape
    layer = _fabric.Layer(
        pytfmbs.Fabric(), "part", outputs, inputs, "custom", activation, None, None, None, group
    )
    scale = torch.ones(1)
    if group:
        scale = torch_ops.ordered_scales(torch.ones(outputs, -(-inputs // group)), inputs, group)
    panels, identity = panels_of_trits(trits, layout), identity_tensor(layer.identity)
    return layer, (panels, scale, identity, layout, outputs, inputs, group, activation)


@pytest.mark.parametrize("activation", ["ternary", "int8"])
@pytest.mark.parametrize("group", [0, 32, 64])
def test_sums_are_exact(activation: str, group: int) -> None:
    pick = random.Random(1)
    for seed in range(15):
        torch.manual_seed(seed)
        outputs, inputs = pick.randrange(1, 150), pick.randrange(0 if not group else 1, 200)
        rows, dtype = pick.choice([0, 1, 5, 20]), pick.choice(DTYPES)
        trits = torch.randint(-1, 2, (outputs, inputs), dtype=torch.int8)
        x = torch.randn(rows, inputs).to(dtype)
        own = x.abs().amax(1) if inputs else x.new_zeros(rows)
        rest = (own * torch.rand(rows).to(dtype) * 3).to(
            dtype if dtype == torch.float64 else torch.float32
        )
        if rows > 1 and activation == "int8":
            rest[1] = pick.choice([float("nan"), float("inf")])
        top = torch.where(rest.isnan(), rest, torch.maximum(own.to(rest.dtype), rest))
        layer, arguments = packed(trits, activation, group)
        found = torch_ops.packed_sums(x, rest, *arguments)
        values, scale = quantized_rows(x, top, activation)
        size = group or max(inputs, 1)
        expected = [
            values[:, k : k + size].int() @ trits[:, k : k + size].int().t()
            for k in range(0, inputs, size)
        ] or [torch.zeros(rows, outputs, dtype=torch.int32)]
        assert torch.equal(found, torch.stack(expected))
        again, scales = torch_ops.quantize_activation(x, activation, rest)
        assert torch.equal(again.int(), values)
        same(scales.reshape(-1), scale)
        assert layer.name


@pytest.mark.parametrize("group", [0, 32])
def test_scaled_sums_are_the_formula(group: int) -> None:
    pick = random.Random(2)
    for seed in range(20):
        torch.manual_seed(seed)
        rows, outputs, inputs = pick.randrange(4), pick.randrange(1, 90), pick.randrange(1, 100)
        groups = -(-inputs // group) if group else 1
        wide = pick.random() < 0.3
        real = torch.float64 if wide else torch.float32
        sums = torch.randint(-30000, 30000, (groups, rows, outputs), dtype=torch.int32)
        row_scale = torch.rand(rows, dtype=real)
        if rows > 1:
            row_scale[1] = float("nan")
        shape = (outputs, groups) if group else pick.choice([(1,), (outputs,)])
        scale = torch.randn(shape)
        bias = torch.randn(outputs).to(pick.choice(DTYPES)) if pick.random() < 0.5 else None
        dtype = pick.choice(DTYPES)
        if group:
            total = torch.zeros(rows, outputs, dtype=real)
            for g in range(groups):
                total = total + sums[g].to(real) * scale[:, g].to(real)
            expected = total * row_scale.unsqueeze(1)
            given = torch_ops.ordered_scales(scale, inputs, group)
        else:
            expected = sums[0].to(real) * (row_scale.unsqueeze(1) * scale.to(real))
            given = scale
        if bias is not None:
            expected = expected + bias.to(real)
        found = torch_ops.scaled_sums(sums, row_scale, given, bias, inputs, group, wide, dtype)
        same(found, expected.to(dtype))


def test_ops_are_checked() -> None:
    trits = torch.randint(-1, 2, (7, 20), dtype=torch.int8)
    layer, arguments = packed(trits, "int8", 0)
    x, rest = torch.randn(3, 20), torch.rand(3)
    checks = ("test_schema", "test_faketensor")
    sums = torch_ops.packed_sums(x, rest, *arguments)
    for op, given in (
        (torch_ops.packed_sums, (x, rest, *arguments)),
        (
            torch_ops.scaled_sums,
            (sums, torch.rand(3), torch.rand(7), None, 20, 0, False, torch.float32),
        ),
        (torch_ops.weight_magnitudes, (x, True)),
        (torch_ops.weight_magnitudes, (x.double(), False)),
        (torch_ops.weight_rule, (torch_ops.weight_magnitudes(x, True), "twn", False)),
        (torch_ops.trits_above, (x, torch.zeros(3, dtype=torch.float64))),
        (torch_ops.quantize_activation, (x, "int8", rest)),
    ):
        torch.library.opcheck(op, given, test_utils=checks)
    assert layer.name


@pytest.mark.parametrize(
    ("op", "arguments", "words"),
    [
        (torch_ops.weight_magnitudes, (torch.ones(3), True), "matrix"),
        (torch_ops.weight_magnitudes, (torch.ones(3, 2), True, torch.ones(2)), "must hold 3"),
        (torch_ops.weight_magnitudes, (torch.ones(3, 2), False, torch.ones(3)), "of outputs"),
        (torch_ops.weight_rule, (torch.ones(1, 13, dtype=torch.int64), "sign", False), "sign"),
        (torch_ops.weight_rule, (torch.ones(1, 13, dtype=torch.int64), "twn", True), "sums x 70"),
        (torch_ops.trits_above, (torch.ones(3, 2), torch.ones(2)), "1 or 3"),
        (
            torch_ops.scaled_sums,
            (torch.ones(2, 3), torch.ones(2), torch.ones(1), None, 1, 0, False, torch.float32),
            "int32",
        ),
        (
            torch_ops.scaled_sums,
            (
                torch.ones(2, 3, 4, dtype=torch.int32),
                torch.ones(3),
                torch.ones(1),
                None,
                1,
                0,
                False,
                torch.float32,
            ),
            "2 groups",
        ),
    ],
)
def test_bad_arguments_raise(op: Any, arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(RuntimeError, match=words):
        op(*arguments)
