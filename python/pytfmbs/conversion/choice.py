"""Which modules convert takes, which it leaves alone, and why."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ..nn.fabric_layer import FabricLayer
from ..nn.parents import reading_parent
from . import bitnet
from .weight_reads import Read, matches, reads_of

#: Subclasses of nn.Linear with a forward pass of their own that gives nn.Linear's numbers.
_SAME_NUMBERS = {("transformers.models.falcon.modeling_falcon", "FalconLinear")}
_HEAD_NAMES = {"lm_head", "embed_out"}
_ADAPTER_NAMES = {
    "adapter", "adapters", "lora_A", "lora_B", "lora_a", "lora_b", "lora_down", "lora_up"
}  # fmt: skip

HEAD = "output head"
ADAPTER = "adapter"


def is_candidate(module: nn.Module) -> bool:
    """Whether convert can be asked to take a module: an nn.Linear, or one of transformers' BitNet
    layers."""
    if isinstance(module, FabricLayer):
        return False
    return isinstance(module, nn.Linear) or bitnet.kind(module) is not None


def computes_as_linear(kind: type[nn.Module]) -> bool:
    """Whether instances of a class compute x @ weight.T + bias and nothing else."""
    if (kind.__module__, kind.__name__) in _SAME_NUMBERS:
        return True
    return kind.forward is nn.Linear.forward and kind.__call__ is nn.Module.__call__


def is_taken_by_default(module: nn.Module) -> bool:
    kind = type(module)
    known = (kind.__module__, kind.__name__) in _SAME_NUMBERS
    return kind is nn.Linear or known or bitnet.kind(module) is not None


class Choice:
    """What of a model is left alone unless asked for."""

    def __init__(self, model: nn.Module) -> None:
        self.paths: dict[nn.Module, list[str]] = {}  # every one, of modules that appear twice too
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(module, []).append(path)
        self._heads = set(_output_heads(self.paths))
        self._adapters = set(_adapters(self.paths))

    def left_alone(self, module: nn.Module) -> str | None:
        """Why a linear layer is left alone unless it is asked for; None where it is not."""
        if module in self._adapters:
            return ADAPTER
        if module in self._heads:
            return HEAD
        if not is_taken_by_default(module):
            if computes_as_linear(type(module)):
                reason = self.read_by_torch(module)
                return reason or f"subclass of nn.Linear ({type(module).__name__})"
            return f"forward of its own ({type(module).__name__})"
        return None

    def read_by_torch(self, module: nn.Module) -> str | None:
        for path in self.paths[module]:
            for parent, name in self._parents(path):
                if "." not in name and (reason := reading_parent(parent, name)):
                    return reason
        return None

    def reads(self, module: nn.Module) -> Iterator[tuple[nn.Module, str, Read]]:
        """Reads of a module's weight in the forward pass of an ancestor: the ancestor, its path, the
        read."""
        for path in self.paths[module]:
            for parent, name in self._parents(path):
                for read in reads_of(parent):
                    if matches(read.chain, name):
                        yield parent, path[: -len(name)].rstrip("."), read

    def ancestors(self, module: nn.Module) -> set[nn.Module]:
        return {parent for path in self.paths[module] for parent, _ in self._parents(path)}

    def _parents(self, path: str) -> list[tuple[nn.Module, str]]:
        """Ancestors, and the path from there."""
        if not hasattr(self, "_by_path"):
            self._by_path = {p: module for module, paths in self.paths.items() for p in paths}
        if not path:
            return []
        steps = path.split(".")
        return [
            (self._by_path[".".join(steps[:n])], ".".join(steps[n:])) for n in range(len(steps))
        ]


def _output_heads(paths: dict[nn.Module, list[str]]) -> Iterator[nn.Module]:
    """Layers that give a model's outputs: what transformers says is one, a layer beside the base of a
    model with a head, a weight that an embedding has too, and layers of these names."""
    embedded = {
        id(module.weight) for module in paths if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    for module, places in paths.items():
        if isinstance(module, nn.Linear):
            if id(module._parameters.get("weight")) in embedded:
                yield module
            if any(_HEAD_NAMES.intersection(path.split(".")) for path in places):
                yield module
        get = getattr(module, "get_output_embeddings", None)
        if callable(get):
            try:
                head = get()
            except Exception:  # a model without one
                head = None
            if isinstance(head, nn.Module):
                yield from head.modules()
        prefix = getattr(module, "base_model_prefix", None)
        if isinstance(prefix, str) and isinstance(getattr(module, prefix, None), nn.Module):
            yield from (child for child in module.children() if isinstance(child, nn.Linear))


def _adapters(paths: dict[nn.Module, list[str]]) -> Iterator[nn.Module]:
    """Layers that fine-tuning adds: all but the base layer of peft's, and layers of these names."""
    for module, places in paths.items():
        if any(_ADAPTER_NAMES.intersection(path.split(".")) for path in places):
            yield module
        if is_peft_layer(module):
            for name, child in module.named_modules():
                if name and name.split(".")[0] != "base_layer":
                    yield child


def is_peft_layer(module: nn.Module) -> bool:
    return any(
        base.__name__ == "BaseTunerLayer" and base.__module__.startswith("peft.")
        for base in type(module).__mro__
    )
