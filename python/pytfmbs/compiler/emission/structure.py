"""Shapes and sums of tensors: what several operators are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ConversionError
from .emitter import Emitter
from .scalars import Body, Scalar
from .types import BOOL, I64, ElementType, Extent, Value, constant, mlir_tensor

Combine = Callable[[Body, Scalar, Scalar], Scalar]


# --- reshape ------------------------------------------------------------------------------------


def reshape(emit: Emitter, value: Value, extents: Sequence[Extent]) -> Value:
    """The same elements in row-major order under another shape.

    Precondition: as many elements, as far as sizes are known (``solve_reshape``).
    """
    extents = tuple(extents)
    if value.extents == extents:
        return value
    for extent in extents:
        emit.requires.at_least(extent, 0)
    if value.constant is not None and all(isinstance(e, int) for e in extents):
        return constant(value.constant.reshape(extents))
    groups = _groups(emit, value.extents, extents)
    if groups is None:
        flat = _collapse(emit, value, [list(range(value.rank))], (emit.product(value.extents),))
        flat = emit.cast_extents(flat, (emit.product(extents),))
        return _expand(emit, flat, [list(range(len(extents)))], extents)
    middle = tuple(
        emit.product(extents[t.start : t.stop]) if len(t) > 1 else extents[t.start]
        for _, t in groups
    )
    if not groups:
        middle = ()
    collapsed = _collapse(emit, value, [list(s) for s, _ in groups], middle)
    collapsed = emit.cast_extents(collapsed, middle)
    return _expand(emit, collapsed, [list(t) for _, t in groups], extents)


def _groups(
    emit: Emitter, source: tuple[Extent, ...], target: tuple[Extent, ...]
) -> list[tuple[range, range]] | None:
    """The shortest runs of dimensions that hold the same elements; None where there is no telling.

    A run is collapsed and then expanded. Ones join the run before them.
    """
    if not source or not target:
        return None
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        i0, j0 = i, j
        left, right = _Product(emit, source[i]), _Product(emit, target[j])
        i, j = i + 1, j + 1
        while not left.equals(right):
            if i < len(source) and (left.divides(right) or j == len(target)):
                left.multiply(source[i])
                i += 1
            elif j < len(target) and right.divides(left):
                right.multiply(target[j])
                j += 1
            else:
                return None
        groups.append((range(i0, i), range(j0, j)))
    while i < len(source) and source[i] == 1:
        i += 1
    while j < len(target) and target[j] == 1:
        j += 1
    if i < len(source) or j < len(target):
        return None
    s, t = groups[-1]
    groups[-1] = (range(s.start, i), range(t.start, j))
    return groups


class _Product:
    """A number times some run-time extents."""

    def __init__(self, emit: Emitter, first: Extent) -> None:
        self._emit = emit
        self._extents = [first]

    def multiply(self, extent: Extent) -> None:
        self._extents.append(extent)

    def factors(self) -> tuple[int, tuple[str, ...]]:
        return self._emit.factors(self._extents)

    def equals(self, other: _Product) -> bool:
        return self.factors() == other.factors()

    def divides(self, other: _Product) -> bool:
        known, names = self.factors()
        other_known, other_names = other.factors()
        rest = list(other_names)
        for name in names:
            if name not in rest:
                return False
            rest.remove(name)
        return known != 0 and other_known % known == 0


def _collapse(
    emit: Emitter, value: Value, groups: list[list[int]], extents: tuple[Extent, ...]
) -> Value:
    if len(groups) == value.rank:
        return value
    # A collapsed size is known where all of its parts are.
    known = tuple(emit.product([value.extents[place] for place in group]) for group in groups)
    if value.rank == 0:  # to one element
        return _expand(emit, value, [], known)
    target = mlir_tensor(known, value.element.mlir)
    ssa = emit.define(
        f"tensor.collapse_shape {emit.name(value)} {groups} : {value.type} into {target}"
    )
    return Value(value.element, known, ssa=ssa)


def _expand(
    emit: Emitter, value: Value, groups: list[list[int]], extents: tuple[Extent, ...]
) -> Value:
    if value.rank == len(extents) and value.rank > 0:
        return emit.cast_extents(value, extents)
    if not extents:  # one element
        ssa = emit.define(
            f"tensor.collapse_shape {emit.name(value)} [] : {value.type} into "
            f"{mlir_tensor((), value.element.mlir)}"
        )
        return Value(value.element, (), ssa=ssa)
    groups = groups if value.rank > 0 else []
    if any(sum(isinstance(extents[place], str) for place in group) > 1 for group in groups):
        return _reshaped(emit, value, extents)
    sizes = ", ".join(map(str, extents))
    target = mlir_tensor(extents, value.element.mlir)
    ssa = emit.define(
        f"tensor.expand_shape {emit.name(value)} {groups} output_shape [{sizes}] : "
        f"{value.type} into {target}"
    )
    return Value(value.element, extents, ssa=ssa)


def _reshaped(emit: Emitter, value: Value, extents: tuple[Extent, ...]) -> Value:
    """By a tensor of sizes: mlir-opt 22 dies of an expand_shape with two run-time sizes in one
    group."""
    sizes = ", ".join(emit.index(extent) for extent in extents)
    shape_type = f"tensor<{len(extents)}xindex>"
    shape = emit.define(f"tensor.from_elements {sizes} : {shape_type}")
    target = mlir_tensor(extents, value.element.mlir)
    ssa = emit.define(
        f"tensor.reshape {emit.name(value)}({shape}) : ({value.type}, {shape_type}) -> {target}"
    )
    return Value(value.element, extents, ssa=ssa)


def solve_reshape(
    emit: Emitter, source: Sequence[Extent], wanted: Sequence[Extent]
) -> tuple[Extent, ...]:
    """A target shape with its one -1, if any, worked out. Raises ConversionError where the numbers
    of elements cannot be equal."""
    unknown = [place for place, size in enumerate(wanted) if size == -1]
    if len(unknown) > 1 or any(isinstance(e, int) and e < -1 for e in wanted):
        raise ConversionError(f"target shape {list(wanted)} has more than one -1, or less than -1")
    have, source_names = emit.factors(source)
    known, symbols = emit.factors([size for size in wanted if size != -1])
    left, right = list(source_names), []  # type: list[str], list[str]
    for name in symbols:
        if name in left:
            left.remove(name)
        else:
            right.append(name)
    if not unknown:
        if not left and not right and have != known:
            raise ConversionError(f"{have} elements do not fit target shape {list(wanted)}")
        return tuple(wanted)
    if known == 0:
        raise ConversionError(f"-1 in target shape {list(wanted)} could be any size")
    if not left and not right:
        if have % known:
            raise ConversionError(f"{have} elements do not fit target shape {list(wanted)}")
        rest: Extent = have // known
    elif not right and have % known == 0:
        rest = emit.product([*left, have // known])
    else:
        divisor = emit.product([known, *right])
        # A divisor of 0 elements has a result of 0 elements: 1 keeps the division from trapping.
        rest = emit.extent("floordiv", emit.product([have, *left]), emit.extent("max", divisor, 1))
    return tuple(rest if size == -1 else size for size in wanted)


def axis_of(axis: int, rank: int, what: str = "axis") -> int:
    """An axis from the front. Raises ConversionError outside -rank…rank-1."""
    if not -rank <= axis < rank:
        raise ConversionError(
            f"{what} is {axis}; a tensor of rank {rank} has {-rank} to {rank - 1}"
        )
    return axis % rank


def axes_of(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Sorted, from the front, each once."""
    found = sorted(axis_of(axis, rank, "an axis") for axis in axes)
    if len(set(found)) != len(found):
        raise ConversionError(f"axes {list(axes)} name a dimension twice")
    return tuple(found)


