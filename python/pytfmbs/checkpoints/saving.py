"""Writers: our own checkpoints, transformers' packed BitNet, and GGUF tensors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, CheckpointError
from ..nn.bitnet import BitNetLinear, BitNetPackedLinear
from ..nn.fabric_layer import FabricLayer
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from . import codes
from .files import INDEX
from .modules import is_kept, places
from .own import METHOD, VERSION
from .tensors import TernaryTensor

_WRITTEN = (TFMBSLinear, TFMBSPackedLinear, BitNetLinear, BitNetPackedLinear)


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    format: str = "tfmbs",
    linear_class: str | None = None,
    round_scales: bool = False,
    max_shard_bytes: int = 5 << 30,
) -> None:
    """Writes a model with ternary layers to a folder: safetensors and config.json.

    format: "tfmbs" (row-aligned PT-5, any scales), or "bitnet", which transformers loads by itself.
    linear_class: of "bitnet": "bitlinear", "autobitlinear", or None for the first of the two that
        holds every number exactly. round_scales: writes scales and biases that the format does not
        hold exactly, rounded to float32. max_shard_bytes: of a file.

    Raises CheckpointError, by the layer's name, for what the format does not hold; ArgumentError for
    a format that does not exist. Nothing is written then.
    """
    if format not in ("tfmbs", "bitnet"):
        raise ArgumentError(f"format is {format!r}; allowed are 'tfmbs' and 'bitnet'")
    folder = Path(path)
    layers = written_layers(model, folder)
    config = _model_config(model)
    if format == "tfmbs":
        entries = {name: own_entry(layer) for name, layer in layers.items()}
        config["quantization_config"] = {
            "quant_method": METHOD, "version": VERSION, "layers": entries,
        }  # fmt: skip
        tensors = own_tensors(layers)
    else:
        writer = _BitNet(model, folder, layers, linear_class, round_scales)
        config["quantization_config"] = writer.config()
        tensors = writer.tensors()
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("model-*-of-*.safetensors"), folder / INDEX]:
        old.unlink(missing_ok=True)
    _write_shards(folder, _all(tensors, model, layers), max_shard_bytes)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def add_gguf_tensor(
    writer: Any, tensor: TernaryTensor, *, kind: str = "tq2_0", round_scales: bool = False
) -> None:
    """Adds a ternary layer to a gguf.GGUFWriter, weight and bias, under the tensor's name.

    kind: "tq2_0" or "tq1_0". round_scales: scales that fp16 does not hold are rounded to it.
    Raises CheckpointError for scales that fp16 does not hold, groups of other than 256 inputs,
    inputs that are no multiple of 256, a norm, and ternary activations.
    """
    import gguf

    file = str(getattr(writer, "path", None) or "GGUF")

    def refuse(reason: str, remedy: str) -> None:
        raise CheckpointError(file, f"{tensor.name}.weight", reason, remedy)

    outputs, inputs = tensor.trits.shape
    if inputs % codes.BLOCK:
        refuse(f"its {inputs} inputs are no multiple of {codes.BLOCK}", "Keep the layer in F16")
    if tensor.group_size not in (None, codes.BLOCK):
        refuse(f"its scales are of {tensor.group_size} inputs, not {codes.BLOCK}", "Save it as 'tfmbs'")  # fmt: skip
    if tensor.rms_norm is not None:
        refuse("GGUF has no norm of a layer's input", "Save it as 'tfmbs' or 'bitnet'")
    if tensor.activation != "int8":
        refuse("GGUF has no ternary activations", "Save it as 'tfmbs'")
    scale = tensor.scale if tensor.group_size is not None else tensor.scale.reshape(-1, 1)
    blocks = scale.expand(outputs, inputs // codes.BLOCK).contiguous()
    if round_scales:
        blocks = blocks.half().float()
    try:
        data = codes.pack_blocks(kind, tensor.trits, blocks)
    except ArgumentError as error:
        refuse(str(error), "Pass round_scales=True, or save it as 'tfmbs'")
    types = {"tq1_0": gguf.GGMLQuantizationType.TQ1_0, "tq2_0": gguf.GGMLQuantizationType.TQ2_0}
    writer.add_tensor(f"{tensor.name}.weight", data.numpy(), raw_dtype=types[kind])
    if tensor.bias is not None:
        writer.add_tensor(f"{tensor.name}.bias", tensor.bias.detach().float().numpy())


def ternary_tensor(name: str, layer: FabricLayer) -> TernaryTensor:
    """What a checkpoint holds of a ternary layer."""
    assert isinstance(layer, (TFMBSLinear, TFMBSPackedLinear))
    trits, scale = layer.quantized_weight()
    norm, eps = _norm(layer)
    bias = None if layer.bias is None else layer.bias.detach()
    group = layer.group_size if isinstance(layer, TFMBSPackedLinear) else None
    return TernaryTensor(
        name, trits, scale.to(torch.float32), bias, group, layer.activation, norm, eps
    )


def _norm(layer: FabricLayer) -> tuple[Tensor | None, float | None]:
    norm = getattr(layer, "rms_norm", None)
    if norm is None:
        return None, None
    eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))  # ours, transformers'
    return norm.weight.detach(), eps


def written_layers(model: nn.Module, folder: Path) -> dict[str, FabricLayer]:
    """The ternary layers of a model. Raises CheckpointError for one that no format of ours holds."""
    found: dict[str, FabricLayer] = {}
    for name, module in model.named_modules():
        if not isinstance(module, FabricLayer):
            continue
        if type(module) not in _WRITTEN or not name:
            kind = type(module).__name__
            reason = (
                f"a {kind} is not written" if name else "the model is one layer, without a name"
            )
            raise CheckpointError(str(folder), name, reason, "Put TFMBSLinear into a model instead")
        if isinstance(module, TFMBSLinear) and not module.has_float32_scales():
            raise CheckpointError(
                str(folder), name, "its scales are float64", "Convert the model with .float() first"
            )
        found[name] = module
    return found


def _model_config(model: nn.Module) -> dict[str, Any]:
    """A transformers model's configuration, without an earlier quantization's."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_json_string"):
        return {}
    made: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return {**made, "architectures": [type(model).__name__]}


