"""A model's tensors and modules, by the names of its state_dict."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch import Tensor, nn


class Place(NamedTuple):
    """A parameter or persistent buffer: key is its name in the model's state_dict."""

    key: str
    module: nn.Module
    name: str
    tensor: Tensor


def places(model: nn.Module, without: Collection[str]) -> Iterator[Place]:
    """The tensors of a state_dict, shared ones once for each name, but for those of the modules
    ``without`` and below, whatever other names these have."""
    paths = list(model.named_modules(remove_duplicate=False))
    left_out = {id(module) for path, module in paths if path in without}
    skipped: set[str] = set()
    for path, module in paths:  # parents first
        if id(module) in left_out or (path and path.rpartition(".")[0] in skipped):
            skipped.add(path)
            continue
        prefix = path + "." if path else ""
        kept = {
            name: buffer
            for name, buffer in module._buffers.items()
            if name not in module._non_persistent_buffers_set
        }
        for name, tensor in [*module._parameters.items(), *kept.items()]:
            if tensor is not None:
                yield Place(prefix + name, module, name, tensor)


def owners(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Wherever a module, by its id, is a child: its parents, and its names there."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                found.setdefault(id(child), []).append((parent, name))
    return found


def is_kept(name: str, patterns: Collection[str]) -> bool:
    """Whether transformers leaves a module alone whose modules_to_not_convert are these: a pattern is
    a regular expression of a name's beginning, up to a dot or its end, or a name's end.
    Raises re.error."""
    boundary = r"(?:(?<=\.)|(?=\.|$))"
    return any(
        re.match(f"(?:{pattern}){boundary}", name) or name.endswith(pattern) for pattern in patterns
    )


def online_layers(model: nn.Module, patterns: Collection[str] | None) -> list[str]:
    """The layers that transformers makes ternary in a model whose modules_to_not_convert are these:
    without any, all linear layers but the output head, the last one, and those with tied weights."""
    linears = {
        path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    auto = [path for path, module in linears.items() if type(module).__name__ == "AutoBitLinear"]
    if auto:
        return auto
    if patterns is not None:
        return [path for path in linears if not is_kept(path, patterns)]
    owners: dict[int, int] = {}
    for place in places(model, ()):
        owners[id(place.tensor)] = owners.get(id(place.tensor), 0) + 1
    find_head = getattr(model, "get_output_embeddings", None)
    head = None if find_head is None else find_head()
    last = [name for name, _ in model.named_parameters()][-1:]
    return [
        path
        for path, module in linears.items()
        if module is not head and owners[id(module.weight)] == 1 and f"{path}.weight" not in last
    ]