def transpose(emit: Emitter, value: Value, permutation: Sequence[int]) -> Value:
    permutation = list(permutation)
    if permutation == list(range(value.rank)):
        return value
    if value.constant is not None:
        return constant(np.ascontiguousarray(value.constant.transpose(permutation)))
    extents = tuple(value.extents[place] for place in permutation)
    init = emit.empty(extents, value.element.mlir)
    ssa = emit.define(
        f"linalg.transpose ins({emit.name(value)} : {value.type}) outs({init} : "
        f"{mlir_tensor(extents, value.element.mlir)}) permutation = {permutation}"
    )
    return Value(value.element, extents, ssa=ssa)


def swap_last(emit: Emitter, value: Value) -> Value:
    """The last two dimensions exchanged."""
    order = list(range(value.rank))
    order[-2:] = [order[-1], order[-2]]
    return transpose(emit, value, order)


# --- parts --------------------------------------------------------------------------------------


def part(
    emit: Emitter,
    value: Value,
    starts: Sequence[Extent],
    extents: Sequence[Extent],
    steps: Sequence[int],
) -> Value:
    """Every step-th element from a start; steps above 0."""
    if 0 in extents:  # its start may be the end, which no slice may name
        empty = emit.empty(extents, value.element.mlir)
        return Value(value.element, tuple(extents), ssa=empty)
    target = mlir_tensor(tuple(extents), value.element.mlir)
    view = emit.define(
        f"tensor.extract_slice {emit.name(value)}[{_list(starts)}] [{_list(extents)}] "
        f"[{_list(steps)}] : {value.type} to {target}"
    )
    # Copied, so that every buffer is contiguous whatever bufferization makes of the view.
    return _copy(
        emit,
        Value(value.element, tuple(extents), ssa=view),
        emit.empty(extents, value.element.mlir),
    )


