"""Values of a graph: element types, extents that may be known only at run time, constants."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np
import onnx

from ..errors import ConversionError

Kind: TypeAlias = Literal["float", "signed", "unsigned", "bool"]

#: A size: a number, or the SSA name of an index value that holds it at run time. Two extents of one
#: name are equal; of two names nothing is known.
Extent: TypeAlias = int | str

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_LARGEST = 2**63 - 1  # elements and sizes, as MLIR's index


@dataclass(frozen=True)
class ElementType:
    """An element type of both worlds. MLIR's integers have no sign; ``kind`` remembers it."""

    mlir: str
    kind: Kind
    bits: int
    numpy: Any

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def name(self) -> str:
        return str(np.dtype(self.numpy).name)

    @property
    def compute(self) -> ElementType:
        """What arithmetic is done in: fp32 for 16-bit floats, else the type itself."""
        return F32 if self.is_float and self.bits == 16 else self


F16 = ElementType("f16", "float", 16, np.float16)
BF16 = ElementType("bf16", "float", 16, ml_dtypes.bfloat16)
F32 = ElementType("f32", "float", 32, np.float32)
F64 = ElementType("f64", "float", 64, np.float64)
BOOL = ElementType("i1", "bool", 1, np.bool_)
I8 = ElementType("i8", "signed", 8, np.int8)
I16 = ElementType("i16", "signed", 16, np.int16)
I32 = ElementType("i32", "signed", 32, np.int32)
I64 = ElementType("i64", "signed", 64, np.int64)
U8 = ElementType("i8", "unsigned", 8, np.uint8)
U16 = ElementType("i16", "unsigned", 16, np.uint16)
U32 = ElementType("i32", "unsigned", 32, np.uint32)
U64 = ElementType("i64", "unsigned", 64, np.uint64)
#: Inside emitted code only.
INDEX = ElementType("index", "signed", 64, np.int64)

_ONNX: dict[int, ElementType] = {
    onnx.TensorProto.FLOAT16: F16,
    onnx.TensorProto.BFLOAT16: BF16,
    onnx.TensorProto.FLOAT: F32,
    onnx.TensorProto.DOUBLE: F64,
    onnx.TensorProto.BOOL: BOOL,
    onnx.TensorProto.INT8: I8,
    onnx.TensorProto.INT16: I16,
    onnx.TensorProto.INT32: I32,
    onnx.TensorProto.INT64: I64,
    onnx.TensorProto.UINT8: U8,
    onnx.TensorProto.UINT16: U16,
    onnx.TensorProto.UINT32: U32,
    onnx.TensorProto.UINT64: U64,
}
_NUMPY = {np.dtype(element.numpy): element for element in _ONNX.values()}


def onnx_type_name(data_type: int) -> str:
    """ONNX's name of an element type, or the number that is none."""
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return str(names.get(data_type, data_type))


def from_onnx(data_type: int, what: str) -> ElementType:
    """The element type of ONNX's number. Raises ConversionError; ``what`` has it."""
    if data_type not in _ONNX:
        raise ConversionError(
            f"{what} has elements of type {onnx_type_name(data_type)}; allowed are floats of 16 "
            "to 64 bits, bfloat16, integers of 8 to 64 bits, and bool"
        )
    return _ONNX[data_type]


def onnx_type(element: ElementType) -> int:
    """ONNX's number of an element type."""
    return next(number for number, own in _ONNX.items() if own == element)


def from_numpy(dtype: np.dtype[Any], what: str) -> ElementType:
    """The element type of an array's. Raises ConversionError; ``what`` has it."""
    if dtype not in _NUMPY:
        raise ConversionError(f"{what} has elements of type {dtype.name}, which no tensor here has")
    return _NUMPY[dtype]


def check_size(extents: tuple[Extent, ...], what: str) -> None:
    """Raises ConversionError where the known sizes alone are too many elements to count."""
    if math.prod(e for e in extents if isinstance(e, int) and e != 0) > _LARGEST:
        raise ConversionError(f"{what} of shape {shape_text(extents)} has too many elements")


def fits(a: tuple[Extent, ...], b: tuple[Extent, ...]) -> bool:
    """Whether two shapes can be one, as far as sizes are known."""
    return len(a) == len(b) and all(
        x == y or isinstance(x, str) or isinstance(y, str) for x, y in zip(a, b, strict=True)
    )


def shape_text(extents: tuple[Extent, ...]) -> str:
    """[2, ?, 3], for messages."""
    return "[" + ", ".join(str(e) if isinstance(e, int) else "?" for e in extents) + "]"


def mlir_tensor(extents: tuple[Extent, ...], element: str) -> str:
    """tensor<2x?x3xf32>."""
    return (
        "tensor<"
        + "".join(f"{e}x" if isinstance(e, int) else "?x" for e in extents)
        + element
        + ">"
    )


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph.

    ``constant`` where it is known; ``elements`` where it is an int64 tensor of rank 0 or 1 whose
    elements are extents (what shape arithmetic gives); ``ssa`` where the function has it. One of
    the three is there.
    """

    element: ElementType
    extents: tuple[Extent, ...]
    ssa: str | None = None
    constant: Array | None = None
    elements: tuple[Extent, ...] | None = None

    @property
    def rank(self) -> int:
        return len(self.extents)

    @property
    def type(self) -> str:
        return mlir_tensor(self.extents, self.element.mlir)

    @property
    def shape(self) -> str:
        return shape_text(self.extents)


def constant(array: Array, what: str = "a constant") -> Value:
    """The value of an array."""
    return Value(from_numpy(array.dtype, what), tuple(map(int, array.shape)), constant=array)


def extents_of(value: Value) -> tuple[Extent, ...] | None:
    """The elements of an integer tensor of rank 0 or 1, where they are known as extents."""
    if value.elements is not None:
        return value.elements
    if (
        value.constant is not None
        and value.rank <= 1
        and value.element.kind in ("signed", "unsigned")
    ):
        return tuple(int(v) for v in value.constant.reshape(-1))
    return None
