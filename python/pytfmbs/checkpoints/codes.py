"""The codes of model files as tensors of trits, and back. Decoded and encoded in C++."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .. import _fabric

#: Weights of a block of TQ1_0 and TQ2_0.
BLOCK = _fabric.BLOCK_TRITS
#: Outputs of a packed row of transformers' BitNet; codes in a byte.
ROWS_A_BYTE = 4
_COMPARED = 1 << 16  # bytes


def block_trits(kind: str) -> int:
    """Weights of a block of "tq1_0", "tq2_0", "q2_0", or "q2_0_g128" (Q2_0 of 128 weights)."""
    return _fabric.ternary_block_trits(kind)


def block_bytes(kind: str) -> int:
    """Bytes of a block."""
    return _fabric.ternary_block_bytes(kind)


def empty_trits(*shape: int) -> Tensor:
    """Uninitialized int8. Not torch's: some C libraries do not reuse its aligned memory when it is
    freed, which comes to gigabytes where one layer after the other is decoded."""
    return torch.from_numpy(np.empty(shape, np.int8))


def is_zero(trits: Tensor) -> bool:
    """Whether all are, found out without memory of their size."""
    return not any(part.numpy().any() for part in trits.view(-1).split(_COMPARED))


def forget_pages(mapped: Tensor) -> None:
    """Gives the pages of a view of a mapped file, which nobody wrote to, back to the system."""
    if mapped.is_contiguous():
        _fabric.forget_file_pages(mapped.data_ptr(), mapped.nbytes)


def unpack_strided(packed: Tensor, outputs: int) -> Tensor:
    """The trits, int8 [outputs, in], of transformers' packed BitNet weight, uint8 [ceil(outputs / 4),
    in]. Raises EncodingError for a code that is no trit; ``offset`` is its byte's."""
    trits = empty_trits(outputs, packed.shape[1])
    _fabric.unpack_strided_codes_into(packed.contiguous().numpy(), trits.numpy())
    return trits


def pack_strided(trits: Tensor) -> Tensor:
    """And back."""
    outputs, inputs = trits.shape
    packed = torch.empty(-(-outputs // ROWS_A_BYTE), inputs, dtype=torch.uint8)
    _fabric.pack_strided_codes_into(trits.contiguous().numpy(), packed.numpy())
    return packed


def unpack_blocks(kind: str, data: Tensor) -> tuple[Tensor, Tensor]:
    """Trits, int8 [outputs, in], and the blocks' scales, float32 [outputs, blocks], of uint8
    [outputs, bytes] of whole blocks. Raises EncodingError, as above."""
    outputs, size = data.shape
    blocks = size // block_bytes(kind)
    trits = empty_trits(outputs, blocks * block_trits(kind))
    scales = torch.from_numpy(np.empty((outputs, blocks), np.float32))
    _fabric.unpack_ternary_blocks_into(
        kind, data.reshape(-1).numpy(), trits.view(-1).numpy(), scales.view(-1).numpy()
    )
    return trits, scales


def pack_blocks(kind: str, trits: Tensor, scales: Tensor) -> Tensor:
    """And back. Raises ArgumentError for a scale that fp16 does not hold; ``offset`` is its block."""
    outputs, blocks = scales.shape
    data = torch.empty(outputs, blocks * block_bytes(kind), dtype=torch.uint8)
    _fabric.pack_ternary_blocks_into(
        kind,
        trits.contiguous().view(-1).numpy(),
        scales.contiguous().view(-1).numpy(),
        data.view(-1).numpy(),
    )
    return data


def unpack_interleaved(data: Tensor, block: int) -> Tensor:
    """The trits, int8, of I2_S codes, uint8 of whole blocks of 128 or 64 weights. Raises
    EncodingError, as above."""
    trits = empty_trits(data.numel() * ROWS_A_BYTE)
    _fabric.unpack_interleaved_codes_into(data.numpy(), block, trits.numpy())
    return trits


def order_matters(data: Tensor) -> bool:
    """Whether I2_S codes, whole blocks of 128, are other weights where the blocks hold 64. Raises
    EncodingError, with an offset somewhere before the bad byte."""
    return any(
        not torch.equal(unpack_interleaved(part, 128), unpack_interleaved(part, 64))
        for part in data.split(_COMPARED)
    )


def q2_values(kind: str, data: Tensor) -> Tensor:
    """The float32 values of Q2_0 blocks, which may hold +2: 1-dimensional."""
    blocks = data.view(-1, block_bytes(kind))
    scales = blocks[:, :2].contiguous().view(torch.float16).to(torch.float32)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)
    found = (blocks[:, 2:, None] >> shifts & 3).view(blocks.shape[0], -1).to(torch.float32)
    return found.sub_(1).mul_(scales).view(-1)
