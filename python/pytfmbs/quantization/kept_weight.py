"""What a quantizer of the user's made of a weight, kept while neither has changed."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from .quantizers import WeightQuantizer


class KeptWeight(NamedTuple):
    """Trits and scale, and what they were made of."""

    trits: Tensor
    scale: Tensor
    weight: Tensor
    alias: Tensor  # keeps the weight's memory, so that its address is given to no other
    version: int | None
    state: tuple[Any, ...]

    @classmethod
    def of(
        cls, weight: Tensor, quantizer: WeightQuantizer, trits: Tensor, scale: Tensor
    ) -> KeptWeight | None:
        """None where a write to the weight might raise no version: a view of a larger storage, or
        memory that processes share."""
        if weight.untyped_storage().nbytes() != weight.nbytes or weight.is_shared():
            return None
        version = _version(weight)
        return cls(trits, scale, weight, weight.detach(), version, _state(quantizer))

    def is_of(self, weight: Tensor, quantizer: WeightQuantizer) -> bool:
        """Whether the weight and the quantizer are what they were."""
        return (
            weight is self.weight
            and weight.data_ptr() == self.alias.data_ptr()
            and _version(weight) == self.version
            and _state(quantizer) == self.state
        )


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _state(quantizer: WeightQuantizer) -> tuple[Any, ...]:
    """A quantizer's attributes: numbers by value, tensors by memory and version, others by identity.
    What they hold inside is not looked at. They are held, so that no other gets their identity."""
    state = getattr(quantizer, "__dict__", {})
    if isinstance(quantizer, nn.Module):
        tensors = [*quantizer.parameters(), *quantizer.buffers()]
        state = {**state, **{str(i): tensor for i, tensor in enumerate(tensors)}}
    return tuple((name, _mark(value)) for name, value in state.items())


def _mark(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Held(value), value.data_ptr(), _version(value)
    if isinstance(value, (int, float, str, bool)):
        return value
    return _Held(value)


class _Held:
    """Equal to what holds the same object."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other._value is self._value
