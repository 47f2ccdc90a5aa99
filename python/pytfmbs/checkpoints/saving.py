"""save, and the writers of folders: our own checkpoints, and transformers' packed BitNet."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, CheckpointError
from ..nn.packed import TFMBSPackedLinear
from . import codes
from .contents import Contents, LayerFacts, ModelContents
from .files import INDEX
from .gguf_writing import KINDS, GgufWriting
from .modules import is_kept
from .own import METHOD, VERSION

#: What save and convert_checkpoint write.
FORMATS = (METHOD, "bitnet", *KINDS)
#: Called with the name of each ternary layer that was written.
Progress = Callable[[str], None]


class Writing(Protocol):
    """Contents that a format holds: checked, and ready to be written."""

    def write(self, path: Path, progress: Progress) -> None: ...


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str = "tfmbs",
    linear_class: str | None = None,
    round_scales: bool = False,
    max_shard_bytes: int = 5 << 30,
    tokenizer: str | os.PathLike[str] | None = None,
    pre_tokenizer: str | None = None,
) -> None:
    """Writes a model with ternary layers: a folder of safetensors and config.json, or a GGUF file.

    format: "tfmbs" (row-aligned PT-5, any scales), "bitnet", which transformers loads by itself, or
        "gguf-tq2_0" or "gguf-tq1_0", a whole file for llama.cpp.
    linear_class: of "bitnet": "bitlinear", "autobitlinear", or None for the first of the two that
        holds every number exactly. round_scales: writes scales and biases that the format does not
        hold exactly, rounded: to float32, in a GGUF to float16. max_shard_bytes: of a file.
    tokenizer: a folder with tokenizer.json, for the vocabulary of a GGUF; without one, a GGUF has
        token numbers only. pre_tokenizer: llama.cpp's name of how it splits text, where tokenizer.json
        does not tell.

    Raises CheckpointError, by the layer's name, for what the format does not hold; ArgumentError for
    a format that does not exist. Nothing is written then.
    """
    place = Path(path)
    contents = ModelContents(model, place)
    writing = prepare_writing(
        contents, place, format,
        linear_class=linear_class, round_scales=round_scales, max_shard_bytes=max_shard_bytes,
        tokenizer=None if tokenizer is None else Path(tokenizer), pre_tokenizer=pre_tokenizer,
    )  # fmt: skip
    writing.write(place, lambda name: None)


def prepare_writing(
    contents: Contents,
    path: Path,
    format: str,
    *,
    linear_class: str | None = None,
    round_scales: bool = False,
    max_shard_bytes: int = 5 << 30,
    tokenizer: Path | None = None,
    pre_tokenizer: str | None = None,
) -> Writing:
    """Checks contents for a format; see ``save``. path: for messages."""
    if format == METHOD:
        return _Own(contents, max_shard_bytes)
    if format == "bitnet":
        return _BitNet(contents, path, linear_class, round_scales, max_shard_bytes)
    if format in KINDS:
        return GgufWriting(contents, path, KINDS[format], round_scales, tokenizer, pre_tokenizer)
    raise ArgumentError(f"format is {format!r}; allowed are {', '.join(map(repr, FORMATS))}")


class _Folder:
    """A folder of safetensors."""

    def __init__(self, contents: Contents, max_shard_bytes: int) -> None:
        self.contents, self.max_shard_bytes = contents, max_shard_bytes

    def quantization_config(self) -> dict[str, Any]:
        raise NotImplementedError

    def layer_tensors(self, name: str) -> Iterator[tuple[str, Tensor]]:
        raise NotImplementedError

    def write(self, path: Path, progress: Progress) -> None:
        config = {**self.contents.config, "quantization_config": self.quantization_config()}
        path.mkdir(parents=True, exist_ok=True)
        for old in [*path.glob("model-*-of-*.safetensors"), path / INDEX]:
            old.unlink(missing_ok=True)
        _write_shards(path, self._tensors(progress), self.max_shard_bytes)
        (path / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")

    def _tensors(self, progress: Progress) -> Iterator[tuple[str, Tensor]]:
        for name in self.contents.layer_names:
            yield from self.layer_tensors(name)
            progress(name)
        yield from self.contents.tensors()


class _Own(_Folder):
    """pytfmbs's own layout, which holds every ternary layer."""

    def quantization_config(self) -> dict[str, Any]:
        entries = {name: own_entry(self.contents.facts(name)) for name in self.contents.layer_names}
        return {"quant_method": METHOD, "version": VERSION, "layers": entries}

    def layer_tensors(self, name: str) -> Iterator[tuple[str, Tensor]]:
        return own_tensors(name, self.contents.packed_layer(name))


def own_entry(facts: LayerFacts) -> dict[str, Any]:
    """What config.json says of a layer that is written packed."""
    entry: dict[str, Any] = {"in_features": facts.in_features, "activation": facts.activation}
    if facts.group_size is not None:
        entry["group_size"] = facts.group_size
    if facts.rms_norm_eps is not None:
        entry["rms_norm_eps"] = facts.rms_norm_eps
    return entry


