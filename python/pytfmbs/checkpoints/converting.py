"""convert_checkpoint: from one format to another, a layer at a time, without a model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import ArgumentError, CheckpointError
from .contents import CheckpointContents, Contents, LayerFacts
from .files import read_json
from .gguf_file import GgufCheckpoint
from .gguf_writing import (
    KINDS,
    blocks_of,
    blocks_of_kind,
    file_type,
    stored_entry,
    ternary_entry,
    write_entries,
)
from .llama_gguf import LlamaNames, config_of
from .modules import is_kept
from .opening import open_checkpoint
from .reader import Checkpoint
from .saving import FORMATS, Progress, Writing, prepare_writing
from .tensors import TernaryTensor

#: Files of a folder that belong to a model, beside its weights and config.json.
_COPIED = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "generation_config.json", "chat_template*", "additional_chat_templates", "LICENSE*", "README.md",
)  # fmt: skip

#: Kinds whose blocks go over as they are.
_BLOCKS = tuple(KINDS.values())
_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def convert_checkpoint(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: str,
    overwrite: bool = False,
    round_scales: bool = False,
    vocabulary: bool = True,
    pre_tokenizer: str | None = None,
    max_shard_bytes: int = 5 << 30,
    i2s_block: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Writes a checkpoint in another format, a layer at a time. No float weights are made.

    format: one of ``save``'s. overwrite: replaces a file, or a folder with config.json, at the target.
    round_scales: as ``save`` has it. vocabulary, pre_tokenizer: of a GGUF, from the source's tokenizer.json.
    i2s_block: as open_checkpoint's. progress: called
    before a layer is written with its name, how many are written, and how many there are.

    Raises CheckpointError for what cannot be read, or what the format does not hold. The target is
    written under another name beside it first, so that there is a whole one or none.
    """
    place = Path(target)
    reader = open_alone(Path(source), i2s_block)
    if place.exists() and not overwrite:
        raise CheckpointError(str(place), None, "it exists", "Remove it, or pass overwrite")
    if place.exists():
        _check_replaceable(place, Path(source))
    writing = prepare_conversion(
        reader, place, format, round_scales=round_scales, vocabulary=vocabulary,
        pre_tokenizer=pre_tokenizer, max_shard_bytes=max_shard_bytes,
    )  # fmt: skip
    total, done = len(reader.layer_names), 0

    def count(name: str) -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(name, done, total)

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as folder:
        made = Path(folder) / place.name
        try:
            writing.write(made, count)
            if made.is_dir() and Path(source).is_dir():
                _copy_companions(Path(source), made)
            _replace(place, made, Path(folder) / "old")
        except OSError as error:
            raise CheckpointError(str(place), None, f"it cannot be written: {error}",
                                  "Free some space, or give another path") from error  # fmt: skip


def _check_replaceable(place: Path, source: Path) -> None:
    """Raises CheckpointError where more than a checkpoint would go."""
    given = source.resolve()
    if place.resolve() == given:
        raise CheckpointError(str(place), None, "it is the source", "Give another path")
    if place.resolve() in given.parents:
        raise CheckpointError(str(place), None, "the source lies in it", "Give another path")
    if place.is_dir() and any(place.iterdir()) and not (place / "config.json").is_file():
        reason = "it is a folder without config.json, so it is no checkpoint that is replaced"
        raise CheckpointError(str(place), None, reason, "Remove it, or give another path")


def _replace(place: Path, made: Path, old: Path) -> None:
    """Puts what was made at a place. What is there goes away, or stays after an error."""
    if not place.exists():
        made.replace(place)
        return
    place.replace(old)
    try:
        made.replace(place)
    except BaseException:
        old.replace(place)
        raise