def own_entry(layer: FabricLayer) -> dict[str, Any]:
    """What config.json says of a layer that is written packed."""
    entry: dict[str, Any] = {"in_features": layer.in_features, "activation": layer.activation}
    if isinstance(layer, TFMBSPackedLinear) and layer.group_size is not None:
        entry["group_size"] = layer.group_size
    eps = _norm(layer)[1]
    return entry if eps is None else {**entry, "rms_norm_eps": eps}


def own_tensors(layers: dict[str, FabricLayer]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of layers that are written packed, with their names."""
    for name, layer in layers.items():
        packed: Any = layer
        if isinstance(layer, TFMBSLinear):
            packed = ternary_tensor(name, layer).packed_layer()
        yield f"{name}.packed", packed.packed
        yield f"{name}.scale", packed.scale.clone()
        if packed.bias is not None:
            yield f"{name}.bias", packed.bias.detach()
        norm = _norm(layer)[0]
        if norm is not None:
            yield f"{name}.rms_norm.weight", norm


class _BitNet:
    """transformers' packed layout. Raises CheckpointError for what it does not hold."""

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        layers: dict[str, FabricLayer],
        linear_class: str | None,
        round_scales: bool,
    ) -> None:
        self.folder, self.layers, self.rounds = folder, layers, round_scales
        if linear_class not in (None, "bitlinear", "autobitlinear"):
            raise ArgumentError(
                f"linear_class is {linear_class!r}; allowed are 'bitlinear' and 'autobitlinear'"
            )
        self.kept = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name not in layers
        ]
        self.eps = {_norm(layer)[1] for layer in layers.values()}
        for name, layer in layers.items():
            self._check(name, layer)
        if linear_class is None:
            exact = all(_divisor(self._scale(layer)) is not None for layer in layers.values())
            linear_class = "bitlinear" if exact else "autobitlinear"
        self.divides = linear_class == "bitlinear"
        for name, layer in layers.items():
            self._scale_and_bias(name, layer)

    def config(self) -> dict[str, Any]:
        eps = next(iter(self.eps), None)
        return {
            "quant_method": "bitnet",
            "linear_class": "bitlinear" if self.divides else "autobitlinear",
            "quantization_mode": "offline",
            "modules_to_not_convert": self.kept,
            **({} if eps is None else {"use_rms_norm": True, "rms_norm_eps": eps}),
        }

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, layer in self.layers.items():
            scale, bias = self._scale_and_bias(name, layer)
            yield f"{name}.weight", codes.pack_strided(ternary_tensor(name, layer).trits)
            yield f"{name}.weight_scale", scale
            if bias is not None:
                yield f"{name}.bias", bias
            norm = _norm(layer)[0]
            if norm is not None:
                yield f"{name}.rms_norm.weight", norm

    def _check(self, name: str, layer: Any) -> None:
        scale = self._scale(layer)
        if scale.numel() != 1 or not 0 < float(scale) < float("inf"):
            self._refuse(
                name, f"it has scales of shape {tuple(scale.shape)}; BitNet has one, above 0"
            )
        if layer.activation != "int8":
            self._refuse(name, f"its activations are {layer.activation!r}; BitNet's are 'int8'")
        if layer.out_features % codes.ROWS_A_BYTE:
            self._refuse(
                name, f"transformers loads no packed layer of {layer.out_features} outputs: they are "
                f"no multiple of {codes.ROWS_A_BYTE}"
            )  # fmt: skip
        if len(self.eps) > 1:
            self._refuse(name, f"BitNet layers have one eps of their norms, or none: {self.eps}")
        if is_kept(name, [re.escape(kept) for kept in self.kept]) or any(
            name.endswith(kept) for kept in self.kept
        ):
            self._refuse(name, "transformers would take it for a layer that stays float: its name "
                         "begins or ends as that one's")  # fmt: skip

    @staticmethod
    def _scale(layer: Any) -> Tensor:
        packed = isinstance(layer, TFMBSPackedLinear)
        scale: Tensor = layer.scale if packed else layer.quantized_weight()[1]
        return scale.detach().to(torch.float32)

    def _scale_and_bias(self, name: str, layer: Any) -> tuple[Tensor, Tensor | None]:
        scale = self._scale(layer).reshape(1)
        bias = None if layer.bias is None else layer.bias.detach()
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

    def _refuse(self, name: str, reason: str, remedy: str = "Save it as 'tfmbs'") -> None:
        raise CheckpointError(str(self.folder), name, reason, remedy)


