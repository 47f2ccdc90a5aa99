"""Where a new position's keys and values go: the layers of transformers' caches."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

_MODULE = "transformers.cache_utils"
_ROOM = "_tfmbs_room"
#: Positions by which a growing cache grows at least.
_STEP = 128


class Place(NamedTuple):
    """Keys and values, [sequences, heads, positions, head size], and the next position, one int64."""

    keys: Tensor
    values: Tensor
    position: Tensor


class _Room:
    """A DynamicLayer's tensors as views of larger ones, so that a position is added without a copy."""

    def __init__(self, owner: Any) -> None:
        self.owner = weakref.ref(owner)
        length = owner.keys.shape[-2]
        capacity = length + max(_STEP, length // 2)
        self.keys = self._larger(owner.keys, capacity)
        self.values = self._larger(owner.values, capacity)
        self.position = torch.tensor(length)
        self.shown: tuple[Tensor, Tensor] = owner.keys, owner.values

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        """Neither pickled nor copied: the owner's tensors are all that a copy of it needs."""
        return type(None), ()

    @staticmethod
    def _larger(old: Tensor, capacity: int) -> Tensor:
        sequences, heads, length, size = old.shape
        made = old.new_empty(sequences, heads, capacity, size)
        made[:, :, :length] = old
        return made

    def serves(self, owner: Any) -> bool:
        """Whether the owner's tensors are still those that this room last showed, and one more
        position fits."""
        keys, values = self.shown
        whole = owner.keys is keys and owner.values is values
        return whole and self.owner() is owner and keys.shape[-2] < self.keys.shape[-2]

    def show(self, owner: Any) -> None:
        length = self.shown[0].shape[-2] + 1
        self.shown = self.keys.narrow(2, 0, length), self.values.narrow(2, 0, length)
        owner.keys, owner.values = self.shown


def place_in(cache: Any, index: int, hidden: Tensor) -> Place | None:
    """Where layer `index` of a cache takes the next position, or None for a cache that is not
    transformers' own (another's may do more in update()) or offloads its layers, and for a layer
    that is neither a DynamicLayer nor a StaticLayer, is empty, or holds tensors of another kind than
    hidden's."""
    layers = getattr(cache, "layers", None)
    if layers is None or index >= len(layers):
        return None
    if type(cache).__module__ != _MODULE or "update" in cache.__dict__:
        return None
    if getattr(cache, "offloading", False):
        return None
    layer = layers[index]
    kind = type(layer)
    if kind.__module__ != _MODULE or not layer.is_initialized or "update" in layer.__dict__:
        return None
    keys, values = layer.keys, layer.values
    if (
        keys.dim() != 4
        or keys.shape != values.shape
        or keys.shape[0] != hidden.shape[0]
        or keys.dtype != hidden.dtype
        or values.dtype != hidden.dtype
    ):
        return None
    if kind.__name__ == "StaticLayer":
        if keys.stride() != values.stride() or keys.stride(3) != 1:
            return None
        return Place(keys, values, layer.cumulative_length)
    if kind.__name__ != "DynamicLayer":
        return None
    room = layer.__dict__.get(_ROOM)
    if room is None or not room.serves(layer):
        room = _Room(layer)
        setattr(layer, _ROOM, room)
    return Place(room.keys, room.values, room.position)


def taken(cache: Any, index: int) -> None:
    """After the position was written: a DynamicLayer shows one more."""
    layer = cache.layers[index]
    room = layer.__dict__.get(_ROOM)
    if room is not None:
        room.show(layer)
