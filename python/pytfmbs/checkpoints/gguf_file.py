"""GGUF files with TQ1_0, TQ2_0, Q2_0 and I2_S weights, memory-mapped. The gguf package dequantizes
what is not ternary; its reader does not know the types Q2_0 and I2_S."""

from __future__ import annotations

import math
import mmap
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import CheckpointError, EncodingError
from . import codes, gguf_types
from .gguf_header import HeaderError, TensorInfo, misplaced, read_header, read_type, read_value
from .gguf_types import Layouts, Refusal
from .reader import Checkpoint
from .tensors import TernaryTensor

_AGAIN = "Download or convert it again"


class GgufCheckpoint(Checkpoint):
    """Names are GGUF's: blk.0.attn_q, …

    i2s_block: weights per block of type I2_S, 128 or 64, which the file does not say.
    """

    format = "gguf"

    def __init__(self, path: Path, i2s_block: int | None = None) -> None:
        import gguf

        self.path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._header = read_header(self._map)
            self._infos = {info.name: info for info in self._header.tensors}
            self._bytes: dict[str, int] = {}
            self._read: set[str] = set()
            self._layouts = self._check(gguf, i2s_block)
        except Refusal as refusal:
            self._refuse(
                refusal.tensor, refusal.reason, refusal.remedy, refusal.offset, refusal.__cause__
            )
        except HeaderError as error:
            self._refuse(error.tensor, str(error), offset=error.offset, cause=error)
        except (OSError, ValueError) as error:
            self._refuse(None, str(error), cause=error)
        self.layer_names = []
        for name, info in self._infos.items():
            if self._layouts.kind(info) is None:
                continue
            if not name.endswith(".weight") or len(info.shape) != 2:
                self._refuse(
                    name,
                    "ternary weights that are no matrix of a linear layer",
                    "Convert it to F16",
                )
            self.layer_names.append(name.removesuffix(".weight"))
        own = {f"{n}.{part}" for n in self.layer_names for part in ("weight", "bias", "scale")}
        self.tensor_names = [name for name in self._infos if name not in own]

    @property
    def file(self) -> str:
        return str(self.path)

    @property
    def keys(self) -> list[str]:
        """The names of the metadata."""
        return list(self._header.keys)

    def value(self, key: str) -> Any:
        """Metadata, an array as a list, or None where there is none."""
        at = self._header.keys.get(key)
        if at is None:
            return None
        try:
            return read_value(self._map, at)
        except HeaderError as error:
            self._refuse(None, str(error), offset=error.offset, cause=error)

    def type_name(self, name: str) -> str:
        """A tensor's type, as GGUF spells it; "Q2_0_G128" is Q2_0 with 128 weights per block."""
        import gguf

        info = self._info(name)
        kind = self._layouts.kind(info)
        return gguf.GGMLQuantizationType(info.type).name if kind is None else kind.upper()

    def tensor(self, name: str) -> Tensor:
        """In its own dtype where it is F32, F16, BF16 or F64; else dequantized to float32."""
        import gguf

        info = self._info(name)
        data = self._data(info)
        found = gguf_types.plain(info, data)
        if found is not None:
            return found
        kind = self._layouts.kind(info)
        if kind is not None:
            if kind.startswith("q2_0"):
                return codes.q2_values(kind, data).view(info.shape)
            return self.layer(name.removesuffix(".weight")).values()
        try:
            rows = data.view(*info.shape[:-1], -1).numpy()
            values = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(info.type))
        except Exception as error:
            self._refuse(name, f"the gguf package cannot read it: {error}", cause=error)
        return torch.from_numpy(values)

    def forget(self) -> None:
        for name in self._read:
            codes.forget_pages(self._data(self._infos[name]))
        self._read.clear()

    def layer(self, name: str, out_features: int | None = None) -> TernaryTensor:
        weight = f"{name}.weight"
        if name not in self.layer_names:
            self._refuse(weight, "the checkpoint has no such ternary layer")
        info = self._infos[weight]
        outputs, inputs = info.shape
        if out_features not in (None, outputs):
            self._refuse(weight, f"it has {outputs} outputs, not {out_features}")
        kind = self._layouts.kind(info)
        assert kind is not None
        data = self._data(info)
        try:
            if kind == "i2_s":
                trits, scale, group = self._interleaved(weight, data)
                trits = trits.view(outputs, inputs)
            else:
                trits, blocks = codes.unpack_blocks(kind, data.view(outputs, -1))
                scale, group = _common_scale(trits, blocks)
        except EncodingError as error:
            self._refuse(weight, self._place(info, error), offset=error.offset, cause=error)
        if f"{name}.scale" in self._infos:
            scale = scale * self._floats(f"{name}.scale", 1)
        bias = None
        if f"{name}.bias" in self._infos:
            bias = self._floats(f"{name}.bias", outputs)
        return TernaryTensor(name, trits, scale, bias, group)

    def names(self) -> list[str]:
        """All tensors, in the file's order."""
        return list(self._infos)

    def has(self, name: str) -> bool:
        return name in self._infos

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the values, inputs last."""
        return self._info(name).shape

    def nbytes(self, name: str) -> int:
        """What the tensor takes in the file."""
        return self._bytes[self._info(name).name]

    def value_type(self, key: str) -> list[int]:
        """GGUF's type of a value of the metadata; of an array its own and its items'."""
        return read_type(self._map, self._header.keys[key])

    def stored(self, name: str) -> tuple[Any, Any]:
        """A tensor as gguf's writer takes it: a NumPy array of numbers or of rows of bytes, and
        gguf's type. Not for Q2_0 and I2_S, which gguf does not know."""
        import gguf

        info = self._info(name)
        data = self._data(info)
        found = gguf_types.plain(info, data)
        if found is None or found.dtype == torch.bfloat16:
            found = data.view(*info.shape[:-1], -1)
        return found.numpy(), gguf.GGMLQuantizationType(info.type)

    def _interleaved(self, weight: str, data: Tensor) -> tuple[Tensor, Tensor, None]:
        """Trits and scale of an I2_S tensor, whose float32 scale follows the codes."""
        assert self._layouts.i2s is not None
        trits = codes.unpack_interleaved(data[:-4], self._layouts.i2s)
        scale = data[-4:].clone().view(torch.float32)
        if codes.is_zero(trits):
            return trits, torch.ones(1), None
        if not 0 < float(scale) < math.inf:
            self._refuse(
                weight,
                f"its scale is {float(scale)}; above 0 and finite is needed",
                offset=data.numel() - 4,
            )
        return trits, scale, None

    def _place(self, info: TensorInfo, error: EncodingError) -> str:
        """What is wrong, and which output's weights have it."""
        kind = self._layouts.kind(info)
        offset = error.offset
        if offset is None or kind is None or kind == "i2_s":
            return str(error)
        blocks = info.shape[-1] // codes.block_trits(kind)
        row, block = divmod(offset // codes.block_bytes(kind), blocks)
        first = block * codes.block_trits(kind)
        return f"{error}; output {row}, inputs {first} to {first + codes.block_trits(kind) - 1}"

    def _floats(self, name: str, size: int) -> Tensor:
        found = self.tensor(name)
        if tuple(found.shape) != (size,) or not bool(torch.isfinite(found).all()):
            self._refuse(
                name, f"its shape is {tuple(found.shape)}; {size} finite values are needed"
            )
        return found

    def _info(self, name: str) -> TensorInfo:
        if name not in self._infos:
            self._refuse(name, "the tensor is missing")
        return self._infos[name]

    def _data(self, info: TensorInfo) -> Tensor:
        """A view of a tensor's bytes."""
        self._read.add(info.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the memory is read-only
            return torch.frombuffer(
                self._map,
                dtype=torch.uint8,
                count=self._bytes[info.name],
                offset=self._header.data + info.offset,
            )

    def _check(self, gguf: Any, told: int | None) -> Layouts:
        """Raises Refusal for what is not read, and for data that is not where it must be."""
        header, size = self._header, len(self._map)
        for key in header.keys:
            if key.startswith(gguf_types.ROTATED):
                raise Refusal(None, f"{key} says that its weights are rotated, which is not undone")
        layouts = Layouts(gguf_types.q2_kind(header, size), told)
        self._bytes = {info.name: layouts.bytes_of(info, gguf) for info in header.tensors}
        wrong = misplaced(header, size, lambda info: self._bytes[info.name])
        if wrong is not None:
            raise Refusal(*wrong, _AGAIN)
        interleaved = [info for info in header.tensors if info.type == gguf_types.I2_S]
        layouts = layouts._replace(i2s=gguf_types.i2s_block(interleaved, self._data, told))
        for info in interleaved:
            layouts.bytes_of(info, gguf)  # its rows are whole blocks
        return layouts

    def _refuse(
        self,
        tensor: str | None,
        reason: str,
        remedy: str = _AGAIN,
        offset: int | None = None,
        cause: BaseException | None = None,
    ) -> NoReturn:
        raise CheckpointError(str(self.path), tensor, reason, remedy, offset) from cause


def _common_scale(trits: Tensor, blocks: Tensor) -> tuple[Tensor, int | None]:
    """Scale and group size: one scale where all blocks with weights other than 0 agree, one an output
    where each output's do, else one a block."""
    first = blocks.reshape(-1)[0]
    if bool(first != 0) and bool((blocks.numpy() == first.item()).all()):
        return first.reshape(1).clone(), None
    outputs, count = blocks.shape
    size = trits.shape[1] // count
    used = trits.view(outputs, count, size).any(dim=2)
    if not bool(used.any()):
        return torch.ones(1), None
    every = blocks[used]
    if bool((every == every[0]).all()):
        return every[:1].clone(), None
    lowest = torch.where(used, blocks, torch.inf).amin(dim=1)
    highest = torch.where(used, blocks, -torch.inf).amax(dim=1)
    some = used.any(dim=1)
    if bool((lowest == highest)[some].all()):
        return torch.where(some, lowest, 1.0), None
    return blocks, size
