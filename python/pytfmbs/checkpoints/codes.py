"""The codes of model files as tensors of trits, and back. Decoded and encoded in C++."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _fabric

#: Weights of a block of TQ1_0 and TQ2_0.
BLOCK = _fabric.BLOCK_TRITS
#: Outputs of a packed row of transformers' BitNet.
ROWS_A_BYTE = 4


def unpack_strided(packed: Tensor, outputs: int) -> Tensor:
    """The trits, int8 [outputs, in], of transformers' packed BitNet weight, uint8 [ceil(outputs / 4),
    in]. Raises EncodingError for a code that is no trit; ``offset`` is its byte's."""
    trits = torch.empty(outputs, packed.shape[1], dtype=torch.int8)
    _fabric.unpack_strided_codes_into(packed.contiguous().numpy(), trits.numpy())
    return trits


def pack_strided(trits: Tensor) -> Tensor:
    """And back."""
    outputs, inputs = trits.shape
    packed = torch.empty(-(-outputs // ROWS_A_BYTE), inputs, dtype=torch.uint8)
    _fabric.pack_strided_codes_into(trits.contiguous().numpy(), packed.numpy())
    return packed


def unpack_blocks(kind: str, data: Tensor) -> tuple[Tensor, Tensor]:
    """Trits, int8 [outputs, in], and the blocks' scales, float32 [outputs, in / 256], of uint8
    [outputs, bytes] of whole blocks of "tq1_0" or "tq2_0". Raises EncodingError, as above."""
    outputs, size = data.shape
    blocks = size // _fabric.ternary_block_bytes(kind)
    trits = torch.empty(outputs, blocks * BLOCK, dtype=torch.int8)
    scales = torch.empty(outputs, blocks)
    _fabric.unpack_ternary_blocks_into(
        kind, data.reshape(-1).numpy(), trits.view(-1).numpy(), scales.view(-1).numpy()
    )
    return trits, scales


def pack_blocks(kind: str, trits: Tensor, scales: Tensor) -> Tensor:
    """And back. Raises ArgumentError for a scale that fp16 does not hold; ``offset`` is its block."""
    outputs, blocks = scales.shape
    data = torch.empty(outputs, blocks * _fabric.ternary_block_bytes(kind), dtype=torch.uint8)
    _fabric.pack_ternary_blocks_into(
        kind,
        trits.contiguous().view(-1).numpy(),
        scales.contiguous().view(-1).numpy(),
        data.view(-1).numpy(),
    )
    return data