def _divisor(scale: Tensor) -> Tensor | None:
    """A float32 whose reciprocal in float32 is the scale, or None where there is none."""
    near = 1 / scale
    infinity = torch.tensor(torch.inf)
    for candidate in (near, torch.nextafter(near, -infinity), torch.nextafter(near, infinity)):
        if torch.equal(1 / candidate, scale):
            return candidate.reshape(1)
    return None


def _all(
    tensors: Iterator[tuple[str, Tensor]], model: nn.Module, layers: dict[str, FabricLayer]
) -> Iterator[tuple[str, Tensor]]:
    """With the model's other tensors, shared ones under their first name."""
    yield from tensors
    seen: set[int] = set()
    for place in places(model, layers):
        if id(place.tensor) not in seen:
            seen.add(id(place.tensor))
            yield place.key, place.tensor.detach().contiguous()


def _write_shards(folder: Path, tensors: Iterator[tuple[str, Tensor]], limit: int) -> None:
    """model.safetensors, or shards and their index."""
    from safetensors.torch import save_file

    shards: list[dict[str, int]] = []
    held: dict[str, Tensor] = {}
    part = "model-part-{}.safetensors"

    def write() -> None:
        save_file(held, folder / part.format(len(shards)), metadata={"format": "pt"})
        shards.append({name: tensor.nbytes for name, tensor in held.items()})
        held.clear()

    size = 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > limit:
            write()
            size = 0
        held[name] = tensor
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
