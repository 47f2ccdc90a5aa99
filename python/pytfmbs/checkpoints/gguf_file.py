"""GGUF files with TQ1_0 and TQ2_0 weights. Opened by the ``gguf`` package, memory-mapped."""

from __future__ import annotations

import math
import mmap
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import CheckpointError, EncodingError
from . import codes
from .gguf_header import HeaderError, TensorInfo, misplaced, read_header
from .reader import Checkpoint
from .tensors import TernaryTensor

_AGAIN = "Download or convert it again"
_TQ2 = "Convert the original model to TQ2_0, or load its safetensors"
#: Types that hold ternary weights and are not read, by number: name, why, what to do.
REFUSED = {
    36: ("I2_S", "the file does not say whether its blocks hold 128 weights (x86) or 64 (ARM)", _TQ2),
    42: ("Q2_0", "files of this type have groups of 64 or of 128 weights, and may hold +2", _TQ2),
    142: ("PQ2_0", "its weights are rotated by a Hadamard matrix, which is not undone", _TQ2),
    143: ("PTQ1_0", "its weights are rotated by a Hadamard matrix, which is not undone", _TQ2),
}  # fmt: skip
#: Metadata that says that weights are rotated.
_ROTATED = "prism.hadamard."


class GgufCheckpoint(Checkpoint):
    """Names are GGUF's: blk.0.attn_q, …"""

    format = "gguf"

    def __init__(self, path: Path) -> None:
        import gguf

        self.path = path
        self._check_header(gguf)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # NumPy's, of values that a damaged header has
                reader = gguf.GGUFReader(path)
        except Exception as error:
            self._refuse(None, f"the gguf package cannot read it: {error}", cause=error)
        self.metadata: dict[str, Any] = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self._kinds = {
            name: tensor.tensor_type.name.lower() for name, tensor in self._tensors.items()
        }
        self.layer_names = []
        for name, kind in self._kinds.items():
            if kind not in ("tq1_0", "tq2_0"):
                continue
            if not name.endswith(".weight") or len(self._tensors[name].shape) != 2:
                self._refuse(
                    name,
                    "ternary weights that are no matrix of a linear layer",
                    "Convert it to F16",
                )
            self.layer_names.append(name.removesuffix(".weight"))
        own = {f"{n}.{part}" for n in self.layer_names for part in ("weight", "bias", "scale")}
        self.tensor_names = [name for name in self._tensors if name not in own]

    @property
    def file(self) -> str:
        return str(self.path)

    def value(self, key: str) -> Any:
        """Metadata, or None where there is none."""
        field = self.metadata.get(key)
        return None if field is None else field.contents()

    def tensor(self, name: str) -> Tensor:
        """In its own dtype where it is F32, F16 or F64; else dequantized to float32."""
        import gguf

        if name not in self._tensors:
            self._refuse(name, "the tensor is missing")
        found = self._tensors[name]
        if self._kinds[name] in ("f32", "f16", "f64"):
            return _tensor_of(found.data)
        try:
            return _tensor_of(gguf.quants.dequantize(found.data, found.tensor_type))
        except Exception as error:
            self._refuse(name, f"the gguf package cannot read it: {error}", cause=error)

    def layer(self, name: str, out_features: int | None = None) -> TernaryTensor:
        weight = f"{name}.weight"
        if name not in self.layer_names:
            self._refuse(weight, "the checkpoint has no such ternary layer")
        data = _tensor_of(self._tensors[weight].data)
        if out_features not in (None, data.shape[0]):
            self._refuse(weight, f"it has {data.shape[0]} outputs, not {out_features}")
        try:
            trits, blocks = codes.unpack_blocks(self._kinds[weight], data)
        except EncodingError as error:
            self._refuse(weight, str(error), offset=error.offset, cause=error)
        scale, group = _common_scale(trits, blocks)
        if f"{name}.scale" in self._tensors:
            scale = scale * self._floats(f"{name}.scale", 1)
        bias = None
        if f"{name}.bias" in self._tensors:
            bias = self._floats(f"{name}.bias", data.shape[0])
        return TernaryTensor(name, trits, scale, bias, group)

    def names(self) -> list[str]:
        """All tensors, in the file's order."""
        return list(self._tensors)

    def has(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the values, inputs last."""
        return tuple(int(n) for n in reversed(self._tensors[name].shape))

    def stored(self, name: str) -> tuple[Any, Any]:
        """A tensor's bytes as a NumPy array, and gguf's type of them."""
        return self._tensors[name].data, self._tensors[name].tensor_type

    def _floats(self, name: str, size: int) -> Tensor:
        found = self.tensor(name)
        if tuple(found.shape) != (size,) or not bool(torch.isfinite(found).all()):
            self._refuse(
                name, f"its shape is {tuple(found.shape)}; {size} finite values are needed"
            )
        return found

    def _check_header(self, gguf: Any) -> None:
        """Refuses what the gguf package would trust, or not know."""
        try:
            with (
                self.path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                header, size = read_header(data), len(data)
        except (OSError, ValueError) as error:
            offset = error.offset if isinstance(error, HeaderError) else None
            self._refuse(None, str(error), offset=offset, cause=error)
        for info in header.tensors:
            if info.type in REFUSED:
                name, reason, remedy = REFUSED[info.type]
                self._refuse(info.name, f"its type is {name}: {reason}", remedy)
            if info.type not in {*gguf.GGMLQuantizationType}:
                self._refuse(info.name, f"its type {info.type} is unknown", _TQ2)
            block, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(info.type)]
            if info.shape[-1] % block:
                self._refuse(info.name, f"its rows of {info.shape[-1]} are no blocks of {block}")
        for key in header.keys:
            if key.startswith(_ROTATED):
                self._refuse(
                    None, f"{key} says that its weights are rotated, which is not undone", _TQ2
                )

        def size_of(info: TensorInfo) -> int:
            block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(info.type)]
            return math.prod(info.shape) // block * nbytes  # type: ignore[no-any-return]

        wrong = misplaced(header, size, size_of)
        if wrong is not None:
            self._refuse(*wrong)

    def _refuse(
        self,
        tensor: str | None,
        reason: str,
        remedy: str = _AGAIN,
        offset: int | None = None,
        cause: Exception | None = None,
    ) -> NoReturn:
        raise CheckpointError(str(self.path), tensor, reason, remedy, offset) from cause


def _tensor_of(array: Any) -> Tensor:
    """A view of an array, which is only read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the array is read-only
        return torch.from_numpy(array)


def _common_scale(trits: Tensor, blocks: Tensor) -> tuple[Tensor, int | None]:
    """Scale and group size: one scale where all blocks with weights other than 0 agree, one an output
    where each output's do, else one a block."""
    outputs, count = blocks.shape
    used = trits.view(outputs, count, codes.BLOCK).any(dim=2)
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
    return blocks, codes.BLOCK
