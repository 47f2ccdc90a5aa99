"""Text of MLIR: literals, attributes, resources."""

from __future__ import annotations

import math
import re

import numpy as np

from .types import Array, ElementType

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$.]*")
_FEW = 16  # elements that are written one by one
_INLINE_BYTES = 256  # of a constant that stands in the op; larger ones are resources
#: Bytes; the 32-bit word that a resource begins with says it.
_ALIGNMENT = 64


def string(text: str) -> str:
    """A string attribute."""
    out = []
    for byte in text.encode("utf-8", "surrogatepass"):
        plain = 0x20 <= byte < 0x7F and byte not in b'"\\'
        out.append(chr(byte) if plain else f"\\{byte:02X}")
    return '"' + "".join(out) + '"'


def symbol(name: str) -> str:
    """@name, quoted where it has to be."""
    return f"@{name}" if _IDENTIFIER.fullmatch(name) else f"@{string(name)}"


def identifier(name: str) -> str:
    """A name with everything that no bare identifier may have replaced."""
    cleaned = re.sub(r"[^A-Za-z0-9_$.]", "_", name)
    return cleaned if cleaned and (cleaned[0].isalpha() or cleaned[0] == "_") else f"_{cleaned}"


def literal(value: object, element: ElementType) -> str:
    """A scalar, exactly: floats that decimal cannot say (infinities, NaNs) as their bits."""
    scalar = np.asarray(value).astype(element.numpy)
    if element.kind == "bool":
        return "true" if scalar else "false"
    if not element.is_float:
        whole = int(scalar)
        return str(whole - (1 << element.bits) if whole >= 1 << (element.bits - 1) else whole)
    number = float(scalar)
    if not math.isfinite(number):
        bits = int.from_bytes(scalar.tobytes(), "little")
        return f"0x{bits:0{element.bits // 4}X}"
    text = repr(number)  # of the exact value as a double, so reading it rounds nothing
    mantissa, exponent, power = text.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{exponent}{power}"


class Resources:
    """The module's blobs, by name."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}

    def add(self, name: str, blob: bytes) -> str:
        """Keeps a blob and returns its name, with a suffix where the name is another's."""
        base = name = identifier(name)
        suffix = 0
        while self._blobs.get(name, blob) != blob:
            suffix += 1
            name = f"{base}_{suffix}"
        self._blobs[name] = blob
        return name

    def text(self) -> str:
        """The file's metadata section; empty without blobs."""
        if not self._blobs:
            return ""
        word = _ALIGNMENT.to_bytes(4, "little").hex().upper()
        entries = ",\n".join(
            f'      {name}: "0x{word}{blob.hex().upper()}"' for name, blob in self._blobs.items()
        )
        return f"\n{{-#\n  dialect_resources: {{\n    builtin: {{\n{entries}\n    }}\n  }}\n#-}}\n"


def elements_attribute(array: Array, element: ElementType, name: str, resources: Resources) -> str:
    """dense<…>, or dense_resource<name> for what is large."""
    if array.size == 0:
        return "dense<>"
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    data = little.tobytes()
    if data == data[: array.dtype.itemsize] * array.size:
        return f"dense<{literal(array.flat[0], element)}>"
    if array.size <= _FEW or element.kind == "bool":
        return f"dense<{_nested(array, element)}>"
    if len(data) <= _INLINE_BYTES:
        return f'dense<"0x{data.hex().upper()}">'
    return f"dense_resource<{resources.add(name, data)}>"


def _nested(array: Array, element: ElementType) -> str:
    if array.ndim == 0:
        return literal(array, element)
    return "[" + ", ".join(_nested(part, element) for part in array) + "]"
