"""Parents that compute with a child's ``weight`` instead of calling the child.

A ternary layer keeps its float weight as a parameter, so such a parent would compute in floats. The
source of every ancestor's forward pass is read for ``self.child.weight`` and what means the same.
Reads of its dtype, device or shape compute nothing.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from torch import nn

#: One step of a chain that stands for any child of a list or dict of modules.
ANY = "*"
_Chain = tuple[str, ...]

# Of a weight, these say what it is and hold no values to compute with.
_DESCRIPTIVE = {
    "data_ptr", "device", "dim", "dtype", "element_size", "grad", "grad_fn", "is_contiguous",
    "is_cuda", "is_floating_point", "is_meta", "is_quantized", "itemsize", "layout", "names",
    "nbytes", "ndim", "nelement", "numel", "quant_state", "quant_type", "requires_grad",
    "requires_grad_", "shape", "size", "stride", "type",
}  # fmt: skip
_QUESTIONS = frozenset(["isinstance", "hasattr", "type", "id", "callable"])
# Names that lead to no method of a forward pass: peft's own, which write the weight or show it.
_NO_FORWARD_PASS = frozenset(["merge", "unmerge", "weight", "bias"])
_PASS_THROUGH = frozenset(["list", "tuple", "reversed", "iter", "sorted"])


class Read(NamedTuple):
    chain: _Chain  # from the module that reads: ("self_attn", "out_proj")
    function: str  # Class.method
    where: str  # file:line


def reads_of(module: nn.Module) -> tuple[Read, ...]:
    """The reads in a module's forward pass of weights that its children hold."""
    found: tuple[Read, ...] = _class_reads(type(module))  # type: ignore[arg-type]
    forward = module.__dict__.get("forward")
    if forward is not None:  # replaced for this one module
        function = getattr(inspect.unwrap(_unbound(forward)), "__func__", _unbound(forward))
        if isinstance(function, FunctionType):
            name = f"{type(module).__name__}.forward"
            found = (*found, *_function_reads(inspect.unwrap(function), name))
    return found


def matches(chain: _Chain, path: str) -> bool:
    """Whether a chain of attributes leads to the module at a path, both from the same module."""
    parts = path.split(".")
    return len(parts) == len(chain) and all(
        step in (ANY, part) for step, part in zip(chain, parts, strict=True)
    )