def insert(emit: Emitter, value: Value, into: Value, starts: Sequence[Extent]) -> Value:
    """``into`` with a part of it replaced."""
    place = f"[{_list(starts)}] [{_list(value.extents)}] [{_list([1] * value.rank)}]"
    view = emit.define(
        f"tensor.extract_slice {emit.name(into)}{place} : {into.type} to {value.type}"
    )
    written = _copy(emit, value, view)
    ssa = emit.define(
        f"tensor.insert_slice {emit.name(written)} into {emit.name(into)}{place} : "
        f"{value.type} into {into.type}"
    )
    return Value(into.element, into.extents, ssa=ssa)


def _copy(emit: Emitter, value: Value, destination: str) -> Value:
    ssa = emit.define(
        f"linalg.copy ins({emit.name(value)} : {value.type}) outs({destination} : {value.type}) "
        f"-> {value.type}"
    )
    return Value(value.element, value.extents, ssa=ssa)


def every(
    emit: Emitter, value: Value, axis: int, start: Extent, length: Extent, step: int
) -> Value:
    """The elements start, start + step, … along an axis; a step of any sign, all of them inside."""
    extents = (*value.extents[:axis], length, *value.extents[axis + 1 :])
    tensor, first, by = emit.name(value), emit.index(start), emit.index(step)

    def body(block: Body, _: list[Scalar]) -> Sequence[Scalar]:
        places = [block.index(i) for i in range(value.rank)]
        places[axis] = block.text(
            f"arith.addi {first}, {block.text(f'arith.muli {places[axis]}, {by} : index')} : index"
        )
        return (block.extract(tensor, places, value),)

    init = Value(value.element, extents, ssa=emit.empty(extents, value.element.mlir))
    rank = value.rank
    return emit.loops(["parallel"] * rank, [], [(init, range(rank))], body)[0]


class Inside:
    """Holds indices inside a dimension that has elements; negative ones count from its end."""

    def __init__(self, emit: Emitter, size: Extent) -> None:
        self._zero, self._size = emit.index(0), emit.index(size)
        self._last = emit.index(emit.extent("sub", size, 1))

    def place(self, block: Body, index: Scalar) -> str:
        at = block.text(f"arith.index_cast {index.name} : {index.element.mlir} to index")
        negative = block.text(f"arith.cmpi slt, {at}, {self._zero} : index")
        wrapped = block.text(f"arith.addi {at}, {self._size} : index")
        at = block.text(f"arith.select {negative}, {wrapped}, {at} : index")
        at = block.text(f"arith.maxsi {at}, {self._zero} : index")
        return block.text(f"arith.minsi {at}, {self._last} : index")


def gather(emit: Emitter, data: Value, indices: Value, axis: int) -> Value:
    """data[..., indices, ...]; indices count from the end where negative, and stay inside."""
    if data.extents[axis] == 0:
        raise ConversionError("nothing can be gathered from a dimension of size 0")
    emit.requires.at_least(data.extents[axis], _least_size(indices))
    extents = (*data.extents[:axis], *indices.extents, *data.extents[axis + 1 :])
    tensor, inside = emit.name(data), Inside(emit, data.extents[axis])
    loops = list(range(axis, axis + indices.rank))
    init = Value(data.element, extents, ssa=emit.empty(extents, data.element.mlir))

    def body(block: Body, arguments: list[Scalar]) -> Sequence[Scalar]:
        at = inside.place(block, arguments[0])
        places = [block.index(i) for i in range(axis)]
        rest = [block.index(axis + indices.rank + i) for i in range(data.rank - axis - 1)]
        return (block.extract(tensor, [*places, at, *rest], data),)

    return emit.loops(
        ["parallel"] * len(extents), [(indices, loops)], [(init, range(len(extents)))], body
    )[0]


def _least_size(indices: Value) -> int:
    """The least size that a dimension has in which these are places."""
    if indices.constant is None:
        return 1
    low, high = (int(f(indices.constant, initial=0)) for f in (np.min, np.max))
    return max(high + 1, -low) if indices.constant.size else 0


def _list(extents: Sequence[Extent]) -> str:
    return ", ".join(map(str, extents))


# --- sums ---------------------------------------------------------------------------------------


