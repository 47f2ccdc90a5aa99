"""The torch ops of decoding: fakes around cpp/torch_ops/src/decode_ops.cpp.

``torch.ops.tfmbs.decode_block(hidden, cosines, sines, mask, keys, values, position, norms, epsilon,
panels, scales, biases, identities, layouts, group_sizes, activation, gate, heads, feed_forward,
scaling)``
    A decoder block at one new position a sequence: [sequences, 1, hidden size] to the same. Writes
    ``keys`` and ``values`` ([sequences, key heads, positions, head size]) at ``position`` (one int64),
    and counts that up. ``mask``: [1 or sequences, 1, 1, positions], bool or added. ``norms``: of the
    input and of what follows attention, and perhaps of attention's output and the gate's. The lists
    from ``panels`` on have one entry for each of query, key, value, output, gate, up, down, as
    ``packed_linear`` takes them; a bias without elements is none; ``layouts`` are joined by commas.
``torch.ops.tfmbs.int8_rows(weight)``
    int8 values and float64 scales, one a row: round(127 w / max|w|) and max|w| / 127. The scale of a
    row with a value that is not finite is NaN.
``torch.ops.tfmbs.int8_linear(input, values, scales, bias)``
    A dense layer of those; the input is quantized alike, a row at a time. Sums are exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

decode_block = torch.ops.tfmbs.decode_block.default
int8_rows = torch.ops.tfmbs.int8_rows.default
int8_linear = torch.ops.tfmbs.int8_linear.default


@torch.library.register_fake("tfmbs::decode_block")
def _(
    hidden: Tensor,
    cosines: Tensor,
    sines: Tensor,
    mask: Tensor | None,
    keys: Tensor,
    values: Tensor,
    position: Tensor,
    norms: list[Tensor],
    epsilon: float,
    panels: list[Tensor],
    scales: list[Tensor],
    biases: list[Tensor],
    identities: list[Tensor],
    layouts: str,
    group_sizes: list[int],
    activation: str,
    gate: str,
    heads: int,
    feed_forward: int,
    scaling: float,
) -> Tensor:
    return hidden.new_empty(hidden.shape)


@torch.library.register_fake("tfmbs::int8_rows")
def _(weight: Tensor) -> tuple[Tensor, Tensor]:
    return (
        weight.new_empty(weight.shape, dtype=torch.int8),
        weight.new_empty((weight.shape[0],), dtype=torch.float64),
    )


@torch.library.register_fake("tfmbs::int8_linear")
def _(input: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    weight = input.new_empty(values.shape)  # nn.Linear's own checks, in its words
    return input.new_empty(torch.nn.functional.linear(input, weight).shape)
