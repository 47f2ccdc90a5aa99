"""What a compiled function takes and gives, and arrays as its ABI wants them.

A tensor crosses the boundary as MLIR's memref descriptor: allocated pointer, aligned pointer,
offset, sizes, strides, each a 64-bit integer.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..emission.requirements import Requirements
from ..toolchain.programs import CompilationError

_TORCH = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16,
    "i1": torch.bool, "i8": torch.int8, "i16": torch.int16, "i32": torch.int32,
    "i64": torch.int64, "index": torch.int64, "ui8": torch.uint8, "ui16": torch.uint16,
    "ui32": torch.uint32, "ui64": torch.uint64,
}  # fmt: skip
_NUMPY: dict[str, Any] = {
    "f32": np.float32, "f64": np.float64, "f16": np.float16,
    "i1": np.bool_, "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "index": np.int64, "ui8": np.uint8, "ui16": np.uint16, "ui32": np.uint32, "ui64": np.uint64,
}  # fmt: skip

_TENSOR = re.compile(r"tensor<((?:(?:\d+|\?)x)*)(\w+)>")


@dataclass(frozen=True)
class TensorType:
    """A ranked tensor: its element type in MLIR's words, and its sizes, None where dynamic.

    Integers that the module marks with ``tfmbs.unsigned`` are unsigned here ("ui8"): MLIR's
    arithmetic knows integers without a sign only.
    ``names`` are the dynamic sizes' names, where the module gives them: sizes of one name are
    equal. ``writable`` says that the function may write into the argument.
    """

    element: str
    shape: tuple[int | None, ...]
    names: tuple[str, ...] = ()
    writable: bool = False

    @property
    def dtype(self) -> torch.dtype:
        return _TORCH[self.element]

    @property
    def numpy_dtype(self) -> Any:
        if self.element == "bf16":
            # NumPy has none of its own; ml_dtypes comes with onnx.
            from ml_dtypes import bfloat16

            return np.dtype(bfloat16)
        return np.dtype(_NUMPY[self.element])

    def __str__(self) -> str:
        sizes = ["?" if size is None else str(size) for size in self.shape]
        return f"tensor<{'x'.join([*sizes, self.element])}>"


@dataclass(frozen=True)
class Signature:
    """A function's name, what it takes, and what it gives."""

    entry: str
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    requirements: Requirements = field(default_factory=lambda: Requirements((), ()))

    def __str__(self) -> str:
        inputs, outputs = (", ".join(map(str, types)) for types in (self.inputs, self.outputs))
        return f"{self.entry}({inputs}) -> ({outputs})"


def parse(generic: str, entry: str | None) -> Signature:
    """The signature of a module's function, from mlir-opt's generic form of the module.

    entry None is the only public function, or the one that is called "main" or "forward".
    """
    functions, closing, current = {}, {}, None
    for line in generic.splitlines():
        # At the indentation of what stands directly in the module.
        if line.startswith('  "func.func"() <{') and 'sym_visibility = "private"' not in line:
            name = re.search(r'sym_name = "((?:[^"\\]|\\.)*)"', line)
            current = name and name[1]
            if current is not None:
                functions[current] = line
        elif line.startswith("  })") and current is not None:
            closing[current], current = line, None  # what is no part of the operation stands here
    if entry is None:
        usual = [name for name in ("main", "forward") if name in functions]
        chosen = list(functions) if len(functions) == 1 else usual
        if not chosen:
            raise CompilationError(
                "compile_module",
                f"needs entry=: the module has the public functions {sorted(functions) or 'none'}",
            )
        entry = chosen[0]
    if entry not in functions:
        raise CompilationError(
            "compile_module", f"finds no public function {entry!r}; there are {sorted(functions)}"
        )
    line = functions[entry]
    start = line.index("function_type = (") + len("function_type = ")
    arguments, end = _balanced(line, start)
    rest = line[end:].removeprefix(" -> ")
    results = _balanced(rest, 0)[0] if rest.startswith("(") else "(" + next(_split(rest)) + ")"
    inputs = _tensor_types(line, entry, arguments, "arg_attrs = [")
    lines = _list_attribute(closing.get(entry, ""), "tfmbs.requires = [")
    try:
        requirements = Requirements(
            [_unquoted(text) for text in lines], [len(kind.shape) for kind in inputs]
        )
    except ValueError as error:
        raise CompilationError("compile_module", f"cannot read {entry!r}: {error}") from error
    return Signature(
        entry,
        inputs,
        _tensor_types(line, entry, results, "res_attrs = ["),
        requirements,
    )


