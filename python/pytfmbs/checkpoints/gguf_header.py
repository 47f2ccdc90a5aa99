"""The header of a GGUF file, checked against the file's size before the gguf package reads it: the
package trusts its counts and lengths, and does not know every type of tensor."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from mmap import mmap
from typing import NamedTuple

#: Bytes of a value, by its type's number; strings (8) and arrays (9) have their own lengths.
_VALUE_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_DEFAULT_ALIGNMENT = 32
_MAX_DIMENSIONS = 4


class TensorInfo(NamedTuple):
    """shape: as NumPy has it, inputs last. offset: from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


class Header(NamedTuple):
    keys: list[str]
    tensors: list[TensorInfo]
    alignment: int
    data: int  # offset of the data in the file


class HeaderError(ValueError):
    """A header that cannot be right; ``offset`` is a byte of the file."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"offset {offset}: {reason}")
        self.offset = offset


def read_header(data: mmap) -> Header:
    """Raises HeaderError."""
    return _Walk(data).header()


class _Walk:
    def __init__(self, data: mmap) -> None:
        self.data, self.at, self.size = data, 0, len(data)

    def header(self) -> Header:
        if self.size < 24 or self.data[:4] != b"GGUF":
            raise HeaderError(0, "this is no GGUF file")
        self.at = 4
        version = self.number("<I")
        if version not in (2, 3):
            raise HeaderError(4, f"version {version} is none of 2 and 3, or the file is big-endian")
        tensors, keys = self.number("<Q"), self.number("<Q")
        self.require(tensors * 24 + keys * 13, f"{tensors} tensors and {keys} keys")
        alignment = _DEFAULT_ALIGNMENT
        names: dict[str, None] = {}
        for _ in range(keys):
            start = self.at
            key = self.string()
            if key in names:
                raise HeaderError(start, f"key {key!r} is there twice")
            names[key] = None
            kind = self.number("<I")
            if key == "general.alignment":
                alignment = self.alignment(kind)
            else:
                self.skip_value(kind)
        infos = self.unique_tensors(tensors)
        padded = -(-self.at // alignment) * alignment
        return Header(list(names), infos, alignment, padded)

    def unique_tensors(self, count: int) -> list[TensorInfo]:
        found: dict[str, TensorInfo] = {}
        for _ in range(count):
            start = self.at
            name = self.string()
            if name in found:
                raise HeaderError(start, f"tensor {name!r} is there twice")
            dimensions = self.number("<I")
            if not 1 <= dimensions <= _MAX_DIMENSIONS:
                raise HeaderError(start, f"tensor {name!r} has {dimensions} dimensions")
            shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
            if 0 in shape or math.prod(shape) >= 1 << 62:
                raise HeaderError(start, f"tensor {name!r} has shape {shape}")
            found[name] = TensorInfo(name, shape, self.number("<I"), self.number("<Q"))
        return list(found.values())

    def alignment(self, kind: int) -> int:
        if kind != _UINT32:
            raise HeaderError(self.at, "general.alignment is no uint32")
        start, alignment = self.at, self.number("<I")
        if alignment == 0 or alignment & (alignment - 1):
            raise HeaderError(start, f"general.alignment is {alignment}, no power of two")
        return alignment

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.string()
        elif kind == _ARRAY:
            item, count = self.number("<I"), self.number("<Q")
            if item == _STRING:
                self.require(8 * count, f"an array of {count} strings")
                for _ in range(count):
                    self.string()
            elif item in _VALUE_BYTES:
                self.skip(_VALUE_BYTES[item] * count, f"an array of {count} values")
            else:
                raise HeaderError(self.at, f"an array of values of type {item}")
        elif kind in _VALUE_BYTES:
            self.skip(_VALUE_BYTES[kind], "a value")
        else:
            raise HeaderError(self.at, f"a value of type {kind}")

    def string(self) -> str:
        length = self.number("<Q")
        start = self.at
        self.skip(length, f"a string of {length} bytes")
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise HeaderError(start, "a string is no UTF-8") from error

    def number(self, kind: str) -> int:
        start = self.at
        self.skip(struct.calcsize(kind), "a number")
        value: int = struct.unpack_from(kind, self.data, start)[0]
        return value

    def skip(self, size: int, what: str) -> None:
        self.require(size, what)
        self.at += size

    def require(self, size: int, what: str) -> None:
        if size > self.size - self.at:
            raise HeaderError(self.at, f"{what} would pass the end of the file")


def misplaced(
    header: Header, file_bytes: int, size_of: Callable[[TensorInfo], int]
) -> tuple[str, str] | None:
    """The first tensor whose data is not in the file, is not aligned, or has another's bytes, and
    why; None where all is well. size_of: a tensor's bytes."""
    end, before = 0, ""
    for info in sorted(header.tensors, key=lambda info: info.offset):
        if info.offset % header.alignment:
            return info.name, f"its offset {info.offset} is no multiple of {header.alignment}"
        if info.offset < end:
            return info.name, f"its data overlaps that of {before!r}"
        end, before = info.offset + size_of(info), info.name
        if header.data + end > file_bytes:
            return info.name, "its data passes the end of the file"
    return None
