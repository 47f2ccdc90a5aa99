"""Writes one function: SSA names, constants, extents and loops over tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..errors import ConversionError
from .mlir_text import Resources, elements_attribute, literal
from .requirements import Recorder
from .scalars import Body, Scalar
from .types import (
    BF16,
    BOOL,
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    Array,
    ElementType,
    Extent,
    Value,
    constant,
    mlir_tensor,
    shape_text,
)

_ExtentOperation = Literal["add", "sub", "mul", "floordiv", "ceildiv", "min", "max"]
_EXTENT_OPERATIONS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "add": ("arith.addi", lambda a, b: a + b),
    "sub": ("arith.subi", lambda a, b: a - b),
    "mul": ("arith.muli", lambda a, b: a * b),
    "floordiv": ("arith.floordivsi", lambda a, b: a // b),
    "ceildiv": ("arith.ceildivsi", lambda a, b: -(-a // b)),
    "min": ("arith.minsi", min),
    "max": ("arith.maxsi", max),
}

_BYTES = {
    element.mlir: -(-element.bits // 8)
    for element in (F16, BF16, F32, F64, BOOL, I8, I16, I32, I64)
}

#: An operand of a loop nest: its value (None where the body reads it itself), and the loop of each
#: of its dimensions, None where it has one element that serves all.
Operand = tuple[Value, Sequence[int | None]]
BodyFunction = Callable[[Body, list[Scalar]], Sequence[Scalar]]


class Emitter:
    """The lines of a function's body, in order. Every name is defined before it is used, and the
    function is one block, so a name is good everywhere after it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.resources = Resources()
        #: What the function asks of its arguments' sizes; whatever trusts a size says so there.
        self.requires = Recorder()
        self._names = 0
        self._indices: dict[int, str] = {}
        self._computed: dict[tuple[str, Extent, Extent], Extent] = {}
        #: What products are made of: a number and sorted names that are no products.
        self._factors: dict[str, tuple[int, tuple[str, ...]]] = {}
        # The arrays too: an id is an array's own only while it lives.
        self._constants: dict[int, tuple[Array, str]] = {}
        self._names_of: dict[int, tuple[Array, str]] = {}

    # --- names and lines ----------------------------------------------------------------------

    def fresh(self) -> str:
        self._names += 1
        return f"%{self._names - 1}"

    def line(self, text: str) -> None:
        self.lines.append(f"    {text}")

    def define(self, text: str) -> str:
        """A line that gives one result; its name."""
        name = self.fresh()
        self.line(f"{name} = {text}")
        return name

    def call_array(self, array: Array, name: str) -> None:
        """The name that a large constant gets as a resource."""
        self._names_of[id(array)] = (array, name)

    # --- extents ------------------------------------------------------------------------------

    def index(self, extent: Extent) -> str:
        """An extent as an index value."""
        if isinstance(extent, str):
            return extent
        if extent not in self._indices:
            self._indices[extent] = self.define(f"arith.constant {extent} : index")
        return self._indices[extent]

    def extent(self, operation: _ExtentOperation, a: Extent, b: Extent) -> Extent:
        """Arithmetic of extents; a division's right side is not 0."""
        mnemonic, function = _EXTENT_OPERATIONS[operation]
        if isinstance(a, int) and isinstance(b, int):
            return function(a, b)
        if operation == "mul" and 0 in (a, b):
            return 0
        if operation == "mul" and a == 1:
            return b
        if (b == 1 and operation in ("mul", "floordiv", "ceildiv")) or (
            b == 0 and operation in ("add", "sub")
        ):
            return a
        if a == 0 and operation == "add":
            return b
        if a == b and operation in ("min", "max"):
            return a
        if a == b and operation == "sub":
            return 0
        key = (operation, a, b)
        if key not in self._computed:
            left, right = self.index(a), self.index(b)
            name = self.define(f"{mnemonic} {left}, {right} : index")
            self.requires.step(name, operation, a, b)
            self._computed[key] = name
        return self._computed[key]

    def product(self, extents: Sequence[Extent]) -> Extent:
        """The product; the same name whatever the order and grouping of the factors."""
        known, names = self.factors(extents)
        total: Extent = 1
        for name in names:
            total = self.extent("mul", total, name)
        if known == 0:
            return 0
        total = self.extent("mul", total, known)
        if isinstance(total, str):
            self._factors[total] = (known, names)
        return total

    def factors(self, extents: Sequence[Extent]) -> tuple[int, tuple[str, ...]]:
        """A product as a number and names, sorted, that are no products themselves."""
        known, names = 1, []  # type: int, list[str]
        for extent in extents:
            number, parts = (
                (extent, ())
                if isinstance(extent, int)
                else self._factors.get(extent, (1, (extent,)))
            )
            known *= number
            names.extend(parts)
        return known, tuple(sorted(names))

    def where_one(self, a: Extent, b: Extent) -> Extent:
        """b where a is 1, else a: the size of a broadcast of two."""
        if a == b or b == 1:
            return a
        if isinstance(a, int):
            return b if a == 1 else a
        key = ("broadcast", a, b)
        if key not in self._computed:
            is_one = self.define(f"arith.cmpi eq, {a}, {self.index(1)} : index")
            name = self.define(f"arith.select {is_one}, {self.index(b)}, {a} : index")
            self.requires.step(name, "broadcast", a, b)
            self._computed[key] = name
        return self._computed[key]

    def dimension(self, argument: int, type_text: str, axis: int) -> str:
        """A size of an argument of the function."""
        name = self.define(f"tensor.dim %arg{argument}, {self.index(axis)} : {type_text}")
        self.requires.size(name, argument, axis)
        return name

    def same_extents(self, a: Sequence[Extent], b: Sequence[Extent]) -> None:
        """Requires two shapes of one rank to be equal. Raises ConversionError where they are not."""
        for left, right in zip(a, b, strict=True):
            if isinstance(left, int) and isinstance(right, int) and left != right:
                shapes = f"{shape_text(tuple(a))} and {shape_text(tuple(b))}"
                raise ConversionError(f"shapes {shapes} must be equal")
            self.requires.equal(left, right)

    # --- tensors ------------------------------------------------------------------------------

    def name(self, value: Value) -> str:
        """The SSA name of a value; constants and shapes are written now."""
        if value.ssa is not None:
            return value.ssa
        if value.constant is not None:
            return self._constant(value.constant, value.element)
        if value.elements is None:
            raise AssertionError("a value is SSA, constant or extents")
        return self._from_extents(value)

    def _constant(self, array: Array, element: ElementType) -> str:
        if id(array) not in self._constants:
            hint = self._names_of.get(id(array), (array, "constant"))[1]
            if element is BOOL and array.size > 4096:  # bits have no resources
                packed = self._constant(array.astype(np.int8), I8)
                value = Value(I8, tuple(array.shape), ssa=packed)
                ssa = self.name(self.elementwise([value], BOOL, lambda b, x: b.cast(x[0], BOOL)))
            else:
                attribute = elements_attribute(array, element, hint, self.resources)
                ssa = self.define(
                    f"arith.constant {attribute} : {mlir_tensor(array.shape, element.mlir)}"
                )
            self._constants[id(array)] = (array, ssa)
        return self._constants[id(array)][1]

    def _from_extents(self, value: Value) -> str:
        parts = [
            self.define(f"arith.index_cast {self.index(extent)} : index to {value.element.mlir}")
            for extent in value.elements or ()
        ]
        if not parts:
            return self._constant(np.zeros(value.extents, value.element.numpy), value.element)
        return self.define(f"tensor.from_elements {', '.join(parts)} : {value.type}")

    def empty(self, extents: Sequence[Extent], element: str) -> str:
        """A tensor whose contents nobody has written."""
        for extent in extents:
            self.requires.at_least(extent, 0)
        known, names = self.factors(extents)
        self.requires.room(known * _BYTES[element], names)
        sizes = ", ".join(extent for extent in extents if isinstance(extent, str))
        return self.define(f"tensor.empty({sizes}) : {mlir_tensor(tuple(extents), element)}")

    def filled(self, extents: Sequence[Extent], value: object, element: ElementType) -> Value:
        """A tensor of one value."""
        type_text = mlir_tensor(tuple(extents), element.mlir)
        suffix = "" if element is BOOL else f" : {element.mlir}"  # true and false say their type
        scalar = self.define(f"arith.constant {literal(value, element)}{suffix}")
        init = self.empty(extents, element.mlir)
        ssa = self.define(
            f"linalg.fill ins({scalar} : {element.mlir}) outs({init} : {type_text}) -> {type_text}"
        )
        return Value(element, tuple(extents), ssa=ssa)

    def cast_extents(self, value: Value, extents: Sequence[Extent]) -> Value:
        """The same tensor with its sizes known in other words; that they are so is required."""
        extents = tuple(extents)
        self.same_extents(value.extents, extents)
        target = mlir_tensor(extents, value.element.mlir)
        if target == value.type:
            return Value(value.element, extents, value.ssa, value.constant, value.elements)
        ssa = self.define(f"tensor.cast {self.name(value)} : {value.type} to {target}")
        return Value(value.element, extents, ssa=ssa)

    # --- loop nests ---------------------------------------------------------------------------

    def loops(
        self,
        iterators: Sequence[Literal["parallel", "reduction"]],
        inputs: Sequence[Operand],
        outputs: Sequence[tuple[Value, Sequence[int]]],
        body: BodyFunction,
    ) -> list[Value]:
        """A linalg.generic. The body gets the elements of the inputs and then of the outputs."""
        block = Body(self.fresh)
        arguments = [block.argument(operand.element) for operand, _ in (*inputs, *outputs)]
        results = body(block, arguments)
        names = [(self.name(operand), operand.type) for operand, _ in (*inputs, *outputs)]
        depth = len(iterators)
        maps = ", ".join(_map(depth, dims) for _, dims in (*inputs, *outputs))
        kinds = ", ".join(f'"{iterator}"' for iterator in iterators)
        ins = _group("ins", names[: len(inputs)])
        outs = _group("outs", names[len(inputs) :])
        types = [value.type for value, _ in outputs]
        ssa = self.fresh()
        several = len(types) > 1
        self.line(
            f"{ssa}{f':{len(types)}' if several else ''} = linalg.generic "
            f"{{indexing_maps = [{maps}], iterator_types = [{kinds}]}} {ins}{outs} {{"
        )
        header = ", ".join(f"{a.name}: {a.element.mlir}" for a in arguments)
        self.line(f"^bb0({header}):")
        self.lines.extend(f"      {text}" for text in block.lines)
        yielded = ", ".join(result.name for result in results)
        kinds = ", ".join(result.element.mlir for result in results)
        self.line(f"  linalg.yield {yielded} : {kinds}")
        self.line(f"}} -> {'(' + ', '.join(types) + ')' if several else types[0]}")
        return [
            Value(value.element, value.extents, ssa=f"{ssa}#{i}" if several else ssa)
            for i, (value, _) in enumerate(outputs)
        ]

    def elementwise(
        self,
        inputs: Sequence[Value],
        element: ElementType,
        body: Callable[[Body, list[Scalar]], Scalar],
        shape: Sequence[Extent] = (),
    ) -> Value:
        """A function of each element, the inputs broadcast as NumPy does, to ``shape`` at least."""
        extents = self.broadcast([value.extents for value in inputs] + [tuple(shape)])
        rank = len(extents)
        operands: list[Operand] = []
        readers: list[Callable[[Body, list[Scalar]], Scalar]] = []
        for value in inputs:
            if value.constant is not None and value.constant.size == 1:
                readers.append(_scalar_reader(value.constant.reshape(-1)[0], value.element))
                continue
            offset = rank - value.rank
            if any(
                isinstance(size, str) and size != extents[offset + place]
                for place, size in enumerate(value.extents)
            ):
                readers.append(self._broadcast_reader(value, extents))
                continue
            dims = [
                None if size == 1 and extents[offset + place] != 1 else offset + place
                for place, size in enumerate(value.extents)
            ]
            readers.append(_argument_reader(len(operands)))
            operands.append((value, dims))

        def compute(block: Body, arguments: list[Scalar]) -> Sequence[Scalar]:
            return (body(block, [reader(block, arguments) for reader in readers]),)

        init = Value(element, extents, ssa=self.empty(extents, element.mlir))
        return self.loops(["parallel"] * rank, operands, [(init, range(rank))], compute)[0]

    def _broadcast_reader(
        self, value: Value, extents: Sequence[Extent]
    ) -> Callable[[Body, list[Scalar]], Scalar]:
        """Reads a tensor whose size may turn out to be 1 where the result's is more."""
        tensor, zero, one = self.name(value), self.index(0), self.index(1)
        offset = len(extents) - value.rank
        sizes = [self.index(size) for size in value.extents]

        def read(block: Body, _: list[Scalar]) -> Scalar:
            places = []
            for place, size in enumerate(value.extents):
                loop = block.index(offset + place)
                if size != extents[offset + place]:
                    is_one = block.text(f"arith.cmpi eq, {sizes[place]}, {one} : index")
                    loop = block.text(f"arith.select {is_one}, {zero}, {loop} : index")
                places.append(loop)
            return block.extract(tensor, places, value)

        return read

    def broadcast(self, shapes: Sequence[Sequence[Extent]]) -> tuple[Extent, ...]:
        """The shape that several broadcast to. Raises ConversionError."""
        rank = max(map(len, shapes), default=0)
        result: list[Extent] = [1] * rank
        for shape in shapes:
            for place, size in enumerate(shape, rank - len(shape)):
                have = result[place]
                self.requires.broadcast(have, size)
                if isinstance(have, int) and isinstance(size, int):
                    if have != size and 1 not in (have, size):
                        listed = " and ".join(shape_text(tuple(s)) for s in shapes if s)
                        raise ConversionError(f"shapes {listed} do not broadcast")
                    result[place] = size if have == 1 else have
                elif isinstance(size, int) and size != 1:
                    result[place] = size
                else:
                    result[place] = self.where_one(have, size)
        return tuple(result)

    # --- conversions --------------------------------------------------------------------------

    def cast(self, value: Value, element: ElementType) -> Value:
        """To another element type, as ONNX's Cast."""
        if value.element == element:
            return value
        if value.constant is not None:
            with np.errstate(all="ignore"):
                return constant(value.constant.astype(element.numpy))
        if value.elements is not None and element is I64:
            return Value(element, value.extents, elements=value.elements)
        if value.element.mlir == element.mlir and value.ssa is not None:
            return Value(element, value.extents, ssa=value.ssa)  # signs are not MLIR's
        return self.elementwise([value], element, lambda b, x: b.cast(x[0], element))


def _argument_reader(place: int) -> Callable[[Body, list[Scalar]], Scalar]:
    return lambda _, arguments: arguments[place]


def _scalar_reader(value: object, element: ElementType) -> Callable[[Body, list[Scalar]], Scalar]:
    return lambda block, _: block.constant(value, element)


def _map(depth: int, dims: Sequence[int | None]) -> str:
    loops = ", ".join(f"d{i}" for i in range(depth))
    results = ", ".join("0" if dim is None else f"d{dim}" for dim in dims)
    return f"affine_map<({loops}) -> ({results})>"


def _group(keyword: str, operands: Sequence[tuple[str, str]]) -> str:
    if not operands:
        return ""
    names = ", ".join(name for name, _ in operands)
    types = ", ".join(type_text for _, type_text in operands)
    return f"{keyword}({names} : {types}) "