def _unquoted(text: str) -> str:
    """A string attribute's value: MLIR writes bytes as two hexadecimal digits after a backslash."""
    data = re.sub(
        rb"\\(\\|[0-9A-Fa-f]{2})",
        lambda m: m[1] if m[1] == b"\\" else bytes.fromhex(m[1].decode()),
        text[1:-1].encode(),
    )
    return data.decode(errors="replace")


def _tensor_types(line: str, entry: str, types: str, key: str) -> tuple[TensorType, ...]:
    """The bracketed types of a function's arguments or results, with the attributes under key."""
    attributes = _list_attribute(line, key)
    return tuple(
        _tensor_type(text, entry, attributes[index] if index < len(attributes) else "")
        for index, text in enumerate(_split(types[1:-1]))
    )


def _tensor_type(text: str, entry: str, attributes: str) -> TensorType:
    match = _TENSOR.fullmatch(text)
    if match is None or match[2] not in _TORCH:
        raise CompilationError(
            "compile_module",
            f"takes functions on ranked tensors of {', '.join(_TORCH)}; "
            f"{entry!r} has a {text} in its signature",
        )
    sizes = tuple(None if size == "?" else int(size) for size in match[1].split("x")[:-1])
    names = re.search(r"tfmbs\.dims = \[([^\]]*)\]", attributes)
    unsigned = "tfmbs.unsigned" in attributes and re.fullmatch(r"i\d+", match[2]) is not None
    return TensorType(
        f"u{match[2]}" if unsigned else match[2],
        sizes,
        tuple(re.findall(r'"([^"]*)"', names[1])) if names is not None else (),
        "bufferization.writable = false" not in attributes,
    )


def _balanced(text: str, start: int) -> tuple[str, int]:
    """The bracketed text that begins at start, and where it ends."""
    depth = 0
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|->|[(<\[{]|[)>\]}]', text[start:]):
        if match[0] in "(<[{":
            depth += 1
        elif match[0] in ")>]}":
            depth -= 1
            if depth == 0:
                end = start + match.end()
                return text[start:end], end
    raise CompilationError("mlir-opt", "printed a function that cannot be read", text)


def _split(text: str) -> Iterator[str]:
    """The parts of a list between its outermost commas, up to a bracket that closes more."""
    depth, start, end = 0, 0, len(text)
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|->|[(<\[{]|[)>\]}]|,', text):
        if match[0] in "(<[{":
            depth += 1
        elif match[0] in ")>]}":
            depth -= 1
            if depth < 0:
                end = match.start()
                break
        elif match[0] == "," and depth == 0:
            yield text[start : match.start()].strip()
            start = match.end()
    if text[start:end].strip():
        yield text[start:end].strip()


def _list_attribute(line: str, key: str) -> list[str]:
    place = line.find(key)
    if place < 0:
        return []
    return list(_split(_balanced(line, place + len(key) - 1)[0][1:-1]))


# --- arguments ------------------------------------------------------------------------------------