def own_tensors(name: str, layer: TFMBSPackedLinear) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a layer that is written packed, with their names."""
    yield f"{name}.packed", layer.packed
    yield f"{name}.scale", layer.scale.clone()
    if layer.bias is not None:
        yield f"{name}.bias", layer.bias.detach()
    norm: Any = getattr(layer, "rms_norm", None)
    if norm is not None:
        yield f"{name}.rms_norm.weight", norm.weight.detach()


class _BitNet(_Folder):
    """transformers' packed layout. Raises CheckpointError for what it does not hold."""

    def __init__(
        self,
        contents: Contents,
        path: Path,
        linear_class: str | None,
        round_scales: bool,
        max_shard_bytes: int,
    ) -> None:
        super().__init__(contents, max_shard_bytes)
        self.path, self.rounds = path, round_scales
        if linear_class not in (None, "bitlinear", "autobitlinear"):
            raise ArgumentError(
                f"linear_class is {linear_class!r}; allowed are 'bitlinear' and 'autobitlinear'"
            )
        self.kept = contents.float_linears
        self.eps: set[float | None] = set()
        scales: dict[str, tuple[Tensor, Tensor | None]] = {}
        for name in contents.layer_names:
            facts = contents.facts(name)
            self.eps.add(facts.rms_norm_eps)
            self._check(name, facts)
            scales[name] = facts.scale, facts.bias
        if linear_class is None:
            exact = all(_divisor(scale.reshape(1)) is not None for scale, _ in scales.values())
            linear_class = "bitlinear" if exact else "autobitlinear"
        self.divides = linear_class == "bitlinear"
        self.scales = {name: self._scale_and_bias(name, *pair) for name, pair in scales.items()}

    def quantization_config(self) -> dict[str, Any]:
        eps = next(iter(self.eps), None)
        return {
            "quant_method": "bitnet",
            "linear_class": "bitlinear" if self.divides else "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": self.kept,
            **({} if eps is None else {"use_rms_norm": True, "rms_norm_eps": eps}),
        }

    def layer_tensors(self, name: str) -> Iterator[tuple[str, Tensor]]:
        tensor = self.contents.layer(name)
        scale, bias = self.scales[name]
        yield f"{name}.weight", codes.pack_strided(tensor.trits)
        yield f"{name}.weight_scale", scale
        if bias is not None:
            yield f"{name}.bias", bias
        if tensor.rms_norm is not None:
            yield f"{name}.rms_norm.weight", tensor.rms_norm

    def _check(self, name: str, facts: LayerFacts) -> None:
        scale = facts.scale
        if scale.numel() != 1 or not 0 < float(scale) < float("inf"):
            self._refuse(
                name, f"it has scales of shape {tuple(scale.shape)}; BitNet has one, above 0"
            )
        if facts.activation != "int8":
            self._refuse(name, f"its activations are {facts.activation!r}; BitNet's are 'int8'")
        if facts.out_features % codes.ROWS_A_BYTE:
            self._refuse(
                name, f"transformers loads no packed layer of {facts.out_features} outputs: they are "
                f"no multiple of {codes.ROWS_A_BYTE}"
            )  # fmt: skip
        if len(self.eps) > 1:
            self._refuse(name, f"BitNet layers have one eps of their norms, or none: {self.eps}")
        if is_kept(name, [re.escape(kept) for kept in self.kept]) or any(
            name.endswith(kept) for kept in self.kept
        ):
            self._refuse(name, "transformers would take it for a layer that stays float: its name "
                         "begins or ends as that one's")  # fmt: skip

    def _scale_and_bias(
        self, name: str, scale: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        scale = scale.reshape(1)
        if self.divides:
            divisor = _divisor(scale)
            if divisor is None and not self.rounds:
                self._refuse(name, f"no float32 has the reciprocal {float(scale)}, its scale",
                             "Pass linear_class='autobitlinear' or round_scales=True")  # fmt: skip
            return 1 / scale if divisor is None else divisor, bias
        if bias is not None:  # which AutoBitLinear multiplies too
            wide = bias.to(torch.float32)
            bias = wide / scale
            if not self.rounds and not torch.equal(bias * scale, wide):
                self._refuse(name, "AutoBitLinear multiplies its bias by its scale, and no float32 "
                             "gives this one", "Pass round_scales=True, or save it as 'tfmbs'")  # fmt: skip
        return scale.clone(), bias

    def _refuse(self, name: str, reason: str, remedy: str = "Save it as 'tfmbs'") -> NoReturn:
        raise CheckpointError(str(self.path), name, reason, remedy)


def _divisor(scale: Tensor) -> Tensor | None:
    """A float32 whose reciprocal in float32 is the scale, or None where there is none."""
    near = 1 / scale
    infinity = torch.tensor(torch.inf)
    for candidate in (near, torch.nextafter(near, -infinity), torch.nextafter(near, infinity)):
        if torch.equal(1 / candidate, scale):
            return candidate.reshape(1)
    return None


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], limit: int) -> None:
    """model.safetensors, or shards and their index."""
    from safetensors.torch import save_file

    shards: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}
    memory: set[int] = set()
    part = "model-part-{}.safetensors"

    def write() -> None:
        save_file(held, folder / part.format(len(shards)), metadata={"format": "pt"})
        shards.append({name: tensor.nbytes for name, tensor in held.items()})
        held.clear()
        memory.clear()

    size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            write()
            size = 0
        place = tensor.untyped_storage().data_ptr()
        held[name] = (
            tensor.clone() if place in memory else tensor
        )  # safetensors takes no memory twice
        memory.add(place)
        size += tensor.nbytes
    write()
    if len(shards) == 1:
        (folder / part.format(0)).replace(folder / "model.safetensors")
        return
    (folder / "model.safetensors").unlink(missing_ok=True)
    weight_map = {}
    for number, names in enumerate(shards):
        file = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        (folder / part.format(number)).replace(folder / file)
        weight_map.update(dict.fromkeys(names, file))
    total = sum(sum(names.values()) for names in shards)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
