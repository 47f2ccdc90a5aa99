"""transformers' checkpoints of ``quant_method: bitnet``.

| linear_class | quantization_mode | weight | scale |
| --- | --- | --- | --- |
| bitlinear | – | strided codes | divides by ``weight_scale`` |
| autobitlinear | offline | strided codes, or trits of a float dtype | multiplies by ``weight_scale``, the bias too |
| autobitlinear | online | float weights | their absmean |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import EncodingError
from ..quantization.quantizers import AbsMeanQuantizer
from . import codes
from .files import TensorFiles
from .modules import is_kept
from .reader import Checkpoint
from .tensors import TernaryTensor

#: Names of ternary layers, or a function of modules_to_not_convert that gives them.
Linears = Collection[str] | Callable[[Collection[str] | None], Collection[str]]
_CONFIG = "quantization_config"
_ABOUT = "See docs/checkpoints.md for the options that are read"


@dataclass(frozen=True)
class BitNetOptions:
    """The ``quantization_config`` of a config.json."""

    linear_class: str
    online: bool
    rms_norm_eps: float | None  # None: no norm
    modules_to_not_convert: tuple[str, ...] | None

    @classmethod
    def of(cls, files: TensorFiles) -> BitNetOptions:
        config = files.config[_CONFIG]
        linear_class = config.get("linear_class", "bitlinear")
        mode = config.get("quantization_mode", "offline")
        norm = config.get("use_rms_norm", False)
        eps = config.get("rms_norm_eps", 1e-6)
        kept = config.get("modules_to_not_convert")
        _check(files, "linear_class", linear_class, linear_class in ("bitlinear", "autobitlinear"))
        _check(files, "quantization_mode", mode, mode in ("offline", "online"))
        _check(files, "use_rms_norm", norm, isinstance(norm, bool))
        if norm:
            valid = isinstance(eps, (int, float)) and math.isfinite(eps) and eps >= 0
            _check(files, "rms_norm_eps", eps, valid)
        is_names = isinstance(kept, list) and all(isinstance(name, str) for name in kept)
        _check(files, "modules_to_not_convert", kept, kept is None or is_names)
        return cls(
            linear_class,
            linear_class == "autobitlinear" and mode == "online",
            float(eps) if norm else None,
            None if kept is None else tuple(kept),
        )


def _check(files: TensorFiles, option: str, value: Any, valid: bool) -> None:
    if not valid:
        raise files.error(None, f"config.json: {_CONFIG}.{option} is {value!r}", _ABOUT)


class BitNetCheckpoint(Checkpoint):
    """linears: the ternary layers of an online checkpoint, which does not name them itself."""

    format = "bitnet"

    def __init__(self, files: TensorFiles, linears: Linears | None = None) -> None:
        self.files = files
        self.options = BitNetOptions.of(files)
        names = files.names()
        kept = self.options.modules_to_not_convert
        try:
            if self.options.online:
                if linears is None:
                    self._refuse(
                        None,
                        "it quantizes online, and does not say which weights are ternary",
                        "Pass linears, or read it with load_into",
                    )
                self.layer_names = list(linears(kept) if callable(linears) else linears)
            else:
                self.layer_names = [
                    name.removesuffix(".weight_scale")
                    for name in names
                    if name.endswith(".weight_scale")
                ]
                for name in self.layer_names:
                    if is_kept(name, kept or ()):
                        self._refuse(
                            f"{name}.weight_scale",
                            "the layer has a scale, and modules_to_not_convert names it",
                            "Remove it there, or the scale",
                        )
        except re.error as error:
            self._refuse(None, f"modules_to_not_convert is {kept!r}: {error}", _ABOUT)
        layers = set(self.layer_names)
        own = {f"{layer}.{part}" for layer in layers for part in ("weight", "weight_scale", "bias")}
        if self.options.rms_norm_eps is not None:
            own |= {f"{layer}.rms_norm.weight" for layer in layers}
        self.tensor_names = [name for name in names if name not in own]
        for name in self.tensor_names:
            if name.endswith(".rms_norm.weight"):
                self._refuse(name, "the configuration has no use_rms_norm, or its layer no scale",
                             "Set use_rms_norm, or remove the tensor")  # fmt: skip
            if name.endswith(".weight") and files.dtype(name) == "U8":
                self._refuse(name, "the weight is packed, and has no weight_scale",
                             "Download or save it again")  # fmt: skip

    @property
    def file(self) -> str:
        return str(self.files.path)

    def tensor(self, name: str) -> Tensor:
        return self.files.tensor(name)

    def forget(self) -> None:
        self.files.forget()

    def layer(self, name: str, out_features: int | None = None) -> TernaryTensor:
        weight = f"{name}.weight"
        shape, dtype = self.files.shape(weight), self.files.dtype(weight)
        if len(shape) != 2 or 0 in shape:
            self._refuse(weight, f"its shape is {shape}; a matrix is needed")
        scale: Tensor | None = None
        if self.options.online:
            trits, scale = self._absmean(weight)
        elif dtype == "U8":
            trits = self._unpacked(weight, shape, out_features)
        elif self.options.linear_class == "autobitlinear":
            trits = self._stored_trits(weight)
        else:
            self._refuse(weight, f"its dtype is {dtype}; a BitLinear's is U8, four trits a byte")
        outputs, inputs = trits.shape
        if out_features not in (None, outputs):
            self._refuse(weight, f"it has {outputs} outputs, and {out_features} were asked for")
        multiplies = scale is None and self.options.linear_class == "autobitlinear"
        if scale is None:
            scale = self._scale(name)
        bias = None
        if f"{name}.bias" in self.files:
            bias = self.files.floats(f"{name}.bias", (outputs,))
            if multiplies:
                bias = bias.to(torch.float32) * scale
        norm, eps = None, self.options.rms_norm_eps
        if eps is not None:
            norm = self.files.floats(f"{name}.rms_norm.weight", (inputs,))
        return TernaryTensor(name, trits, scale, bias, rms_norm=norm, rms_norm_eps=eps)

    def _unpacked(self, weight: str, shape: tuple[int, ...], out_features: int | None) -> Tensor:
        rows = shape[0]
        bias = weight.removesuffix("weight") + "bias"
        if out_features is None and bias in self.files:
            out_features = math.prod(self.files.shape(bias))
        outputs = rows * codes.ROWS_A_BYTE if out_features is None else out_features
        if -(-outputs // codes.ROWS_A_BYTE) != rows:
            self._refuse(weight, f"its {rows} packed rows do not hold {outputs} outputs")
        try:
            trits = codes.unpack_strided(self.files.tensor(weight), outputs)
        except EncodingError as error:
            self._refuse(weight, str(error), "Download or save it again", error.offset)
        if out_features is None and bool((trits[-1] == -1).all()):
            # Code 0, which pads, is −1.
            self._refuse(
                weight,
                "its last output may be padding: all its codes are 0",
                "Pass out_features, or read it with load_into",
            )
        return trits

    def _stored_trits(self, weight: str) -> Tensor:
        values = self.files.floats(weight, self.files.shape(weight))
        trits = values.to(torch.int8)
        valid = (trits.to(values.dtype) == values) & (trits >= -1) & (trits <= 1)
        if not bool(valid.all()):
            first = int((~valid).reshape(-1).to(torch.uint8).argmax())
            self._refuse(
                weight,
                f"value {values.reshape(-1)[first]} at index {first} is no trit (−1, 0 or +1)",
                "If these are weights before quantization, quantization_mode must be 'online'",
                first * values.element_size(),
            )
        return trits

    def _absmean(self, weight: str) -> tuple[Tensor, Tensor]:
        values = self.files.floats(weight, self.files.shape(weight)).to(torch.float32)
        if not bool(torch.isfinite(values).all()):
            self._refuse(weight, "it holds values that are not finite")
        trits, scale = AbsMeanQuantizer()(values)
        return trits, scale.to(torch.float32).reshape(1)

    def _scale(self, name: str) -> Tensor:
        key = f"{name}.weight_scale"
        shape = self.files.shape(key)
        if math.prod(shape) != 1 or len(shape) > 2:
            self._refuse(key, f"its shape is {shape}; one scale is needed")
        scale = self.files.floats(key, shape).to(torch.float32).reshape(1)
        if self.options.linear_class == "bitlinear":
            scale = 1 / scale
        if not 0 < float(scale) < math.inf:
            self._refuse(key, f"it gives the scale {float(scale)}; above 0 and finite is needed")
        return scale

    def _refuse(
        self,
        tensor: str | None,
        reason: str,
        remedy: str = "Download or save it again",
        offset: int | None = None,
    ) -> NoReturn:
        raise self.files.error(tensor, reason, remedy, offset)
