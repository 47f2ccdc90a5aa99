"""The header of a GGUF file, read by hand: the gguf package trusts counts and lengths, and does not
know every type of tensor. Everything is checked against the file's size."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from mmap import mmap
from typing import Any, NamedTuple

#: struct's letters of a value, by its type's number; strings (8) and arrays (9) have lengths.
_VALUES = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
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
    keys: dict[str, int]  # where each value is, from its type on
    tensors: list[TensorInfo]
    alignment: int
    data: int  # offset of the data in the file


class HeaderError(ValueError):
    """A header that cannot be right; ``offset`` is a byte of the file."""

    def __init__(self, offset: int, reason: str, tensor: str | None = None) -> None:
        super().__init__(f"offset {offset}: {reason}")
        self.offset, self.tensor = offset, tensor


def read_header(data: mmap) -> Header:
    """Raises HeaderError."""
    return _Walk(data).header()


def read_value(data: mmap, at: int) -> Any:
    """The metadata at an offset of Header.keys; an array is a list. Raises HeaderError."""
    walk = _Walk(data, at)
    return walk.value(walk.number("<I"))


def read_type(data: mmap, at: int) -> list[int]:
    """The type of the metadata at an offset of Header.keys; of an array its own and its items'."""
    walk = _Walk(data, at)
    kind: int = walk.number("<I")
    return [kind, walk.number("<I")] if kind == _ARRAY else [kind]


class _Walk:
    def __init__(self, data: mmap, at: int = 0) -> None:
        self.data, self.at, self.size = data, at, len(data)

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
        places: dict[str, int] = {}
        for _ in range(keys):
            start = self.at
            key = self.string()
            if key in places:
                raise HeaderError(start, f"key {key!r} is there twice")
            places[key] = self.at
            kind = self.number("<I")
            if key == "general.alignment":
                alignment = self.alignment(kind)
            else:
                self.skip_value(kind)
        infos = self.unique_tensors(tensors)
        padded = -(-self.at // alignment) * alignment
        return Header(places, infos, alignment, padded)

    def unique_tensors(self, count: int) -> list[TensorInfo]:
        found: dict[str, TensorInfo] = {}
        for _ in range(count):
            start = self.at
            name = self.string()
            if name in found:
                raise HeaderError(start, "the tensor is there twice", name)
            dimensions = self.number("<I")
            if not 1 <= dimensions <= _MAX_DIMENSIONS:
                raise HeaderError(start, f"it has {dimensions} dimensions", name)
            shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
            if 0 in shape or math.prod(shape) >= 1 << 62:
                raise HeaderError(start, f"its shape is {shape}", name)
            found[name] = TensorInfo(name, shape, self.number("<I"), self.number("<Q"))
        return list(found.values())

    def alignment(self, kind: int) -> int:
        if kind != _UINT32:
            raise HeaderError(self.at, "general.alignment is no uint32")
        start = self.at
        alignment: int = self.number("<I")
        if alignment == 0 or alignment & (alignment - 1):
            raise HeaderError(start, f"general.alignment is {alignment}, no power of two")
        return alignment

    def skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self.skip_string()
        elif kind == _ARRAY:
            item, count = self.array()
            if item == _STRING:
                for _ in range(count):
                    self.skip_string()
            else:
                self.skip(struct.calcsize(_VALUES[item]) * count, f"an array of {count} values")
        elif kind in _VALUES:
            self.skip(struct.calcsize(_VALUES[kind]), "a value")
        else:
            raise HeaderError(self.at, f"a value of type {kind}")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            item, count = self.array()
            return [self.value(item) for _ in range(count)]
        if kind in _VALUES:
            return self.number("<" + _VALUES[kind])
        raise HeaderError(self.at, f"a value of type {kind}")

    def array(self) -> tuple[int, int]:
        """Type and number of items, which fit the file."""
        item, count = self.number("<I"), self.number("<Q")
        if item != _STRING and item not in _VALUES:
            raise HeaderError(self.at, f"an array of values of type {item}")
        least = 8 if item == _STRING else struct.calcsize(_VALUES[item])
        what = "strings" if item == _STRING else "values"
        self.require(least * count, f"an array of {count} {what}")
        return item, count

    def string(self) -> str:
        start = self.at + 8
        self.skip_string()
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise HeaderError(start, "a string is no UTF-8") from error

    def skip_string(self) -> None:
        length = self.number("<Q")
        self.skip(length, f"a string of {length} bytes")

    def number(self, kind: str) -> Any:
        start = self.at
        self.skip(struct.calcsize(kind), "a number")
        return struct.unpack_from(kind, self.data, start)[0]

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


def rooms(header: Header, file_bytes: int) -> dict[str, tuple[int, int]]:
    """The least and the most bytes that each tensor's data can take. Writers pad to the alignment
    between tensors, and no more; behind the last one they do, or do not."""
    ordered = sorted(header.tensors, key=lambda info: info.offset)
    found = {}
    for info, after in zip(ordered, [*ordered[1:], None], strict=True):
        end = file_bytes - header.data if after is None else after.offset
        room = end - info.offset
        padding = 0 if room % header.alignment else header.alignment - 1
        found[info.name] = (room - padding, room)
    return found