def _unbound(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


@functools.cache
def _class_reads(kind: type[nn.Module]) -> tuple[Read, ...]:
    methods: dict[str, tuple[FunctionType, str]] = {}
    for base in reversed(kind.__mro__):
        if base in (object, nn.Module):
            continue
        for name, value in vars(base).items():
            for function in _functions(value):
                methods[name] = (function, f"{base.__name__}.{name}")
    reads: list[Read] = []
    reached: list[str] = [name for name in ("forward", "__call__") if name in methods]
    for name in reached:  # grows as it goes
        function, title = methods[name]
        reads += _function_reads(function, title)
        names = _names(function.__code__) - _NO_FORWARD_PASS
        reached += [other for other in methods if other in names and other not in reached]
    return tuple(reads)


def _functions(value: Any) -> Iterator[FunctionType]:
    if isinstance(value, property):
        value = value.fget
    if isinstance(value, (classmethod, staticmethod)):
        value = value.__func__
    if isinstance(value, functools.cached_property):
        value = value.func
    value = inspect.unwrap(value) if callable(value) else value
    if isinstance(value, FunctionType):
        yield value


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
        elif isinstance(constant, str):
            names.add(constant)  # getattr(self, "weight")
    return names


def _function_reads(function: FunctionType, title: str) -> list[Read]:
    if "weight" not in _names(function.__code__):
        return []
    file, first = function.__code__.co_filename, function.__code__.co_firstlineno
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return []  # no source: made at run time
    definition = tree.body[0]
    if not isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return []
    arguments = [*definition.args.posonlyargs, *definition.args.args]
    if not arguments:
        return []
    reader = _Reader(arguments[0].arg)
    reader.learn(definition)
    found = reader.found(definition)
    return [Read(chain, title, f"{file}:{first + line - 1}") for chain, line in found]


class _Reader:
    """Chains of attributes from ``self`` in one function. Names that stand for modules are followed
    through assignments and loops."""

    def __init__(self, own_name: str) -> None:
        self._names: dict[str, set[_Chain]] = {own_name: {()}}

    def learn(self, definition: ast.AST) -> None:
        for _ in range(3):  # a name may stand for a name that is learned later
            for node in ast.walk(definition):
                if isinstance(node, ast.Assign):
                    for target in node.targets:
                        self._bind(target, node.value)
                elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
                    self._bind(node.target, node.value)
                elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
                    self._bind_items(node.target, node.iter)

    def found(self, definition: ast.AST) -> list[tuple[_Chain, int]]:
        parents = {
            child: node for node in ast.walk(definition) for child in ast.iter_child_nodes(node)
        }
        return [
            (chain, node.lineno)
            for node in ast.walk(definition)
            if isinstance(node, (ast.Attribute, ast.Call))
            and (owner := self._weight_owner(node)) is not None
            and not _is_description(node, parents)
            for chain in self._chains(owner)
            if chain
        ]

    def _weight_owner(self, node: ast.Attribute | ast.Call) -> ast.expr | None:
        """The expression of which this node takes the weight."""
        if isinstance(node, ast.Attribute):
            taken = node.attr == "weight" and isinstance(node.ctx, ast.Load)
            return node.value if taken else None
        if _is_call(node, {"getattr"}) and len(node.args) > 1 and _text(node.args[1]) == "weight":
            return node.args[0]
        return None

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            if chains := self._chains(value):
                self._names.setdefault(target.id, set()).update(chains)
        elif isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List)):
            for one, its in zip(target.elts, value.elts, strict=False):
                self._bind(one, its)

    def _bind_items(self, target: ast.expr, items: ast.expr) -> None:
        """for target in items"""
        if isinstance(items, ast.Call):
            name = items.func.attr if isinstance(items.func, ast.Attribute) else _text(items.func)
            pair = target.elts if isinstance(target, (ast.Tuple, ast.List)) else []
            if name == "enumerate" and len(pair) == 2 and items.args:
                return self._bind_items(pair[1], items.args[0])
            if name == "zip" and len(pair) == len(items.args):
                for one, its in zip(pair, items.args, strict=True):
                    self._bind_items(one, its)
                return None
            if name in _PASS_THROUGH and items.args:
                return self._bind_items(target, items.args[0])
            if isinstance(items.func, ast.Attribute):
                if name in ("values", "children"):
                    return self._bind_items(target, items.func.value)
                if name in ("items", "named_children") and len(pair) == 2:
                    return self._bind_items(pair[1], items.func.value)
        if isinstance(items, (ast.Tuple, ast.List)):
            for item in items.elts:
                self._bind(target, item)
        elif isinstance(target, ast.Name) and (chains := self._chains(items)):
            self._names.setdefault(target.id, set()).update((*c, ANY) for c in chains)
        return None

    def _chains(self, node: ast.expr) -> set[_Chain]:
        if isinstance(node, ast.Name):
            return self._names.get(node.id, set())
        if isinstance(node, ast.Attribute):
            return {(*chain, node.attr) for chain in self._chains(node.value)}
        if isinstance(node, ast.Subscript):
            if isinstance(node.slice, ast.Slice):
                return self._chains(node.value)
            key = _text(node.slice) if isinstance(node.slice, ast.Constant) else None
            return {(*chain, key or ANY) for chain in self._chains(node.value)}
        if isinstance(node, ast.IfExp):
            return self._chains(node.body) | self._chains(node.orelse)
        if isinstance(node, ast.Call):
            if _is_call(node, {"getattr"}) and len(node.args) > 1:
                key = _text(node.args[1]) or ANY
                return {(*chain, key) for chain in self._chains(node.args[0])}
            if _is_call(node, {"cast"}) and len(node.args) > 1:
                return self._chains(node.args[1])
            if isinstance(node.func, ast.Attribute) and node.func.attr == "get_base_layer":  # peft
                return {(*chain, "base_layer") for chain in self._chains(node.func.value)}
        return set()


def _is_description(node: ast.expr, parents: dict[ast.AST, ast.AST]) -> bool:
    """Whether a weight is asked what it is, and not for its values."""
    parent = parents.get(node)
    if isinstance(parent, ast.Attribute):
        return parent.attr in _DESCRIPTIVE
    if isinstance(parent, ast.Call) and node in parent.args:
        return _is_call(parent, _QUESTIONS)
    return isinstance(parent, ast.Compare) and all(
        isinstance(operator, (ast.Is, ast.IsNot)) for operator in parent.ops
    )


def _is_call(node: ast.Call, names: frozenset[str] | set[str]) -> bool:
    return _text(node.func) in names or (
        isinstance(node.func, ast.Attribute) and node.func.attr in names
    )


def _text(node: ast.expr) -> str | None:
    """A name, or a string constant."""
    if isinstance(node, ast.Name):
        return node.id
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