def reduce(
    emit: Emitter,
    value: Value,
    axes: Sequence[int],
    keepdims: bool,
    initial: object,
    combine: Combine,
) -> Value:
    """Combines the elements along axes, in order; 16-bit floats in fp32. No axes: the elements
    themselves, combined with the initial one."""
    element = value.element.compute
    kept = [place for place in range(value.rank) if place not in axes]
    out = tuple(value.extents[place] for place in kept)
    init = emit.filled(out, initial, element)

    def body(block: Body, arguments: list[Scalar]) -> Sequence[Scalar]:
        return (combine(block, arguments[1], block.cast(arguments[0], element)),)

    result = emit.loops(
        ["reduction" if place in axes else "parallel" for place in range(value.rank)],
        [(value, range(value.rank))],
        [(init, kept)],
        body,
    )[0]
    if keepdims:
        result = reshape(
            emit, result, tuple(1 if i in axes else e for i, e in enumerate(value.extents))
        )
    return result


def total(emit: Emitter, value: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """Sum, of 16-bit floats as fp32."""
    return reduce(emit, value, axes, keepdims, 0, lambda b, a, x: b.add(a, x))


def mean(emit: Emitter, value: Value, axes: Sequence[int], keepdims: bool) -> Value:
    """The sum over the count, of 16-bit floats as fp32."""
    summed = total(emit, value, axes, keepdims)
    count = emit.product([value.extents[axis] for axis in axes])
    divisor = emit.cast(Value(I64, (), elements=(count,)), summed.element)
    if isinstance(count, int):
        divisor = constant(np.asarray(count).astype(summed.element.numpy))
    return emit.elementwise([summed, divisor], summed.element, lambda b, x: b.div(x[0], x[1]))


def lowest(element: ElementType) -> object:
    """What no element is below."""
    if element.is_float:
        return -np.inf
    return False if element is BOOL else np.iinfo(element.numpy).min


def highest(element: ElementType) -> object:
    if element.is_float:
        return np.inf
    return True if element is BOOL else np.iinfo(element.numpy).max


# --- products -----------------------------------------------------------------------------------


def matmul(emit: Emitter, a: Value, b: Value) -> Value:
    """A product of numbers as NumPy's matmul: leading dimensions broadcast. 16-bit floats sum in
    fp32. Raises ConversionError where shapes do not fit."""
    if a.rank == 0 or b.rank == 0:
        raise ConversionError(f"a product of {a.shape} and {b.shape} does not exist")
    if a.rank == 1 or b.rank == 1:
        left = reshape(emit, a, (1, *a.extents)) if a.rank == 1 else a
        right = reshape(emit, b, (*b.extents, 1)) if b.rank == 1 else b
        product = matmul(emit, left, right)
        extents = list(product.extents)
        if b.rank == 1:
            del extents[-1]
        if a.rank == 1:
            del extents[-2 if b.rank > 1 else -1]
        return reshape(emit, product, extents)
    if a.element != b.element:
        raise ConversionError(f"a product of {a.element.name} and {b.element.name} does not exist")
    _check_depth(emit, a, b)
    element = a.element.compute
    batch = emit.broadcast([a.extents[:-2], b.extents[:-2]])
    # Sizes that may be 1 at run time and are not the result's are copied out first.
    a = _spread(emit, a, batch)
    b = _spread(emit, b, batch)
    out = (*batch, a.extents[-2], b.extents[-1])
    rank = len(out)
    init = emit.filled(out, 0, element)

    def dims(value: Value, last: tuple[int, int]) -> list[int | None]:
        offset = len(batch) - (value.rank - 2)
        return [
            None if size == 1 and batch[offset + i] != 1 else offset + i
            for i, size in enumerate(value.extents[:-2])
        ] + list(last)

    def body(block: Body, x: list[Scalar]) -> Sequence[Scalar]:
        left, right = block.cast(x[0], element), block.cast(x[1], element)
        return (block.add(x[2], block.mul(left, right)),)

    product = emit.loops(
        [*["parallel"] * rank, "reduction"],  # type: ignore[list-item]
        [(a, dims(a, (rank - 2, rank))), (b, dims(b, (rank, rank - 1)))],
        [(init, range(rank))],
        body,
    )[0]
    return emit.cast(product, a.element)


def _check_depth(emit: Emitter, left: Value, right: Value) -> None:
    a, b = left.extents[-1], right.extents[-2]
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise ConversionError(f"a product of {left.shape} and {right.shape} does not exist")
    emit.requires.equal(a, b)


def _spread(emit: Emitter, value: Value, batch: tuple[Extent, ...]) -> Value:
    own = value.extents[:-2]
    offset = len(batch) - len(own)
    if all(size in (1, batch[offset + i]) for i, size in enumerate(own)):
        return value
    return emit.elementwise(
        [value], value.element, lambda _, x: x[0], (*batch, *value.extents[-2:])
    )
