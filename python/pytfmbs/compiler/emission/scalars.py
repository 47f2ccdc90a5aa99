"""Arithmetic of single elements, in the body of a loop nest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from .mlir_text import literal
from .types import BOOL, F32, I64, INDEX, ElementType, Value

Predicate = Literal["eq", "ne", "lt", "le", "gt", "ge"]


class Scalar(NamedTuple):
    name: str
    element: ElementType


class Body:
    """Lines of a body. Operands of one operation are of one type; results are of it too."""

    def __init__(self, fresh: Callable[[], str]) -> None:
        self._fresh = fresh
        self.lines: list[str] = []
        self._constants: dict[tuple[str, str], str] = {}

    def argument(self, element: ElementType) -> Scalar:
        return Scalar(self._fresh(), element)

    def text(self, operation: str) -> str:
        """A line of its own; the name of its result."""
        name = self._fresh()
        self.lines.append(f"{name} = {operation}")
        return name

    def op(self, mnemonic: str, *operands: Scalar) -> Scalar:
        element = operands[0].element
        names = ", ".join(operand.name for operand in operands)
        return Scalar(self.text(f"{mnemonic} {names} : {element.mlir}"), element)

    def constant(self, value: object, element: ElementType) -> Scalar:
        written = literal(value, element)
        key = (written, element.mlir)
        if key not in self._constants:
            suffix = "" if element is BOOL else f" : {element.mlir}"
            self._constants[key] = self.text(f"arith.constant {written}{suffix}")
        return Scalar(self._constants[key], element)

    def like(self, value: object, other: Scalar) -> Scalar:
        return self.constant(value, other.element)

    def index(self, loop: int) -> str:
        return self.text(f"linalg.index {loop} : index")

    def number(self, index: str) -> Scalar:
        """An index as an int64."""
        return Scalar(self.text(f"arith.index_cast {index} : index to i64"), I64)

    def extract(self, tensor: str, places: Sequence[str], value: Value) -> Scalar:
        """An element of a whole tensor."""
        name = self.text(f"tensor.extract {tensor}[{', '.join(places)}] : {value.type}")
        return Scalar(name, value.element)

    # --- arithmetic -----------------------------------------------------------------------------

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("arith.addf" if a.element.is_float else "arith.addi", a, b)

    def sub(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("arith.subf" if a.element.is_float else "arith.subi", a, b)

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op("arith.mulf" if a.element.is_float else "arith.muli", a, b)

    def div(self, a: Scalar, b: Scalar) -> Scalar:
        """Integers round toward 0. What the machine traps on has a result here: x / 0 is x, and
        the least number divided by -1 itself."""
        if a.element.is_float:
            return self.op("arith.divf", a, b)
        one, zero = self.like(1, a), self.like(0, a)
        divisor = self.select(self.compare("eq", b, zero), one, b)
        if a.element.kind != "signed":
            return self.op("arith.divui", a, divisor)
        is_minus_one = self.compare("eq", b, self.like(-1, b))
        divisor = self.select(is_minus_one, one, divisor)
        return self.select(is_minus_one, self.sub(zero, a), self.op("arith.divsi", a, divisor))

    def remainder(self, a: Scalar, b: Scalar) -> Scalar:
        """With the dividend's sign, as C's."""
        if a.element.is_float:
            return self.op("arith.remf", a, b)
        return self.sub(a, self.mul(self.div(a, b), b))

    def neg(self, a: Scalar) -> Scalar:
        return self.op("arith.negf", a) if a.element.is_float else self.sub(self.like(0, a), a)

    def max(self, a: Scalar, b: Scalar) -> Scalar:
        """NaN where one is."""
        return self.op(_extremum("max", a.element), a, b)

    def min(self, a: Scalar, b: Scalar) -> Scalar:
        return self.op(_extremum("min", a.element), a, b)

    def abs(self, a: Scalar) -> Scalar:
        if a.element.is_float:
            return self.op("math.absf", a)
        return a if a.element.kind != "signed" else self.max(a, self.neg(a))

    def compare(self, predicate: Predicate, a: Scalar, b: Scalar) -> Scalar:
        """False where one is NaN, but for "ne"."""
        element = a.element
        if element.is_float:
            code = "une" if predicate == "ne" else f"o{predicate}"
            return Scalar(
                self.text(f"arith.cmpf {code}, {a.name}, {b.name} : {element.mlir}"), BOOL
            )
        order = "s" if element.kind == "signed" else "u"
        code = predicate if predicate in ("eq", "ne") else order + predicate
        return Scalar(self.text(f"arith.cmpi {code}, {a.name}, {b.name} : {element.mlir}"), BOOL)

    def is_nan(self, a: Scalar) -> Scalar:
        return Scalar(self.text(f"arith.cmpf uno, {a.name}, {a.name} : {a.element.mlir}"), BOOL)

    def select(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
        return Scalar(
            self.text(f"arith.select {condition.name}, {a.name}, {b.name} : {a.element.mlir}"),
            a.element,
        )

    # --- types ----------------------------------------------------------------------------------

    def cast(self, a: Scalar, element: ElementType) -> Scalar:
        """As ONNX's Cast: floats to integers round toward 0, everything but 0 is true."""
        source = a.element
        if source == element:
            return a
        if element is BOOL:
            return self.compare("ne", a, self.like(0, a))
        if INDEX in (source, element):
            wide = a if source is INDEX or source.kind != "unsigned" else None
            mnemonic = "arith.index_castui" if wide is None else "arith.index_cast"
            return self._convert(mnemonic, a, element)
        if source.is_float and element.is_float:
            if source.bits == element.bits:  # fp16 and bfloat16
                return self.cast(self.cast(a, F32), element)
            wider = source.bits < element.bits
            return self._convert("arith.extf" if wider else "arith.truncf", a, element)
        if source.is_float:
            kind = "arith.fptosi" if element.kind == "signed" else "arith.fptoui"
            return self._convert(kind, a, element)
        if element.is_float:
            kind = "arith.sitofp" if source.kind == "signed" else "arith.uitofp"
            return self._convert(kind, a, element)
        if source.bits == element.bits:
            return Scalar(a.name, element)
        if source.bits > element.bits:
            return self._convert("arith.trunci", a, element)
        kind = "arith.extsi" if source.kind == "signed" else "arith.extui"
        return self._convert(kind, a, element)

    def _convert(self, mnemonic: str, a: Scalar, element: ElementType) -> Scalar:
        text = f"{mnemonic} {a.name} : {a.element.mlir} to {element.mlir}"
        return Scalar(self.text(text), element)


def _extremum(which: Literal["min", "max"], element: ElementType) -> str:
    if element.is_float:
        return f"arith.{which}imumf"
    return f"arith.{which}{'si' if element.kind == 'signed' else 'ui'}"
