"""The types of GGUF tensors: those that hold ternary weights, their sizes, and what tells apart the
layouts that share a number."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import EncodingError
from . import codes
from .gguf_header import Header, TensorInfo, rooms

TQ1_0, TQ2_0, I2_S, Q2_0 = 34, 35, 36, 42
_OTHER = "Convert the original model to TQ2_0, or load its safetensors"
#: Types that are not read, by number: name, why, what to do.
REFUSED = {
    142: ("PQ2_0", "its weights may be rotated by a Hadamard matrix, which is not undone", _OTHER),
    143: ("PTQ1_0", "its weights may be rotated by a Hadamard matrix, which is not undone", _OTHER),
}  # fmt: skip
#: Metadata that says that weights are rotated.
ROTATED = "prism.hadamard."
I2_S_BLOCKS = (128, 64)
#: Types whose tensors are no ternary weights, and are views of the file.
_PLAIN = {0: torch.float32, 1: torch.float16, 28: torch.float64, 30: torch.bfloat16}


class Refusal(Exception):
    """A tensor, or None, that is not read: why, what to do, and where in its data."""

    def __init__(
        self, tensor: str | None, reason: str, remedy: str = _OTHER, offset: int | None = None
    ) -> None:
        super().__init__(tensor, reason, remedy, offset)
        self.tensor, self.reason, self.remedy, self.offset = tensor, reason, remedy, offset


class Layouts(NamedTuple):
    """q2: the kind of blocks of type Q2_0. i2s: weights per block of I2_S, None where not known."""

    q2: str
    i2s: int | None

    def kind(self, info: TensorInfo) -> str | None:
        """The kind of ternary blocks, "i2_s", or None for a tensor that is not ternary."""
        return {TQ1_0: "tq1_0", TQ2_0: "tq2_0", Q2_0: self.q2, I2_S: "i2_s"}.get(info.type)

    def bytes_of(self, info: TensorInfo, gguf: Any) -> int:
        """Of the data. Raises Refusal for a type or shape that does not exist."""
        kind = self.kind(info)
        weights = math.prod(info.shape)
        if kind == "i2_s":
            block = self.i2s or min(I2_S_BLOCKS)
            _check_rows(info, block)
            return weights // codes.ROWS_A_BYTE + 4
        if kind is not None:
            _check_rows(info, codes.block_trits(kind))
            return weights // codes.block_trits(kind) * codes.block_bytes(kind)
        if info.type in REFUSED:
            name, reason, remedy = REFUSED[info.type]
            raise Refusal(info.name, f"its type is {name}: {reason}", remedy)
        if info.type not in {*gguf.GGMLQuantizationType}:
            raise Refusal(info.name, f"its type {info.type} is unknown")
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(info.type)]
        _check_rows(info, block)
        return weights // int(block) * int(size)


def _check_rows(info: TensorInfo, block: int) -> None:
    if info.shape[-1] % block:
        raise Refusal(info.name, f"its rows of {info.shape[-1]} are no blocks of {block}")


def plain(info: TensorInfo, data: Tensor) -> Tensor | None:
    """A tensor of F32, F16, BF16 or F64 as a view of its bytes; None for another type."""
    dtype = _PLAIN.get(info.type)
    return None if dtype is None else data.view(dtype).view(info.shape)


def q2_kind(header: Header, file_bytes: int) -> str:
    """The blocks of the file's Q2_0 tensors: files of one type number have 64 weights per block, and
    older ones 128. The room between tensors tells. Raises Refusal where it does not."""
    infos = [info for info in header.tensors if info.type == Q2_0]
    if not infos:
        return "q2_0"
    room = rooms(header, file_bytes)

    def fits(kind: str, info: TensorInfo) -> bool:
        block, (least, most) = codes.block_trits(kind), room[info.name]
        size = math.prod(info.shape) // block * codes.block_bytes(kind)
        return info.shape[-1] % block == 0 and least <= size <= most

    kinds = ("q2_0", "q2_0_g128")
    possible = [kind for kind in kinds if all(fits(kind, info) for info in infos)]
    if len(possible) == 1:
        return possible[0]
    if possible:
        reason = "its size fits groups of 64 and of 128 weights"
        raise Refusal(infos[0].name, f"its type is Q2_0: {reason}")
    odd = next((i for i in infos if not any(fits(kind, i) for kind in kinds)), infos[0])
    low, high = room[odd.name]
    raise Refusal(
        odd.name,
        f"its type is Q2_0, and the {max(low, 0)} to {high} bytes of its data fit neither groups of 64 "
        "nor of 128 weights, or not those of the other tensors",
        "Download or convert it again",
    )


def i2s_block(infos: list[TensorInfo], data_of: Any, told: int | None) -> int | None:
    """Weights per block of the file's I2_S tensors. Raises Refusal where the file does not say.

    x86 quantizes blocks of 128 weights, and ARM of 64, over the whole tensor. Both use the same codes
    of each 32 bytes, in another order. It is certain where the order makes no difference to any
    tensor, and where a tensor ends in 64 weights that a quantizer of 128 leaves zero bytes.
    """
    if told is not None or not infos:
        return told
    differs = None
    for info in infos:
        data = data_of(info)[:-4]
        rest = data.numel() % 32
        if rest and bool(data[-rest:].any()):
            return 64
        try:
            if differs is None and (rest or codes.order_matters(data)):
                differs = info
        except EncodingError as error:
            raise Refusal(info.name, str(error), "Download or convert it again") from error
    if differs is None:
        return I2_S_BLOCKS[0]
    raise Refusal(
        differs.name,
        "its type is I2_S: the file does not say whether its blocks hold 128 weights (written on x86) "
        "or 64 (on ARM)",
        "Pass i2s_block=128, which published files have, or i2s_block=64",
    )
