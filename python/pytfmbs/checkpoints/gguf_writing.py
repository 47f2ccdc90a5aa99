"""Writers of GGUF: single ternary tensors, and whole Llama files for llama.cpp."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from .. import _fabric
from ..errors import ArgumentError, CheckpointError
from . import codes
from .contents import Contents, LayerFacts
from .gguf_vocabulary import add_vocabulary
from .llama_gguf import ROPE_FREQS, LlamaConfig
from .tensors import TernaryTensor

#: Kinds of blocks by the format's name.
KINDS = {"gguf-tq2_0": "tq2_0", "gguf-tq1_0": "tq1_0"}
_EXACT = "Pass round_scales=True, or save it as 'tfmbs'"


class _Entry(NamedTuple):
    """A tensor of the file: shape and bytes as they are stored; data makes it."""

    name: str
    shape: tuple[int, ...]
    dtype: Any  # NumPy's
    type: Any  # gguf's, or None where the dtype says it
    data: Callable[[], Any]
    layer: str | None = None  # the ternary layer whose weight it is


def add_gguf_tensor(
    writer: Any, tensor: TernaryTensor, *, kind: str = "tq2_0", round_scales: bool = False
) -> None:
    """Adds a ternary layer to a gguf.GGUFWriter, weight and bias, under the tensor's name.

    kind: "tq2_0" or "tq1_0". round_scales: scales that fp16 does not hold are rounded to it.
    Raises CheckpointError for scales that fp16 does not hold, groups of other than 256 inputs,
    inputs that are no multiple of 256, a norm, and ternary activations.
    """
    file = str(getattr(writer, "path", None) or "GGUF")
    data = blocks_of(file, tensor, kind, round_scales)
    writer.add_tensor(f"{tensor.name}.weight", data, raw_dtype=_type_of(kind))
    if tensor.bias is not None:
        writer.add_tensor(f"{tensor.name}.bias", tensor.bias.detach().float().numpy())


class GgufWriting:
    """A whole file of the architecture "llama", checked, for llama.cpp.

    A layer's one scale that fp16 does not hold is stored as blocks of scale 1 and a float32 tensor
    <layer>.scale, which llama.cpp multiplies by. Versions of it that do not know such tensors refuse
    the file. It multiplies the bias too in an MLP, so such layers are refused. round_scales: rounds
    to fp16 instead.
    """

    def __init__(
        self,
        contents: Contents,
        path: Path,
        kind: str,
        round_scales: bool,
        tokenizer: Path | None,
        pre_tokenizer: str | None,
    ) -> None:
        import gguf

        self.contents, self.path, self.kind, self.rounds = contents, path, kind, round_scales
        llama = LlamaConfig(contents.config, lambda why, remedy: self._refuse(None, why, remedy))
        self.names = llama.names()
        entries = [*self._layers(), *self._others()]
        factors = llama.rope_factors()
        if factors is not None:
            entries.append(_float_entry(ROPE_FREQS, lambda: factors, tuple(factors.shape)))
        self._check_complete({entry.name for entry in entries}, llama)
        writer = gguf.GGUFWriter(None, "llama")
        writer.add_type("model")
        writer.add_name(path.stem)
        writer.add_file_type(file_type(kind))
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        llama.add_to(writer)
        add_vocabulary(
            writer, tokenizer, contents.config, pre_tokenizer,
            lambda why, remedy: self._refuse(None, why, remedy),
        )  # fmt: skip
        self.writer, self.entries = writer, entries

    def write(self, path: Path, progress: Callable[[str], None]) -> None:
        write_entries(self.writer, self.entries, path, progress)

    def _layers(self) -> Iterator[_Entry]:
        for name in self.contents.layer_names:
            facts = self.contents.facts(name)
            file_name = self._name(f"{name}.weight", facts.out_features).removesuffix(".weight")
            check(str(self.path), name, facts)
            one = facts.scale.numel() == 1
            separate = one and not self.rounds and not _is_half(facts.scale)
            if separate and facts.bias is not None and ".ffn_" in file_name:
                self._refuse(name, "fp16 does not hold its scale, and llama.cpp would multiply its bias "
                             "by it too", _EXACT)  # fmt: skip
            scale = torch.ones(1) if separate else facts.scale
            blocks = _blocks(scale, facts, self.rounds)
            if not _is_half(blocks):
                self._refuse(name, "fp16 does not hold its scales", _EXACT)
            data = self._weight_of(name, file_name, separate)
            yield ternary_entry(
                file_name, facts.out_features, facts.in_features, self.kind, data, name
            )
            if separate:
                yield _float_entry(f"{file_name}.scale", partial(facts.scale.reshape, 1), (1,))
            if facts.bias is not None:
                self._name(f"{name}.bias", facts.out_features)
                bias = self._rows(facts.bias, file_name)
                yield _float_entry(f"{file_name}.bias", partial(_itself, bias), tuple(bias.shape))

    def _weight_of(self, name: str, file_name: str, separate: bool) -> Callable[[], Any]:
        def weight() -> Any:
            tensor = self.contents.layer(name)
            if separate:
                tensor = replace(tensor, scale=torch.ones(1))
            order = self.names.file_order(file_name, tensor.out_features)
            if order is not None:
                tensor = tensor.rows(order)
            return _encoded(tensor, _blocks(tensor.scale, tensor, self.rounds), self.kind)

        return weight

    def _others(self) -> Iterator[_Entry]:
        for name in self.contents.tensor_names:
            shape = self.contents.shape(name)
            file_name = self._name(name, shape[0] if shape else 0)

            def data(name: str = name, stem: str = file_name.rpartition(".")[0]) -> Tensor:
                return self._rows(self.contents.tensor(name), stem)

            dtype = self.contents.tensor(name).dtype
            if dtype not in (torch.float32, torch.float16, torch.bfloat16):
                self._refuse(name, f"its dtype is {dtype}; float32, float16 and bfloat16 are written",
                             "Convert the model with .float() first")  # fmt: skip
            yield _float_entry(file_name, data, shape, dtype)

    def _rows(self, tensor: Tensor, stem: str) -> Tensor:
        order = self.names.file_order(stem, tensor.shape[0])
        return tensor if order is None else tensor[order]

    def _name(self, key: str, rows: int) -> str:
        found = self.names.in_file(key)
        if found is None:
            self._refuse(key, "llama.cpp reads no such tensor of a Llama", "Save it as 'tfmbs'")
        heads = self.names.heads_of(found)
        if heads is not None and rows % (2 * heads):
            self._refuse(
                key, f"its {rows} rows are no pairs of {heads} heads", "Save it as 'tfmbs'"
            )
        return found

    def _check_complete(self, has: set[str], llama: LlamaConfig) -> None:
        tied = bool(llama.config.get("tie_word_embeddings", False))
        for name in self.names.needed():
            if name not in has and not (name == "output.weight" and tied):
                self._refuse(
                    self.names.in_model(name), "the tensor is missing", "Save the whole model"
                )

    def _refuse(self, tensor: str | None, reason: str, remedy: str) -> NoReturn:
        raise CheckpointError(str(self.path), tensor, reason, remedy)


def ternary_entry(
    name: str, outputs: int, inputs: int, kind: str, data: Callable[[], Any], layer: str
) -> _Entry:
    """name: of the layer in the file. data: gives the blocks' bytes, uint8 [outputs, bytes]."""
    import numpy as np

    shape = outputs, inputs // codes.BLOCK * _fabric.ternary_block_bytes(kind)
    return _Entry(f"{name}.weight", shape, np.dtype(np.uint8), _type_of(kind), data, layer)


