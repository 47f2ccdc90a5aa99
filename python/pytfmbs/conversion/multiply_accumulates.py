"""Multiply-accumulates and calls of a model's modules, by running it once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..nn.fabric_layer import FabricLayer


@dataclass
class Counts:
    macs: dict[nn.Module, int] = field(default_factory=dict)
    calls: dict[nn.Module, int] = field(default_factory=dict)
    total: int = 0

    def add(self, module: nn.Module | None, macs: int) -> None:
        self.total += macs
        if module is not None:
            self.macs[module] = self.macs.get(module, 0) + macs


def count(model: nn.Module, example_inputs: Any) -> Counts:
    """Runs the model once: in eval mode, without gradients, and without telemetry. Matrix products and
    convolutions count for the innermost module that runs them."""
    counts = Counts()
    stack: list[nn.Module] = []

    def enter(module: nn.Module, *_: Any) -> None:
        counts.calls[module] = counts.calls.get(module, 0) + 1
        stack.append(module)

    def leave(module: nn.Module, _args: Any, output: Any) -> None:
        stack.pop()
        if isinstance(module, FabricLayer) and isinstance(output, Tensor):
            counts.add(module, output.numel() * module.in_features)
        elif isinstance(module, nn.RNNBase):
            counts.add(module, _recurrent_macs(module, _args, output))

    args, kwargs = _arguments(example_inputs)
    modules = list(model.modules())
    with ExitStack() as undo:
        for module in modules:
            # Before and after whatever hooks there are.
            undo.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        undo.enter_context(_in_eval_mode(modules))
        undo.enter_context(_without_telemetry(modules))
        undo.enter_context(_unfused_attention())
        undo.enter_context(torch.no_grad())
        undo.enter_context(_Products(counts, stack))
        model(*args, **kwargs)
    return counts


class _Products(TorchDispatchMode):
    """Counts what torch's own counter of floating-point operations knows, two a
    multiply-accumulate."""

    def __init__(self, counts: Counts, stack: list[nn.Module]) -> None:
        super().__init__()
        self._counts, self._stack = counts, stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        inner = self._stack[-1] if self._stack else None
        if not isinstance(inner, (FabricLayer, nn.RNNBase)):  # counted as they leave
            packet = func._overloadpacket
            if packet in _MORE_PRODUCTS:
                self._counts.add(inner, _MORE_PRODUCTS[packet](out, *args))
            elif packet in flop_registry:
                self._counts.add(inner, flop_registry[packet](*args, **kwargs, out_val=out) // 2)
        return out


def _grouped(out: Tensor, left: Tensor, *_: Any) -> int:
    return out.numel() * left.shape[-1]


def _attention(out: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> int:
    scores = query.shape[:-1].numel() * key.shape[-2]
    return scores * (query.shape[-1] + value.shape[-1])


#: What torch's counter does not know.
_MORE_PRODUCTS: dict[Any, Callable[..., int]] = {
    getattr(torch.ops.aten, "_grouped_mm", None): _grouped,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


def _recurrent_macs(module: nn.RNNBase, args: tuple[Any, ...], output: Any) -> int:
    """A step of each sequence multiplies by every weight of every layer and direction."""
    first = output[0]
    data = first.data if isinstance(first, nn.utils.rnn.PackedSequence) else first
    steps = data.numel() // data.shape[-1] if data.numel() else 0
    weights = [p for name, p in module.named_parameters() if name.startswith("weight")]
    return steps * sum(weight.numel() for weight in weights)


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


@contextmanager
def _in_eval_mode(modules: list[nn.Module]) -> Iterator[None]:
    before = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


@contextmanager
def _without_telemetry(modules: list[nn.Module]) -> Iterator[None]:
    fabrics = [m.fabric for m in modules if isinstance(m, FabricLayer) and not m.fabric.closed]
    before = [fabric.telemetry for fabric in fabrics]
    for fabric in fabrics:
        fabric.telemetry = False
    try:
        yield
    finally:
        for fabric, telemetry in zip(fabrics, before, strict=True):
            fabric.telemetry = telemetry


@contextmanager
def _unfused_attention() -> Iterator[None]:
    """Fused attention multiplies past the modules."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
