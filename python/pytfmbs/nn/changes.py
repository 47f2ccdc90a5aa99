"""Who is told that layers of a model became ternary."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

#: Called with a model after convert, freeze, thaw or load_into replaced layers of it.
listeners: list[Callable[[nn.Module], None]] = []


def announce(model: nn.Module) -> None:
    for listener in listeners:
        listener(model)
