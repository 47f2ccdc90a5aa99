"""Modules of a model replaced by others, with all that they hold."""

from __future__ import annotations

import functools
import operator
import types
from collections import OrderedDict
from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import nn
from torch.nn.modules.module import _WrappedHook

from ..nn.fabric_layer import FabricLayer

_HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_is_full_backward_hook",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
# What every module has, or convert sets itself.
_MODULES_OWN = frozenset(
    [*nn.Module().__dict__, *_HOOKS, "in_features", "out_features", "_compiled_call_impl"]
)
# What a ternary layer's class registers, and another class has in a form of its own.
_LAYERS_BUFFERS = frozenset(["weight_scale", "_panels", "_scales"])
#: Keys of a module that accelerate puts around its forward pass.
_ACCELERATE = ("_hf_hook", "_old_forward", "forward")


def move_hooks(source: nn.Module, target: nn.Module) -> None:
    """Hooks move along. Those that torch calls with their module are called with the target."""
    for name in _HOOKS:
        if name not in source.__dict__:
            continue
        hooks = getattr(source, name)
        if isinstance(hooks, MutableMapping):
            hooks.update(getattr(target, name))  # the target's own stay
        setattr(target, name, hooks)  # the same dict: handles go on removing from it
        if isinstance(hooks, MutableMapping):
            for key, hook in list(hooks.items()):
                if isinstance(hook, _WrappedHook) and getattr(hook, "with_module", False):
                    hooks[key] = _WrappedHook(hook.hook, target)


def why_not_carried(
    source: nn.Module, target: type[nn.Module], verb: str = "Convert"
) -> tuple[str, str] | None:
    """Reason and remedy where a module holds what a target of another class cannot; else None. verb:
    what is being done, for the remedy."""
    state = source.__dict__
    forward = state.get("forward")
    if forward is not None and not (_is_own(forward, source) or _is_accelerate_forward(source)):
        return (
            "its forward was replaced, and the replacement holds the layer that goes",
            f"{verb} first and replace forward then",
        )
    if state.get("_compiled_call_impl") is not None:
        return "it was compiled in place", f"{verb} first and call compile() then"
    for name in _extra_attributes(source):
        ours = getattr(target, name, None)
        if callable(ours) and name not in _ACCELERATE:
            return f"its method {name!r} was replaced", f"{verb} first and replace it then"
        if hasattr(target, name) and not hasattr(type(source), name):
            return (
                f"its attribute {name!r} means something else of a {target.__name__}",
                "Rename or delete the attribute",
            )
    names = [*source._buffers, *source._modules, *source._parameters]
    for name in names:
        if (
            name not in ("weight", "bias")
            and not _is_own_buffer(source, name)
            and hasattr(target, name)
        ):
            return (
                f"what it registered as {name!r} means something else of a {target.__name__}",
                "Rename or delete it",
            )
    return None


def carry_over(source: nn.Module, target: nn.Module) -> None:
    """Hooks, buffers, parameters, children and attributes beside a layer's own move along. Only where
    ``why_not_carried`` has nothing to say."""
    move_hooks(source, target)
    has = {"weight", "bias", *target._buffers, *target._modules}
    for name, buffer in source._buffers.items():
        if name not in has and not _is_own_buffer(source, name):
            target.register_buffer(name, buffer, name not in source._non_persistent_buffers_set)
    for name, parameter in source._parameters.items():
        if name not in has:
            target.register_parameter(name, parameter)
    for name, child in source._modules.items():
        if name not in has:
            target.register_module(name, child)
    for name in _extra_attributes(source):
        value = source.__dict__[name]
        if isinstance(value, types.MethodType) and value.__self__ is source:
            value = types.MethodType(value.__func__, target)
        if name not in ("forward", "_old_forward"):
            target.__dict__[name] = value
    forward = source.__dict__.get("forward")
    if forward is not None and not _is_own(forward, source):
        # accelerate's: it calls _hf_hook and _old_forward of its module.
        target.__dict__["_old_forward"] = target.forward
        wrapped = functools.partial(forward.func, target, *forward.args[1:], **forward.keywords)
        target.__dict__["forward"] = functools.update_wrapper(wrapped, target.forward)


