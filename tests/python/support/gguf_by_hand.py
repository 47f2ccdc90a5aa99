"""GGUF files byte by byte: types that the gguf package does not know, and files that it would not
write."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

F32, F16, TQ1_0, TQ2_0, I2_S, BF16, Q2_0 = 0, 1, 34, 35, 36, 30, 42
ALIGNMENT = 32


class Tensor(NamedTuple):
    """shape: as NumPy has it, inputs last."""

    name: str
    shape: Sequence[int]
    type: int
    data: bytes


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def value(item: Any) -> bytes:
    """A value with its type: uint32, float32, string, or an array of strings or uint32."""
    if isinstance(item, int):
        return struct.pack("<II", 4, item)
    if isinstance(item, float):
        return struct.pack("<If", 6, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + string(item)
    kind = 8 if item and isinstance(item[0], str) else 4
    parts = [string(one) if kind == 8 else struct.pack("<I", one) for one in item]
    return struct.pack("<IIQ", 9, kind, len(item)) + b"".join(parts)


def gguf_bytes(
    tensors: Sequence[Tensor], metadata: Mapping[str, Any] | None = None, pads_last: bool = True
) -> bytes:
    """A whole file."""
    metadata = {"general.architecture": "llama"} if metadata is None else metadata
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, item in metadata.items():
        header += string(key) + value(item)
    data = b""
    for name, shape, kind, content in tensors:
        data += b"\0" * (-len(data) % ALIGNMENT)
        header += string(name) + struct.pack("<I", len(shape))
        header += struct.pack(f"<{len(shape)}Q", *reversed(shape))
        header += struct.pack("<IQ", kind, len(data))
        data += content
    if pads_last:
        data += b"\0" * (-len(data) % ALIGNMENT)
    return header + b"\0" * (-len(header) % ALIGNMENT) + data


def write(path: Path, tensors: Sequence[Tensor], **options: Any) -> Path:
    path.write_bytes(gguf_bytes(tensors, **options))
    return path


def f32(name: str, values: Any) -> Tensor:
    array = np.asarray(values, np.float32)
    return Tensor(name, array.shape, F32, array.tobytes())


def bf16(name: str, values: Any) -> Tensor:
    array = np.asarray(values, np.float32)
    return Tensor(
        name, array.shape, BF16, (array.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    )


def q2_0(name: str, levels: Any, scales: Any, group: int = 64) -> Tensor:
    """levels: −1 to +2, [outputs, inputs]; scales: fp16, [outputs, inputs / group]."""
    levels, scales = np.asarray(levels), np.asarray(scales, np.float16)
    data = b""
    for row, row_scales in zip(levels, scales, strict=True):
        for block, scale in zip(row.reshape(-1, group), row_scales, strict=True):
            codes = (block + 1).reshape(-1, 4) << [0, 2, 4, 6]
            data += scale.tobytes() + codes.sum(axis=1).astype(np.uint8).tobytes()
    return Tensor(name, levels.shape, Q2_0, data)


def i2_s(name: str, trits: Any, scale: float, block: int, tail: bytes = b"\0" * 28) -> Tensor:
    """As bitnet.cpp's quantizer writes it: over the whole tensor, in whole blocks."""
    trits = np.asarray(trits)
    flat = (trits.reshape(-1) + 1).astype(np.int64)
    codes = np.zeros(math.ceil(flat.size / 4), np.uint8)
    for first in range(0, flat.size // block * block, block):
        for j in range(block):
            group, place = divmod(j, block // 4)
            codes[first // 4 + place] |= flat[first + j] << (6 - 2 * group)
    data = codes.tobytes() + np.float32(scale).tobytes() + tail
    return Tensor(name, trits.shape, I2_S, data)