def stored_entry(name: str, array: Any, type: Any) -> _Entry:
    """A tensor of another GGUF, byte for byte."""
    return _Entry(name, tuple(array.shape), array.dtype, type, lambda: array)


def write_entries(
    writer: Any, entries: list[_Entry], path: Path, progress: Callable[[str], None]
) -> None:
    """Writes a GGUF, one tensor in memory at a time. writer: a gguf.GGUFWriter with metadata."""
    for entry in entries:
        size = entry.dtype.itemsize
        for length in entry.shape:
            size *= length
        writer.add_tensor_info(entry.name, entry.shape, entry.dtype, size, entry.type)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            writer.write_tensor_data(entry.data())
            if entry.layer is not None:
                progress(entry.layer)
    finally:
        writer.close()


def blocks_of_kind(kind: str, data: Tensor, new: str) -> Any:
    """The bytes of whole blocks of one kind as another."""
    if kind == new:
        return data.numpy()
    trits, scales = codes.unpack_blocks(kind, data)
    return codes.pack_blocks(new, trits, scales).numpy()


def blocks_of(file: str, tensor: TernaryTensor, kind: str, rounds: bool) -> Any:
    """The bytes of a layer's blocks. Raises CheckpointError for what they do not hold."""
    check(file, tensor.name, LayerFacts.of(tensor))
    try:
        return _encoded(tensor, _blocks(tensor.scale, tensor, rounds), kind)
    except ArgumentError as error:
        raise CheckpointError(file, f"{tensor.name}.weight", str(error), _EXACT) from error