def _extra_attributes(module: nn.Module) -> list[str]:
    names = [name for name in module.__dict__ if name not in _MODULES_OWN]
    if not isinstance(module, FabricLayer):
        return names
    own: set[str] = set()
    for base in type(module).__mro__:
        own |= {*vars(base), *vars(base).get("__annotations__", ())} - {"forward"}
    return [name for name in names if name not in own]


def _is_own_buffer(module: nn.Module, name: str) -> bool:
    return isinstance(module, FabricLayer) and name in _LAYERS_BUFFERS


def _is_accelerate_forward(module: nn.Module) -> bool:
    """Whether accelerate wrapped the forward pass of the module's class, and nothing else did."""
    forward = module.__dict__["forward"]
    return (
        "_hf_hook" in module.__dict__
        and isinstance(forward, functools.partial)
        and forward.args[:1] == (module,)
        and _is_own(module.__dict__.get("_old_forward"), module)
    )


def _is_own(forward: Any, module: nn.Module) -> bool:
    """Whether a function is the forward pass of the module's class, as a method of the module: what
    accelerate leaves behind."""
    return (
        getattr(forward, "__self__", None) is module
        and getattr(forward, "__func__", None) is type(module).forward
    )


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts each replacement wherever its module is a child, or stands in an attribute of a module, in
    place: in lists, tuples, dicts and sets, partial functions, bound methods and closures too. The
    model, or what replaces it."""
    if model in replacements:
        return replacements[model]
    replacer = _Replacer(replacements)
    for parent in [module for module in model.modules() if module not in replacements]:
        # Not named_children(), which names a child once, however often the parent has it.
        for child_name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                setattr(parent, child_name, replacements[child])
        for name, value in list(parent.__dict__.items()):
            if name == "_modules" or type(value) in _PLAIN:
                continue
            replaced = replacer.replaced(value)
            if replaced is not value:
                parent.__dict__[name] = replaced
    return model


#: Values that hold no module, and are most of what a module has.
_PLAIN = frozenset({type(None), bool, int, float, str, OrderedDict})


class _Replacer:
    """What holds replaced modules, with their replacements: lists, dicts, sets and closures are
    changed in place, the rest is made anew."""

    def __init__(self, replacements: Mapping[nn.Module, nn.Module]) -> None:
        self._replacements = replacements
        self._seen: set[int] = set()  # containers, which may hold themselves

    def replaced(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, nn.Module):
            return self._replacements.get(value, value)
        if kind is types.MethodType:
            owner = self.replaced(value.__self__)
            if owner is value.__self__:
                return value
            # The replacement's own, not the float layer's forward pass.
            return getattr(owner, value.__name__, None) or types.MethodType(value.__func__, owner)
        if kind not in (list, dict, set, tuple, functools.partial, types.FunctionType):
            return value
        if id(value) in self._seen:
            return value
        self._seen.add(id(value))
        if kind is tuple:
            items = tuple(self.replaced(item) for item in value)
            return value if all(map(operator.is_, items, value)) else items
        if kind is functools.partial:
            parts = (value.func, *value.args, *value.keywords.values())
            made = [self.replaced(part) for part in parts]
            if all(map(operator.is_, made, parts)):
                return value
            func, arguments = made[0], made[1 : len(value.args) + 1]
            keywords = dict(zip(value.keywords, made[len(value.args) + 1 :], strict=True))
            return functools.partial(func, *arguments, **keywords)
        self._replace_inside(value)
        return value

    def _replace_inside(self, value: Any) -> None:
        if isinstance(value, types.FunctionType):
            for cell in value.__closure__ or ():
                try:
                    item = cell.cell_contents
                except ValueError:  # empty
                    continue
                if (made := self.replaced(item)) is not item:
                    cell.cell_contents = made
        elif isinstance(value, set):
            for item in [item for item in value if isinstance(item, nn.Module)]:
                if (made := self.replaced(item)) is not item:
                    value.remove(item)
                    value.add(made)
        else:
            for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
                if (made := self.replaced(item)) is not item:
                    value[key] = made
