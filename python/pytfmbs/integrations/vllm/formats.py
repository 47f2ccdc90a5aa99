"""How checkpoints store a ternary layer: names of tensors, and trits and scales out of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ... import _fabric
from ...checkpoints import codes
from ...nn.packed import GROUP_SIZES
from ...quantization.quantizers import BUILT_IN

_ACTIVATIONS = ("int8", "ternary")


@dataclass(frozen=True)
class Format:
    """A way to store layers. ``weight`` and ``scale`` name a layer's tensors; scale None: the scales
    come with the weight."""

    activation: str = "int8"
    group_size: int | None = None
    bias_is_scaled: bool = False  # the layer multiplies its bias by its scale as well

    @property
    def weight(self) -> str:
        raise NotImplementedError

    @property
    def scale(self) -> str | None:
        raise NotImplementedError

    def trits(self, stored: Tensor, outputs: int, inputs: int) -> tuple[Tensor, Tensor | None]:
        """int8 [outputs, inputs], and scales where they come with the weight. Raises ValueError,
        EncodingError."""
        raise NotImplementedError

    def scales(self, stored: Tensor) -> Tensor:
        """float32: [1], [outputs], or with a group size [outputs, groups]."""
        return stored.to(torch.float32)


@dataclass(frozen=True)
class OwnFormat(Format):
    """Row-aligned PT-5, or the float weight of a layer that trains on."""

    quantizer: str | None = None

    @classmethod
    def of(cls, name: str, entry: dict[str, Any]) -> OwnFormat:
        activation, group = entry.get("activation"), entry.get("group_size")
        quantizer = entry.get("weight_quantizer")
        if "rms_norm_eps" in entry:
            raise ValueError(
                f"layer {name!r} has a norm of its input: norms inside linear layers are not served"
            )
        if (
            activation not in _ACTIVATIONS
            or group not in (None, *GROUP_SIZES)
            or quantizer not in (None, *BUILT_IN)
        ):
            raise ValueError(f"config.json: the entry of layer {name!r} is {entry!r}")
        return cls(activation, group, quantizer=quantizer)

    @property
    def weight(self) -> str:
        return "packed" if self.quantizer is None else "weight"

    @property
    def scale(self) -> str | None:
        return "scale" if self.quantizer is None else None

    def trits(self, stored: Tensor, outputs: int, inputs: int) -> tuple[Tensor, Tensor | None]:
        if self.quantizer is not None:
            return _quantized(stored, self.quantizer, outputs, inputs)
        row = -(-inputs // _fabric.TRITS_PER_BYTE)
        if stored.dtype != torch.uint8 or tuple(stored.shape) != (outputs, row):
            raise ValueError(
                f"it is {stored.dtype} of shape {tuple(stored.shape)}; uint8 of shape "
                f"{(outputs, row)} is needed"
            )
        return unpack_rows(stored, inputs), None


@dataclass(frozen=True)
class BitNetFormat(Format):
    """transformers' ``bitnet``: strided codes, trits of a float dtype, or float weights (online)."""

    divides: bool = True
    online: bool = False

    @classmethod
    def of(cls, config: dict[str, Any]) -> BitNetFormat:
        kind = config.get("linear_class", "bitlinear")
        mode = config.get("quantization_mode", "offline")
        if kind not in ("bitlinear", "autobitlinear") or mode not in ("offline", "online"):
            raise ValueError(
                f"quantization_config has linear_class {kind!r} and quantization_mode {mode!r}; "
                "bitlinear and autobitlinear, offline and online are read"
            )
        online = kind == "autobitlinear" and mode == "online"
        multiplies = kind == "autobitlinear" and not online
        return cls(bias_is_scaled=multiplies, divides=kind == "bitlinear", online=online)

    @property
    def weight(self) -> str:
        return "weight"

    @property
    def scale(self) -> str | None:
        return None if self.online else "weight_scale"

    def trits(self, stored: Tensor, outputs: int, inputs: int) -> tuple[Tensor, Tensor | None]:
        if self.online:
            return _quantized(stored, "absmean", outputs, inputs)
        if stored.dtype == torch.uint8:
            rows = -(-outputs // codes.ROWS_A_BYTE)
            if tuple(stored.shape) != (rows, inputs):
                raise ValueError(
                    f"it is of shape {tuple(stored.shape)}; {outputs} x {inputs} weights are packed "
                    f"as {(rows, inputs)}"
                )
            return codes.unpack_strided(stored, outputs), None
        _check_floats(stored, outputs, inputs)
        trits = stored.to(torch.int8)
        if self.divides or not torch.equal(trits.to(stored.dtype), stored) or trits.abs().max() > 1:
            raise ValueError(f"it is {stored.dtype}, and holds values other than −1, 0 and +1")
        return trits, None

    def scales(self, stored: Tensor) -> Tensor:
        if stored.numel() != 1:
            raise ValueError(f"its shape is {tuple(stored.shape)}; one scale is needed")
        scale = stored.to(torch.float32).reshape(1)
        if self.divides:
            scale = 1 / scale
        if not 0 < float(scale) < math.inf:
            raise ValueError(f"it gives the scale {float(scale)}; above 0 and finite is needed")
        return scale


def _check_floats(stored: Tensor, outputs: int, inputs: int) -> None:
    if not stored.dtype.is_floating_point or tuple(stored.shape) != (outputs, inputs):
        raise ValueError(
            f"it is {stored.dtype} of shape {tuple(stored.shape)}; floats of shape "
            f"{(outputs, inputs)} are needed"
        )


def _quantized(
    stored: Tensor, quantizer: str, outputs: int, inputs: int
) -> tuple[Tensor, Tensor | None]:
    _check_floats(stored, outputs, inputs)
    values = stored.to(torch.float32)
    if not bool(torch.isfinite(values).all()):
        raise ValueError("it holds values that are not finite")
    trits, scale = BUILT_IN[quantizer](values)
    return trits, scale.to(torch.float32).reshape(-1)


def unpack_rows(packed: Tensor, inputs: int) -> Tensor:
    """The trits, int8 [rows, inputs], of rows of PT-5. Raises EncodingError."""
    wide = codes.empty_trits(packed.shape[0], packed.shape[1] * _fabric.TRITS_PER_BYTE)
    _fabric.unpack_pt5_into(packed.contiguous().view(-1).numpy(), wide.view(-1).numpy())
    return wide[:, :inputs]


def pack_rows(trits: Tensor) -> Tensor:
    """And back: uint8 [rows, ceil(inputs / 5)]."""
    outputs, inputs = trits.shape
    row = -(-inputs // _fabric.TRITS_PER_BYTE)
    if row * _fabric.TRITS_PER_BYTE != inputs:
        wide = torch.zeros(outputs, row * _fabric.TRITS_PER_BYTE, dtype=torch.int8)
        wide[:, :inputs] = trits
        trits = wide
    packed = torch.empty(outputs, row, dtype=torch.uint8)
    _fabric.pack_pt5_into(trits.contiguous().view(-1).numpy(), packed.view(-1).numpy())
    return packed