def check(file: str, name: str, facts: LayerFacts) -> None:
    """Raises CheckpointError for a layer that blocks do not hold, whatever its scales."""

    def refuse(reason: str, remedy: str) -> None:
        raise CheckpointError(file, f"{name}.weight", reason, remedy)

    if facts.in_features % codes.BLOCK:
        refuse(f"its {facts.in_features} inputs are no multiple of {codes.BLOCK}",
               "Keep the layer in floats, or save it as 'tfmbs'")  # fmt: skip
    if facts.group_size not in (None, codes.BLOCK):
        refuse(
            f"its scales are of {facts.group_size} inputs, not {codes.BLOCK}", "Save it as 'tfmbs'"
        )
    if facts.rms_norm_eps is not None:
        refuse("GGUF has no norm of a layer's input", "Save it as 'tfmbs' or 'bitnet'")
    if facts.activation != "int8":
        refuse(f"GGUF has no {facts.activation} activations", "Save it as 'tfmbs'")


def _blocks(scale: Tensor, of: LayerFacts | TernaryTensor, rounds: bool) -> Tensor:
    """A scale a block, [outputs, inputs / 256]."""
    rows = scale if of.group_size is not None else scale.reshape(-1, 1)
    blocks = rows.expand(of.out_features, of.in_features // codes.BLOCK).contiguous()
    return blocks.half().float() if rounds else blocks


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _is_half(values: Tensor) -> bool:
    return bool(torch.isfinite(values.half()).all()) and torch.equal(values.half().float(), values)


def _encoded(tensor: TernaryTensor, blocks: Tensor, kind: str) -> Any:
    return codes.pack_blocks(kind, tensor.trits, blocks).numpy()


def _type_of(kind: str) -> Any:
    import gguf

    return gguf.GGMLQuantizationType[kind.upper()]


def file_type(kind: str) -> int:
    import gguf

    return int(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])


def _float_entry(
    name: str,
    tensor: Callable[[], Tensor],
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> _Entry:
    """Vectors as float32, which llama.cpp computes with; matrices in their own dtype."""
    import gguf
    import numpy as np

    if len(shape) == 1:
        dtype = torch.float32

    def data() -> Any:
        made = tensor().detach().to(dtype).contiguous()
        return made.view(torch.int16 if dtype == torch.bfloat16 else dtype).numpy()

    if dtype == torch.bfloat16:
        return _Entry(name, shape, np.dtype(np.int16), gguf.GGMLQuantizationType.BF16, data)
    return _Entry(name, shape, np.dtype(str(dtype).removeprefix("torch.")), None, data)