class Arguments:
    """Checked arguments of one call as descriptors; keeps the memory that they point to."""

    def __init__(self, signature: Signature, values: Sequence[object]) -> None:
        if len(values) != len(signature.inputs):
            raise TypeError(
                f"{signature} takes {len(signature.inputs)} arrays; {len(values)} were given"
            )
        self.torch = any(isinstance(value, Tensor) for value in values)
        self._kept: list[object] = []
        self.descriptors: list[Any] = []
        named: dict[object, tuple[int, str]] = {}
        shapes: list[tuple[int, ...]] = []
        for index, (value, wanted) in enumerate(zip(values, signature.inputs, strict=True)):
            where = f"argument {index} of {signature.entry}"
            shape, address = self._take(value, wanted, where)
            self._check_shape(shape, wanted, where, named)
            shapes.append(shape)
            strides, step = [], 1
            for size in reversed(shape):
                strides.append(step)
                step *= max(size, 1)
            fields = [address, address, 0, *shape, *reversed(strides)]
            self.descriptors.append((ctypes.c_int64 * len(fields))(*fields))
        signature.requirements.check(signature.entry, shapes)

    def _take(self, value: object, wanted: TensorType, where: str) -> tuple[tuple[int, ...], int]:
        """Shape and address of an array that is laid out as the function wants it."""
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu":
                raise TypeError(
                    f"{where} must be a dense tensor on the CPU; this one is {value.layout} "
                    f"on {value.device}"
                )
            if value.dtype != wanted.dtype:
                raise TypeError(f"{where} must be {wanted.dtype}, for {wanted}; got {value.dtype}")
            tensor = value.detach().resolve_conj().resolve_neg().contiguous()
            if wanted.writable and tensor.data_ptr() == value.data_ptr():
                tensor = tensor.clone()
            self._kept.append(tensor)
            return tuple(tensor.shape), tensor.data_ptr()
        if isinstance(value, np.ndarray | np.generic):
            dtype = wanted.numpy_dtype
            if value.dtype != dtype or not value.dtype.isnative:
                raise TypeError(f"{where} must be {dtype}, for {wanted}; got {value.dtype}")
            array: np.ndarray[Any, Any] = np.array(value, copy=wanted.writable or None, order="C")
            array = np.require(array, requirements=["C", "A"])
            self._kept.append(array)
            return array.shape, array.ctypes.data
        raise TypeError(
            f"{where} must be a torch.Tensor or a numpy.ndarray, not {type(value).__name__}"
        )

    @staticmethod
    def _check_shape(
        shape: tuple[int, ...],
        wanted: TensorType,
        where: str,
        named: dict[object, tuple[int, str]],
    ) -> None:
        fits = len(shape) == len(wanted.shape) and all(
            size is None or size == given for size, given in zip(wanted.shape, shape, strict=True)
        )
        if not fits:
            raise ValueError(f"{where} must have the shape of {wanted}; got {list(shape)}")
        # Compiled code trusts the sizes that it is given. Without names, dynamic sizes at the same
        # place have to be equal: a batch is a batch.
        for place, size in enumerate(shape):
            if wanted.shape[place] is not None:
                continue
            key = wanted.names[place] if place < len(wanted.names) else place
            first, first_where = named.setdefault(key, (size, f"{where}, dimension {place}"))
            if size != first:
                raise ValueError(
                    f"{where}, dimension {place}, is {size}, and {first_where}, is {first}: "
                    "they must be equal"
                )


class Results:
    """Room for the descriptors that a call fills, and what it gave as arrays."""

    def __init__(self, types: Sequence[TensorType]) -> None:
        self._types = types
        lengths = [3 + 2 * len(kind.shape) for kind in types]
        self.descriptors = (ctypes.c_int64 * max(1, sum(lengths)))()
        self._starts = [sum(lengths[:index]) for index in range(len(lengths))]

    def arrays(self, as_torch: bool) -> list[Any]:
        """Copies of the results."""
        return [
            self._array(kind, start, as_torch)
            for kind, start in zip(self._types, self._starts, strict=True)
        ]

    def free(self, free: Callable[[int], object]) -> None:
        """Gives back what the function allocated; a buffer that came out twice, once."""
        for address in {self.descriptors[start] for start in self._starts} - {0}:
            free(address)
        ctypes.memset(self.descriptors, 0, ctypes.sizeof(self.descriptors))

    def _array(self, kind: TensorType, start: int, as_torch: bool) -> Any:
        rank = len(kind.shape)
        _, aligned, offset, *rest = self.descriptors[start : start + 3 + 2 * rank]
        shape = tuple(rest[:rank])
        array: Any
        if as_torch:
            array = torch.empty(shape, dtype=kind.dtype)
            address, itemsize, size = array.data_ptr(), array.element_size(), array.numel()
        else:
            array = np.empty(shape, kind.numpy_dtype)
            address, itemsize, size = array.ctypes.data, array.itemsize, array.size
        if size:
            ctypes.memmove(address, aligned + offset * itemsize, size * itemsize)
        return array
