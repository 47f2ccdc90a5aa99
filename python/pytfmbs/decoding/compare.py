"""What options that change numbers do to a model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .prepare import prepare_for_decode, restore_after_decode


@dataclass(frozen=True)
class DecodeComparison:
    """Logits of a decode with options against those of the model as it was, over `positions` tokens
    of the same text.

    Attributes:
        positions: how many tokens were decoded.
        same_token: the share of positions at which both choose the same token.
        largest_difference, mean_difference: of logits, absolute.
        spread: standard deviation of the model's own logits, to measure differences by.
        same_text: how many tokens both agree on before the first that differs.
    """

    positions: int
    same_token: float
    largest_difference: float
    mean_difference: float
    spread: float
    same_text: int

    def __str__(self) -> str:
        return (
            f"{self.positions} tokens: same token at {self.same_token:.1%}, the first "
            f"{self.same_text} without exception; logits differ by {self.mean_difference:.3g} in the "
            f"mean, {self.largest_difference:.3g} at most (their spread is {self.spread:.3g})"
        )


def compare_decoding(
    model: Any, input_ids: Tensor, *, tokens: int = 64, **options: Any
) -> DecodeComparison:
    """Decodes greedily with the model as it is, then feeds the same tokens to the model with
    ``prepare_for_decode(model, **options)``, and compares logits. The model is left as it was.

    Args:
        model: a transformers model that prepare_for_decode takes, and that is not prepared.
        input_ids: [1, length], at least one token.
        tokens: how many to decode.
    """
    expected = _logits(model, input_ids, tokens, None)
    chosen = expected.argmax(-1)
    prepare_for_decode(model, **options)
    try:
        got = _logits(model, input_ids, tokens, chosen)
    finally:
        restore_after_decode(model)
    difference = (got - expected).abs()
    same = got.argmax(-1) == chosen
    differing = (~same).nonzero()
    return DecodeComparison(
        positions=tokens,
        same_token=float(same.float().mean()),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        spread=float(expected.std()),
        same_text=int(differing[0]) if len(differing) else tokens,
    )


def _logits(model: Any, input_ids: Tensor, tokens: int, given: Tensor | None) -> Tensor:
    """[tokens, vocabulary], in fp32: of the next token after the prompt and after each decoded one."""
    rows: list[Tensor] = []
    with torch.no_grad():
        out = model(input_ids, use_cache=True)
        for step in range(tokens):
            rows.append(out.logits[0, -1].float())
            token = rows[-1].argmax() if given is None else given[step]
            if step + 1 < tokens:
                out = model(
                    token.reshape(1, 1), past_key_values=out.past_key_values, use_cache=True
                )
    return torch.stack(rows)