def prepare_conversion(
    reader: Checkpoint,
    target: Path,
    format: str,
    *,
    round_scales: bool = False,
    vocabulary: bool = True,
    pre_tokenizer: str | None = None,
    max_shard_bytes: int = 5 << 30,
) -> Writing:
    """Checks whether a format holds a checkpoint. target: for messages."""
    if format not in FORMATS:
        raise ArgumentError(f"format is {format!r}; allowed are {', '.join(map(repr, FORMATS))}")
    if isinstance(reader, GgufCheckpoint) and format in KINDS:
        return _GgufCopy(reader, target, KINDS[format], round_scales)
    contents = contents_of(reader)
    return prepare_writing(
        contents, target, format,
        round_scales=round_scales, max_shard_bytes=max_shard_bytes, pre_tokenizer=pre_tokenizer,
        tokenizer=contents.folder if vocabulary else None,
    )  # fmt: skip


def contents_of(reader: Checkpoint) -> Contents:
    """A checkpoint as writers take it. Raises CheckpointError for a GGUF that is no Llama."""
    if isinstance(reader, GgufCheckpoint):
        return _LlamaContents(reader)
    return CheckpointContents(reader, _config(reader), outputs_of(reader))


def open_alone(path: Path, i2s_block: int | None = None) -> Checkpoint:
    """A reader of a checkpoint, without a model: of online BitNet weights, the linear layers that
    Llama-shaped models have are ternary."""
    return open_checkpoint(path, linears=lambda kept: _linears(path, kept), i2s_block=i2s_block)


class _LlamaContents(Contents):
    """A GGUF of the architecture "llama", under transformers' names, with rows in their order."""

    def __init__(self, reader: GgufCheckpoint) -> None:
        self.reader, self.file = reader, reader.file
        everything = {*reader.tensor_names, *(f"{name}.weight" for name in reader.layer_names)}
        everything |= {f"{n}.bias" for n in reader.layer_names if reader.has(f"{n}.bias")}
        self.config = config_of(
            reader.value, everything, lambda why, remedy: self._refuse(None, why, remedy)
        )
        self.names = LlamaNames(*(self.config[key] for key in (
            "num_hidden_layers", "num_attention_heads", "num_key_value_heads")))  # fmt: skip
        self._layers = {
            self._in_model(f"{n}.weight").removesuffix(".weight"): n for n in reader.layer_names
        }
        self._tensors = {self._in_model(name): name for name in reader.tensor_names}
        self.layer_names, self.tensor_names = list(self._layers), list(self._tensors)
        self.float_linears = ["lm_head"] * ("lm_head" not in self._layers) + [
            name.removesuffix(".weight")
            for name, stored in self._tensors.items()
            if name != "lm_head.weight" and len(reader.shape(stored)) == 2
        ]

    def facts(self, name: str) -> LayerFacts:
        return LayerFacts.of(self.layer(name))

    def layer(self, name: str) -> TernaryTensor:
        stored = self._layers[name]
        tensor = replace(self.reader.layer(stored), name=name)
        order = self.names.order(stored, tensor.out_features)
        return tensor if order is None else tensor.rows(order)

    def tensor(self, name: str) -> Tensor:
        stored = self._tensors[name]
        tensor = self.reader.tensor(stored)
        order = self.names.order(stored.rpartition(".")[0], tensor.shape[0])
        return tensor if order is None else tensor[order]

    def _in_model(self, name: str) -> str:
        found = self.names.in_model(name)
        if found is None:
            self._refuse(
                name, "transformers' Llama has no such tensor", "Load it with names instead"
            )
        return found

    def _refuse(self, tensor: str | None, reason: str, remedy: str) -> NoReturn:
        raise CheckpointError(self.file, tensor, reason, remedy)


