"""PT-5 for tensors and arrays: five trits per byte (docs/format.md)."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

from .. import _fabric, errors
from ..ops.dense import exceeds_storage

Array = TypeVar("Array", torch.Tensor, np.ndarray)


def pack_pt5(trits: Array) -> Array:
    """Packs trits, the first in the lowest digit, the tail padded with zeros.

    trits: any shape, of an integer or float dtype, every value -1, 0 or +1; taken in row-major
    order. Returns uint8, [ceil(n / 5)], of the kind that was given (tensor or array).
    Raises ArgumentError (a value that is no trit; ``offset`` is its index), TypeError.
    """
    if isinstance(trits, torch.Tensor):
        source = _tensor_trits(trits)
        packed = torch.empty(-(-source.numel() // _fabric.TRITS_PER_BYTE), dtype=torch.uint8)
        _fabric.pack_pt5_into(source.numpy(), packed.numpy())
        return packed.to(trits.device)
    if isinstance(trits, np.ndarray):
        flat = np.ascontiguousarray(_as_int8(trits)).reshape(-1)
        out = np.empty(-(-flat.size // _fabric.TRITS_PER_BYTE), dtype=np.uint8)
        _fabric.pack_pt5_into(flat, out)
        return out
    raise TypeError(f"trits must be a torch.Tensor or a numpy.ndarray, not {type(trits).__name__}")


def unpack_pt5(packed: Array, count: int | None = None) -> Array:
    """The first ``count`` trits (default: all, five per byte) of PT-5 bytes, as int8, [count].

    packed: uint8, taken in row-major order. Returns the kind that was given (tensor or array).
    Raises EncodingError (a byte above 242; ``offset`` is its index), ValueError (count), TypeError.
    """
    if isinstance(packed, torch.Tensor):
        if packed.dtype != torch.uint8:
            raise TypeError(f"packed must be uint8, not {packed.dtype}")
        source = _flat(packed, "packed").numpy()
        return torch.from_numpy(_unpack(source, count)).to(packed.device)
    if isinstance(packed, np.ndarray):
        if packed.dtype != np.uint8:
            raise TypeError(f"packed must be uint8, not {packed.dtype}")
        return _unpack(np.ascontiguousarray(packed).reshape(-1), count)
    raise TypeError(
        f"packed must be a torch.Tensor or a numpy.ndarray, not {type(packed).__name__}"
    )


def _unpack(source: np.ndarray, count: int | None) -> np.ndarray:
    capacity = source.size * _fabric.TRITS_PER_BYTE
    count = capacity if count is None else count
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= capacity:
        raise ValueError(f"count is {count!r}; {source.size} bytes hold 0 to {capacity} trits")
    # A fault in any byte is a fault, whether or not its trits are asked for.
    trits = np.empty(capacity, dtype=np.int8)
    _fabric.unpack_pt5_into(source, trits)
    return trits[:count].copy() if count != capacity else trits


def _flat(tensor: torch.Tensor, what: str) -> torch.Tensor:
    """On the CPU, in row-major order."""
    if exceeds_storage(tensor):
        raise errors.ArgumentError(f"{what} has no memory: its storage was freed or shrunk")
    return tensor.detach().cpu().contiguous().reshape(-1)


def _tensor_trits(trits: torch.Tensor) -> torch.Tensor:
    if trits.dtype.is_complex or trits.dtype == torch.bool:
        raise TypeError(f"trits must be of an integer or float dtype, not {trits.dtype}")
    flat = _flat(trits, "trits")
    if flat.dtype == torch.int8:
        return flat
    if flat.dtype in (torch.bfloat16, torch.float16):
        flat = flat.float()
    return torch.from_numpy(_as_int8(flat.numpy()))


def _as_int8(trits: np.ndarray) -> np.ndarray:
    """As int8. Raises what the packer raises, but names a value that int8 may not hold."""
    if trits.dtype == np.int8:
        return trits
    if trits.dtype.kind not in "iuf":
        raise TypeError(f"trits must be of an integer or float dtype, not {trits.dtype}")
    valid = (trits == 0) | (trits == 1) | (trits == -1)
    if not valid.all():
        index = int(np.argmin(valid))  # in row-major order
        message = f"pack_pt5: value {trits.flat[index]} at index {index} is no trit (-1, 0 or +1)"
        raise errors.from_code("invalid_argument", message, index)
    return trits.astype(np.int8)
