"""load_into: a checkpoint's ternary layers and other tensors, put into a model."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from ..nn.changes import announce
from .codes import forget_pages
from .gguf_file import GgufCheckpoint
from .llama_gguf import ROPE_FREQS, LlamaNames
from .modules import Place, online_layers, owners, places
from .opening import open_checkpoint
from .reader import Checkpoint
from .tensors import TernaryTensor

#: A model's name of a tensor to the file's, or to None where the file has none.
Names = Callable[[str], "str | None"]
#: Tensors of a GGUF that repeat what a model's configuration says.
_OF_THE_CONFIGURATION = {ROPE_FREQS}
_COPIED = 16 << 20  # bytes of a tensor


def load_into(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    trainable: bool = False,
    names: Names | None = None,
    i2s_block: int | None = None,
    **options: Any,
) -> nn.Module:
    """Loads a ternary checkpoint into a model of its architecture, in place, and returns the model.

    Each layer that is ternary in the file replaces the model's linear layer of that name, one after
    the other: a TFMBSPackedLinear, or with ``trainable`` a TFMBSLinear that keeps the file's scale.
    The other tensors are copied, and keep the model's dtypes. The model may be on the meta device, but
    for buffers that no file has.

    names: from a name in the model's state_dict to the file's, None for none; needed for a GGUF of
        another architecture than llama. i2s_block: as open_checkpoint's. options: of the layers.

    Raises CheckpointError for a file that cannot be read right, and a tensor that the file or the
    model lacks or that has another shape. Names are checked first; the model may be loaded in part
    after any other error.
    """
    reader = open_checkpoint(
        path, linears=lambda patterns: online_layers(model, patterns), i2s_block=i2s_block
    )
    model = _Loading(model, reader, names, trainable, options).run()
    announce(model)
    return model


class _Loading:
    def __init__(
        self,
        model: nn.Module,
        reader: Checkpoint,
        names: Names | None,
        trainable: bool,
        options: dict[str, Any],
    ) -> None:
        self.model, self.reader, self.trainable, self.options = model, reader, trainable, options
        self.order: Callable[[str, int], Tensor | None] = lambda name, rows: None
        if names is None and isinstance(reader, GgufCheckpoint):
            llama = _llama_names(reader)
            names, self.order = llama.name, llama.order
        self.names: Names = names or (lambda name: name)
        #: Ternary in the file, and float in the model: embeddings.
        self.floats: set[str] = set()

    def run(self) -> nn.Module:
        targets = self._targets()
        self.owners = owners(self.model)
        rest = self._rest(targets)
        for path, name in targets.items():
            self._put_layer(path, name)
            self.reader.forget()
        for place, name in rest:
            self._put_tensor(place, name)
            self.reader.forget()
        tie = getattr(self.model, "tie_weights", None)
        if tie is not None:
            tie()
        for key, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            if tensor.is_meta:
                self._refuse(
                    key,
                    "the model has it on the meta device, and the file lacks it",
                    "Make the model's buffers on the CPU",
                )
        return self.model

    def _targets(self) -> dict[str, str]:
        """Names of ternary layers in the file by path in the model."""
        layers = set(self.reader.layer_names)
        found: dict[str, str] = {}
        for path, module in self.model.named_modules():
            weight = self.names(f"{path}.weight" if path else "weight")
            name = None if weight is None else weight.removesuffix(".weight")
            if name not in layers or name is None:
                continue
            if isinstance(module, nn.Embedding) and isinstance(self.reader, GgufCheckpoint):
                self.floats.add(f"{name}.weight")
                continue
            if not (hasattr(module, "in_features") and hasattr(module, "out_features")):
                self._refuse(
                    f"{name}.weight",
                    f"it is ternary, and the model's {path!r} is a {type(module).__name__}",
                    "Load it into a model of its own architecture",
                )
            found[path] = name
        lost = {name for name in layers - {*found.values()} if f"{name}.weight" not in self.floats}
        if lost:
            self._refuse(
                f"{min(lost)}.weight",
                "the model has no linear layer of that name",
                "Load it into a model of its own architecture, or pass names",
            )
        return found

    def _rest(self, targets: dict[str, str]) -> list[tuple[Place, str]]:
        """The other tensors of the model, with their names in the file. Raises for what either lacks."""
        has = {*self.reader.tensor_names, *self.floats}
        found = [(place, self.names(place.key)) for place in places(self.model, targets)]
        loaded = {id(place.tensor) for place, name in found if name in has}
        for place, name in found:
            if name not in has and id(place.tensor) not in loaded and not self._is_tied(place):
                self._refuse(name or place.key, "the model needs it, and the file lacks it")
        unused = has - {name for _, name in found} - _OF_THE_CONFIGURATION
        unused -= {self.names(name) for name, _ in self.model.named_buffers()}
        if unused:
            self._refuse(
                min(unused),
                "the model has no such tensor",
                "Load it into a model of its own architecture, or pass names",
            )
        return [(place, name) for place, name in found if name is not None and name in has]

    def _is_tied(self, place: Place) -> bool:
        """Whether tie_weights will fill it, as it does on the meta device."""
        return place.key in getattr(self.model, "all_tied_weights_keys", {})

    def _put_layer(self, path: str, name: str) -> None:
        old: Any = self.model.get_submodule(path)
        tensor = self.reader.layer(name, old.out_features)
        weight = f"{name}.weight"
        if tensor.in_features != old.in_features:
            self._refuse(
                weight, f"it has {tensor.in_features} inputs, and the model's {old.in_features}"
            )
        if (tensor.bias is None) != (getattr(old, "bias", None) is None):
            has = "no" if tensor.bias is None else "a"
            self._refuse(f"{name}.bias", f"the file has {has} bias, and the model is otherwise")
        order = self.order(name, tensor.out_features)
        if order is not None:
            tensor = tensor.rows(order)
        new = self._layer_of(tensor, path, old)
        new.train(old.training)
        for parent, child in self.owners.get(id(old), ()):
            parent._modules[child] = new
        if self.model is old:
            self.model = new

    def _layer_of(self, tensor: TernaryTensor, path: str, old: Any) -> nn.Module:
        options = {"name": path or None, **self.options}
        if not self.trainable:
            return tensor.packed_layer(**options)
        kind = getattr(getattr(old, "weight", None), "dtype", None)
        if kind is not None and not kind.is_floating_point:
            kind = None
        return tensor.trainable_layer(dtype=kind, **options)

    def _put_tensor(self, place: Place, name: str) -> None:
        tensor, old = self.reader.tensor(name), place.tensor
        is_same_kind = tensor.dtype.is_floating_point == old.dtype.is_floating_point
        if tensor.shape != old.shape or not is_same_kind:
            self._refuse(
                name,
                f"it is {tensor.dtype} of shape {tuple(tensor.shape)}, and the model's "
                f"{place.key!r} is {old.dtype} of shape {tuple(old.shape)}",
            )
        order = self.order(name.rpartition(".")[0], old.shape[0]) if old.dim() else None
        if order is not None:
            tensor = tensor[order]
        if not old.is_meta:
            with torch.no_grad():
                _copy(tensor, old)
            return
        made = _copy(tensor, torch.empty(old.shape, dtype=old.dtype, device="cpu"))
        if isinstance(old, nn.Parameter):
            made = nn.Parameter(made, old.requires_grad)
        setattr(place.module, place.name, made)

    def _refuse(
        self,
        tensor: str,
        reason: str,
        remedy: str = "Load it into a model of its own architecture",
    ) -> NoReturn:
        raise CheckpointError(self.reader.file, tensor, reason, remedy)


def _copy(source: Tensor, to: Tensor) -> Tensor:
    """Copies a tensor that nobody needs afterwards, a view of a mapped file as a rule, part by part:
    the process does not hold all of it twice."""
    if source.dim() == 0:
        return to.copy_(source)
    parts = max(1, source.nbytes // _COPIED)
    for part, place in zip(source.chunk(parts), to.chunk(parts), strict=True):
        place.copy_(part)
        forget_pages(part)
    return to


def _llama_names(reader: GgufCheckpoint) -> LlamaNames:
    architecture = reader.value("general.architecture")
    counts = [
        reader.value(f"llama.{key}")
        for key in ("block_count", "attention.head_count", "attention.head_count_kv")
    ]
    if architecture != "llama":
        reason = f"its architecture is {architecture!r}, whose names are not known"
        raise CheckpointError(reader.file, None, reason, "Pass names")
    if not all(isinstance(n, int) and 0 < n <= 1 << 16 for n in counts):
        reason = f"its numbers of blocks and heads are {counts}"
        raise CheckpointError(reader.file, None, reason, "Convert it again")
    return LlamaNames(*counts)