class _GgufCopy:
    """A GGUF of any architecture with the ternary blocks of another kind; all else byte for byte."""

    def __init__(self, reader: GgufCheckpoint, path: Path, kind: str, rounds: bool) -> None:
        import gguf

        architecture = reader.value("general.architecture")
        if not isinstance(architecture, str):
            reason = f"its general.architecture is {architecture!r}"
            raise CheckpointError(reader.file, None, reason, "Convert it again")
        self.writer = gguf.GGUFWriter(None, architecture)
        self.writer.data_alignment = int(reader.value("general.alignment") or 32)
        for key in reader.keys:
            if key in ("general.architecture", "general.file_type"):
                continue
            value_type, *item = map(gguf.GGUFValueType, reader.value_type(key))
            value = reader.value(key)
            if value == []:
                reason = f"its metadata {key!r} is an array of nothing, which the gguf package does not write"
                raise CheckpointError(reader.file, None, reason, "Remove the key")
            self.writer.add_key_value(key, value, value_type, *item)
        self.writer.add_file_type(file_type(kind))
        self.entries = []
        for name in reader.names():
            layer, part = name.rpartition(".")[::2]
            if layer not in reader.layer_names or part != "weight":
                folded = part == "scale" and layer in reader.layer_names
                if not (folded and self._kind(reader, f"{layer}.weight") not in _BLOCKS):
                    self.entries.append(stored_entry(name, *reader.stored(name)))
                continue
            outputs, inputs = reader.shape(name)
            if self._kind(reader, name) in _BLOCKS:
                data = _blocks_as(reader, name, kind)
            else:
                blocks_of(str(path), reader.layer(layer), kind, rounds)
                data = _layer_as(reader, layer, kind, rounds)
            self.entries.append(ternary_entry(layer, outputs, inputs, kind, data, layer))

    @staticmethod
    def _kind(reader: GgufCheckpoint, name: str) -> str:
        return reader.type_name(name).lower()

    def write(self, path: Path, progress: Progress) -> None:
        write_entries(self.writer, self.entries, path, progress)


def _blocks_as(reader: GgufCheckpoint, name: str, kind: str) -> Callable[[], Any]:
    """Other blocks with the same trits and scales."""

    def data() -> Any:
        stored, old = reader.stored(name)
        return blocks_of_kind(old.name.lower(), torch.from_numpy(stored.copy()), kind)

    return data


def _layer_as(reader: GgufCheckpoint, layer: str, kind: str, rounds: bool) -> Callable[[], Any]:
    return lambda: blocks_of(reader.file, reader.layer(layer), kind, rounds)


def _linears(path: Path, kept: Any) -> list[str]:
    """The ternary layers of an online checkpoint: all linear ones but those that are kept, and without
    a list of these, but the head."""
    from .files import TensorFiles

    files = TensorFiles(path)
    found = []
    for key in files.names():
        name = key.removesuffix(".weight")
        leaf = name.rpartition(".")[2]
        if not key.endswith(".weight") or len(files.shape(key)) != 2 or leaf == "embed_tokens":
            continue
        if is_kept(name, kept or ()) or (kept is None and leaf == "lm_head"):
            continue
        if leaf not in (*_LINEARS, "lm_head"):
            raise files.error(key, "it quantizes online, and whether this layer is ternary is not known",
                              "Load it into its model with load_into, and save that")  # fmt: skip
        found.append(name)
    return found


def _config(reader: Checkpoint) -> dict[str, Any]:
    path = Path(reader.file)
    return read_json((path if path.is_dir() else path.parent) / "config.json", missing={})


def outputs_of(reader: Checkpoint) -> dict[str, int]:
    """Output features of Llama-shaped models' layers, which packed rows do not say."""
    config = _config(reader)
    names = ("num_attention_heads", "hidden_size", "intermediate_size")
    values = [config.get(name) for name in names]
    if not all(isinstance(value, int) and value > 0 for value in values):
        return {}
    heads, hidden, wide = (int(config[name]) for name in names)
    head = config.get("head_dim") or hidden // heads
    keys = head * (config.get("num_key_value_heads") or heads)
    sizes = {
        "q_proj": head * heads, "k_proj": keys, "v_proj": keys, "o_proj": hidden,
        "gate_proj": wide, "up_proj": wide, "down_proj": hidden,
    }  # fmt: skip
    leaves = {name: name.rpartition(".")[2] for name in reader.layer_names}
    return {name: sizes[leaf] for name, leaf in leaves.items() if leaf in sizes}


def _copy_companions(source: Path, target: Path) -> None:
    for pattern in _COPIED:
        for file in source.glob(pattern):
            if file.is_dir():
                shutil.copytree(file, target / file.name, dirs_exist_ok=True)
            else:
                shutil.copy2(file, target / file.name)
