"""Modules of a model replaced by others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

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


def move_hooks(source: nn.Module, target: nn.Module) -> None:
    """Hooks move along."""
    for hooks in _HOOKS:
        if hooks in source.__dict__:
            setattr(target, hooks, getattr(source, hooks))


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Puts each replacement wherever its module is a child, in place. The model, or what replaces
    it."""
    if model in replacements:
        return replacements[model]
    for parent in list(model.modules()):
        # Not named_children(), which names a child once, however often the parent has it.
        for child_name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                setattr(parent, child_name, replacements[child])
    return model
