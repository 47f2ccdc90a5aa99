"""The int8 output head: its formula, what it does to a model, and where it is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import pytfmbs
import torch
from decoder_models import prompt, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from pytfmbs.decoding import compare_decoding, prepare_for_decode, restore_after_decode
from pytfmbs.decoding.head import Int8Linear, to_int8
from pytfmbs.ops import decode_ops
from torch import nn


def by_hand(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """round(127 x / max|x|), half to even, and max|x| / 127, a row at a time in fp32."""
    largest = np.maximum(np.abs(x).max(axis=1), np.float32(1e-5)).astype(np.float32)
    inverse = np.float32(127) / largest
    codes = np.clip(np.rint(x * inverse[:, None]), -127, 127)
    return codes.astype(np.int64), (largest / np.float32(127)).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 9),
    st.integers(1, 70),
    st.integers(1, 90),
    st.booleans(),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    st.integers(0, 2**31),
)
def test_the_formula(
    rows: int, outputs: int, depth: int, has_bias: bool, dtype: torch.dtype, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, depth, generator=generator).to(dtype)
    input = torch.randn(rows, depth, generator=generator).to(dtype)
    bias = torch.randn(outputs, generator=generator) if has_bias else None
    values, scales = decode_ops.int8_rows(weight)
    got = decode_ops.int8_linear(input, values, scales, bias)
    w, w_scale = by_hand(weight.float().numpy())
    assert np.array_equal(values.numpy(), w)
    assert np.array_equal(scales.numpy(), w_scale.astype(np.float64))
    if rows == 0:
        assert got.shape == (0, outputs)
        return
    x, x_scale = by_hand(input.float().numpy())
    expected = (x @ w.T).astype(np.float32) * (x_scale[:, None] * w_scale[None, :])
    if bias is not None:
        expected += bias.numpy()
    assert torch.equal(got, torch.from_numpy(expected).to(dtype))


def test_opcheck() -> None:
    weight, bias = torch.randn(9, 12), torch.randn(9)
    torch.library.opcheck(decode_ops.int8_rows, (weight,))
    values, scales = decode_ops.int8_rows(weight)
    torch.library.opcheck(decode_ops.int8_linear, (torch.randn(2, 3, 12), values, scales, bias))


def test_values_that_are_not_finite() -> None:
    weight, input = torch.randn(3, 8), torch.randn(2, 8)
    weight[1, 2] = torch.inf
    input[0, 5] = torch.nan
    values, scales = decode_ops.int8_rows(weight)
    out = decode_ops.int8_linear(input, values, scales, None)
    assert out[0].isnan().all()
    assert out[1].isnan().tolist() == [False, True, False]


def test_a_head_becomes_int8_and_float_again() -> None:
    model, ids = small_model("Llama", tie_word_embeddings=True), prompt()
    embedding = model.model.embed_tokens.weight
    with torch.no_grad():
        expected = model(ids).logits
        report = prepare_for_decode(model, fused_blocks=False, int8_head=True)
        assert report.head == "lm_head"
        assert "int8 output head: lm_head" in str(report)
        hidden = model.model(ids).last_hidden_state
        got = model(ids).logits
    assert model.lm_head.weight is embedding
    direct = decode_ops.int8_linear(hidden, *decode_ops.int8_rows(embedding), None)
    assert torch.equal(got, direct)
    assert not torch.equal(got, expected)
    # Each factor is off by half a quantum of its row's largest at most.
    x, w = hidden.abs().amax(-1, keepdim=True) / 254, embedding.abs().amax(-1) / 254
    bound = x * embedding.abs().sum(-1) + hidden.abs().sum(-1, keepdim=True) * w + 64 * x * w
    assert ((got - expected).abs() <= 1.001 * bound).all()
    restore_after_decode(model)
    with torch.no_grad():
        assert torch.equal(model(ids).logits, expected)


def test_a_weight_that_changes_is_quantized_anew() -> None:
    head = nn.Linear(12, 20)
    to_int8(head)
    assert isinstance(head, Int8Linear)
    x = torch.randn(2, 12)
    with torch.no_grad():
        first = head(x)
        head.weight.mul_(2)
        assert torch.allclose(head(x) - head.bias, 2 * (first - head.bias), rtol=1e-5, atol=1e-5)
        twin = copy.deepcopy(head)
        twin.weight.zero_()
        assert torch.equal(twin(x), twin.bias.expand(2, 20))
        assert not torch.equal(head(x), twin(x))
    assert list(head.state_dict()) == ["weight", "bias"]
    head.requires_grad_(False)
    assert head(x).shape == (2, 20)


def test_a_weight_at_the_address_of_one_that_is_gone() -> None:
    memory = np.ones((20, 12), np.float32)
    head = nn.Linear(12, 20, bias=False)
    head.weight = nn.Parameter(torch.from_numpy(memory))
    to_int8(head)
    memory[:] = 3
    head.weight = nn.Parameter(torch.from_numpy(memory))
    with torch.no_grad():
        got = head(torch.ones(1, 12))
    torch.testing.assert_close(got, torch.full((1, 20), 36.0))


def test_inference_tensors() -> None:
    with torch.inference_mode():
        head = nn.Linear(12, 20)
        to_int8(head)
        x = torch.randn(2, 12)
        first = head(x)
        head.weight.mul_(2)
        assert not torch.equal(head(x), first)
        model = small_model("Llama")
    with pytest.raises(pytfmbs.ArgumentError, match="inference_mode"):
        prepare_for_decode(model, fused_blocks=False, int8_head=True)


def test_a_gradient_is_refused() -> None:
    head = nn.Linear(12, 20)
    to_int8(head)
    with pytest.raises(RuntimeError, match="an int8 output head has no gradient"):
        head(torch.randn(1, 12))


def test_heads_that_are_refused() -> None:
    model = small_model("Llama")
    model.lm_head = pytfmbs.TFMBSLinear(64, 150, bias=False)
    with pytest.raises(pytfmbs.ArgumentError, match="lm_head is a TFMBSLinear"):
        prepare_for_decode(model, int8_head=True)
    assert not any(type(m).__name__.startswith("Fused") for m in model.modules())
    with pytest.raises(pytfmbs.ArgumentError, match="has no output head"):
        prepare_for_decode(nn.Sequential(nn.Linear(2, 2)), fused_blocks=False, int8_head=True)


def test_a_comparison() -> None:
    model, ids = small_model("Qwen2"), prompt()
    same = compare_decoding(model, ids, tokens=12)
    assert same.same_token == 1.0
    assert same.same_text == 12
    rounded = compare_decoding(model, ids, tokens=12, int8_head=True)
    assert rounded.largest_difference > same.largest_difference
    assert rounded.largest_difference < 0.05 * rounded.spread * 8
    assert "12 tokens: same token at" in str(rounded)
    assert type(model.lm_head) is nn.Linear
