"""Ternary layers of a model that transformers loads: made as their tensors arrive, put in at the end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps, WeightConverter
from transformers.quantizers.base import HfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module
from transformers.utils.quantization_config import BitNetQuantConfig

from ...checkpoints.bitnet import BitNetCheckpoint, BitNetOptions
from ...checkpoints.files import TensorFiles
from ...checkpoints.modules import is_kept
from ...checkpoints.own import OwnCheckpoint
from ...checkpoints.reader import Checkpoint
from ...conversion import bitnet
from ...conversion.choice import HEAD, Choice
from ...conversion.convert import check_groups, choose, ternary_layer
from ...conversion.freeze import freeze
from ...conversion.swap import carry_over, replace_modules
from ...errors import ArgumentError, CheckpointError, FabricError
from ...nn.bitnet import BitNetLinear, RMSNorm
from ...nn.linear import TFMBSLinear
from ...nn.parents import call_layers
from .config import TFMBSConfig

#: What a file holds of a ternary layer, after its name.
_PARTS = ("packed", "scale", "weight", "weight_scale", "bias", "rms_norm.weight")
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.uint8: "U8", torch.int8: "I8",
}  # fmt: skip


class ArrivedTensors(TensorFiles):
    """Some tensors of a checkpoint, as its readers see files."""

    def __init__(self, path: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.path = self.folder = Path(path)
        self.config = {"quantization_config": config}
        self._tensors = tensors
        self._open, self._file_of = {}, dict.fromkeys(tensors, "")

    def file_of(self, name: str | None) -> str:
        return str(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.tensor(name).shape)

    def dtype(self, name: str) -> str:
        kind = self.tensor(name).dtype
        return _DTYPES.get(kind, str(kind))

    def tensor(self, name: str) -> Tensor:
        self._require(name)
        return self._tensors[name]


class Decode(ConversionOps):
    """A ternary layer of the tensors that a ternary checkpoint has of it."""

    def __init__(self, arrivals: Arrivals, hf_quantizer: HfQuantizer) -> None:
        self.arrivals = arrivals
        self.hf_quantizer = hf_quantizer  # by which transformers knows not to cast the tensors

    def __deepcopy__(self, memo: dict[int, Any]) -> Decode:
        return self  # transformers copies it for each layer

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        *,
        full_layer_name: str = "",
        missing_keys: set[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        path = full_layer_name.removesuffix(".weight")
        parts = {_part(pattern): _one(tensors) for pattern, tensors in input_dict.items()}
        self.arrivals.decode(path, parts)
        for part in _PARTS:
            (missing_keys or set()).discard(f"{path}.{part}")
        return {}


class Quantize(ConversionOps):
    """A ternary layer of a float weight."""

    def __init__(self, arrivals: Arrivals) -> None:
        self.arrivals = arrivals

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        *,
        missing_keys: set[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        rest = {}
        for name, tensors in input_dict.items():
            if self.arrivals.quantizes(name):
                self.arrivals.quantize(name.removesuffix(".weight"), _one(tensors))
                (missing_keys or set()).discard(name)
            else:
                rest[name] = tensors
        return rest


def _one(tensors: Any) -> Tensor:
    tensor = tensors[0] if isinstance(tensors, list) else tensors
    assert isinstance(tensor, Tensor)
    return tensor


def _part(pattern: str) -> str:
    return pattern.rpartition(r")\.")[2].removesuffix("$").replace("\\", "")


class Arrivals:
    """What becomes of a model's linear layers. The model is on the meta device.

    files: the checkpoint's. Raises CheckpointError for a configuration that contradicts itself, the
    model or the files' names; ConversionError for a layer that convert refuses.
    """

    def __init__(
        self, model: Any, config: TFMBSConfig, pre_quantized: bool, files: list[str] | None
    ) -> None:
        self.model, self.config = model, config
        self.file = str(Path(files[0]).parent) if files else str(model.config.name_or_path)
        self.prefix = model.base_model_prefix + "." if model.base_model_prefix else ""
        self.made: dict[str, nn.Module] = {}
        self.errors: list[FabricError] = []
        #: Layers that become packed, with what their checkpoint says of them.
        self.awaited: dict[str, dict[str, Any]] = {}
        self._mended: set[nn.Module] = set()
        self._trainable: list[tuple[str, TFMBSLinear]] = []
        self.is_decoded = pre_quantized
        if config.bitnet is not None:
            self._plan_bitnet(config.bitnet, online=not pre_quantized)
        elif pre_quantized:
            self._plan_own()
        else:
            self._plan_float()
        if self.is_decoded:
            self._check_names(files)

    # --- which layers -----------------------------------------------------------------------------

    def _plan_float(self) -> None:
        config, choice = self.config, Choice(self.model)
        kept = [*config.modules_to_not_convert, *(self.model._keep_in_fp32_modules or ())]

        def takes(module: nn.Module, path: str) -> bool:
            reason = choice.left_alone(module)
            allowed = reason is None or (reason == HEAD and config.output_heads)
            return allowed and not is_kept(path, kept)

        self._plan_quantized(takes)

    def _plan_bitnet(self, theirs: dict[str, Any], online: bool) -> None:
        options = BitNetOptions.of(ArrivedTensors(self.file, theirs, {}))
        theirs_kept = options.modules_to_not_convert
        kept = HfQuantizer.get_modules_to_not_convert(
            self.model,
            None if theirs_kept is None else list(theirs_kept),
            self.model._keep_in_fp32_modules,
        )
        if not online:
            self.awaited = {
                path: {}
                for path, module in self.model.named_modules()
                if isinstance(module, nn.Linear) and should_convert_module(path, kept)
            }
            return
        from transformers.integrations.bitnet import replace_with_bitnet_linear

        known = {name: theirs[name] for name in (
            "linear_class", "quantization_mode", "use_rms_norm", "rms_norm_eps",
        ) if name in theirs}  # fmt: skip
        replace_with_bitnet_linear(self.model, kept, BitNetQuantConfig(**known))
        self._plan_quantized(lambda module, path: bitnet.kind(module) is not None)

    def _plan_quantized(self, takes: Any) -> None:
        chosen, self._mended = choose(self.model, takes)
        if not chosen:
            raise ArgumentError(
                f"no linear layer of the {type(self.model).__name__} would be ternary; see "
                "modules_to_not_convert and output_heads of TFMBSConfig"
            )
        if not self.config.trainable:
            self.awaited = {path: {} for path, _ in chosen}
            return
        replacements: dict[nn.Module, nn.Module] = {}
        for path, module in chosen:
            layer = ternary_layer(module, path, self._options(module))
            self._ready(module, layer)
            replacements[module] = layer
            self._trainable.append((path, layer))
        replace_modules(self.model, replacements)

    def _plan_own(self) -> None:
        layers = self.config.layers or {}
        self._own_config = {"version": self.config.version, "layers": layers}
        OwnCheckpoint(ArrivedTensors(self.file, self._own_config, {}))  # raises for a wrong entry
        modules = dict(self.model.named_modules())
        lost: list[str] = []
        replacements: dict[nn.Module, nn.Module] = {}
        for name, entry in layers.items():
            path = self._path_of(name, modules)
            if path is None:
                lost.append(name)
                continue
            module: Any = modules[path]
            if not isinstance(module, nn.Linear) or module.in_features != entry["in_features"]:
                raise CheckpointError(
                    self.file,
                    name,
                    f"it is a ternary layer of {entry['in_features']} inputs, and the model's is "
                    f"{module}",
                    "Load it with the configuration that it was saved with",
                )
            if "weight_quantizer" in entry:
                layer = _float_layer(path, module, entry)
                self._ready(module, layer)
                replacements[module] = layer
                self._trainable.append((path, layer))
            else:
                self.awaited[path] = entry
        replace_modules(self.model, replacements)
        saved_as = getattr(self.model.config, "architectures", None) or [type(self.model).__name__]
        if lost and (type(self.model).__name__ in saved_as or len(lost) == len(layers)):
            raise CheckpointError(
                self.file,
                lost[0],
                "it is ternary, and the model has no such layer",
                "Load it into a model of its own architecture",
            )

    def _path_of(self, name: str, modules: dict[str, nn.Module]) -> str | None:
        """A name of the checkpoint's in the model, which may be the base of the checkpoint's model, or
        have it as its base."""
        for path in (name, name.removeprefix(self.prefix), self.prefix + name):
            if path in modules:
                return path
        return None

    def _options(self, module: nn.Module) -> dict[str, Any]:
        if bitnet.kind(module) is not None:
            return {}
        config = self.config
        return {"weight_quantizer": config.weight_quantizer, "activation": config.activation}

    def _check_names(self, files: list[str] | None) -> None:
        """Raises CheckpointError for a layer that the files lack, or have otherwise than config.json
        says."""
        if not files or not all(file.endswith(".safetensors") for file in files):
            return
        names: set[str] = set()
        for file in files:
            names |= set(TensorFiles(Path(file)).names())
        own = self.config.bitnet is None
        linears = {p for p, m in self.model.named_modules() if hasattr(m, "in_features")}
        mark = ".packed" if own else ".weight_scale"
        for name in sorted(names):
            path = self._path_of(name.removesuffix(mark), dict.fromkeys(linears, self.model))
            if name.endswith(mark) and path is not None and path not in self.awaited:
                reason = "config.json does not say that the layer is ternary"
                raise CheckpointError(self.file, name, reason, "Save the model again")
        for path in self.awaited:
            forms = (path, path.removeprefix(self.prefix), self.prefix + path)
            if not any(form + mark in names for form in forms):
                reason = (
                    "config.json says that the layer is ternary, and the files lack this tensor"
                )
                raise CheckpointError(self.file, path + mark, reason, "Save the model again")

    # --- as they arrive ---------------------------------------------------------------------------

    def conversions(self, hf_quantizer: HfQuantizer) -> list[WeightConverter]:
        if not self.is_decoded or not self.awaited:
            return []
        paths = sorted(re.escape(path.removeprefix(self.prefix)) for path in self.awaited)
        optional = f"(?:{re.escape(self.prefix)})?" if self.prefix else ""
        layers = f"^({optional}(?:{'|'.join(paths)}))"
        parts = _PARTS[:2] + _PARTS[4:] if self.config.bitnet is None else _PARTS[2:]
        patterns = [layers + r"\." + re.escape(part) + "$" for part in parts]
        return [WeightConverter(patterns, r"\1.weight", [Decode(self, hf_quantizer)])]

    def is_own(self, conversion: Any) -> bool:
        """Whether a conversion is of this package, and not for writing what the files had."""
        operations = getattr(conversion, "operations", ())
        return any(isinstance(operation, Decode) for operation in operations)

    def quantizes(self, name: str) -> bool:
        """Whether a float tensor of this name becomes a packed layer."""
        path, _, part = name.rpartition(".")
        return not self.is_decoded and part == "weight" and path in self.awaited

    def decode(self, path: str, parts: dict[str, Tensor]) -> None:
        module: Any = self.model.get_submodule(path)
        tensors = {f"{path}.{part}": tensor for part, tensor in parts.items()}
        try:
            tensor = self._reader(path, tensors).layer(path, module.out_features)
            if tensor.in_features != module.in_features:
                reason = f"it has {tensor.in_features} inputs, and the model's {module.in_features}"
                raise CheckpointError(self.file, f"{path}.weight", reason, "Save the model again")
            if (tensor.bias is None) != (module.bias is None):
                has = "no" if tensor.bias is None else "a"
                raise CheckpointError(
                    self.file, f"{path}.bias", f"the file has {has} bias, and the model is otherwise",
                    "Load it into a model of its own architecture",
                )  # fmt: skip
            if self.config.trainable:
                layer: Any = tensor.trainable_layer(dtype=module.weight.dtype, name=path)
            else:
                layer = tensor.packed_layer(name=path, packing=self.config.packing)
        except FabricError as error:  # transformers would write it to its log alone
            self.errors.append(error)
            return
        kind = module.weight.dtype
        for parameter in layer.parameters():
            parameter.data = parameter.data.to(kind)
        self.made[path] = layer

    def _reader(self, path: str, tensors: dict[str, Tensor]) -> Checkpoint:
        theirs = self.config.bitnet
        if theirs is None:
            entry = {**self._own_config, "layers": {path: self.awaited[path]}}
            return OwnCheckpoint(ArrivedTensors(self.file, entry, tensors))
        config = {**theirs, "modules_to_not_convert": None}  # which has been looked at
        return BitNetCheckpoint(ArrivedTensors(self.file, config, tensors), [path])

    def quantize(self, path: str, weight: Tensor) -> None:
        module: Any = self.model.get_submodule(path)
        try:
            if bitnet.kind(module) is not None and not bool(torch.isfinite(weight).all()):
                raise CheckpointError(
                    self.file, f"{path}.weight", "it holds values that are not finite",
                    "Download or save it again",
                )  # fmt: skip
            bias = module.bias
            module.weight, module.bias = nn.Parameter(weight, requires_grad=False), None
            layer = ternary_layer(module, path, self._options(module))
            self.made[path] = freeze(layer, packing=self.config.packing)
        except FabricError as error:
            self.errors.append(error)
        finally:
            module.weight = nn.Parameter(
                torch.empty_like(weight, device="meta"), requires_grad=False
            )
            module.bias = bias

    # --- at the end -------------------------------------------------------------------------------

    def finish(self, model: Any) -> None:
        """Puts the layers into the model. Raises what went wrong on the way."""
        if self.errors:
            raise self.errors[0]
        replacements: dict[nn.Module, nn.Module] = {}
        for path in self.awaited:
            module: Any = model.get_submodule(path)
            if path not in self.made and not self.is_decoded:
                self.quantize(path, module.weight.detach())  # initialized by transformers
                if self.errors:
                    raise self.errors[0]
            if path not in self.made:
                reason = "the files lack the layer's tensors"
                raise CheckpointError(self.file, path, reason, "Save the model again")
            layer: Any = self.made.pop(path)
            if not self.is_decoded:
                layer.bias = module.bias
            self._ready(module, layer)
            replacements[module] = layer
        replace_modules(self.model, replacements)
        for path, trained in self._trainable:
            check_groups(trained, path)
        for parent in self._mended:
            call_layers(parent)

    @staticmethod
    def _ready(module: nn.Module, layer: nn.Module) -> None:
        """A layer that takes a module's place: it has what the module held beside its own."""
        layer.train(module.training)
        carry_over(module, layer)
        for tensor in _tensors(layer):
            tensor._is_hf_initialized = True  # type: ignore[attr-defined]


def _tensors(layer: nn.Module) -> Iterator[Tensor]:
    yield from (t for t in (*layer.parameters(), *layer.buffers()) if not t.is_meta)


def _float_layer(path: str, module: nn.Linear, entry: dict[str, Any]) -> TFMBSLinear:
    """The layer of a checkpoint that trains on, on the meta device."""
    eps = entry.get("rms_norm_eps")
    layer = (TFMBSLinear if eps is None else BitNetLinear)(
        module.in_features,
        module.out_features,
        module.bias is not None,
        device="meta",
        dtype=module.weight.dtype,
        name=path,
        weight_quantizer=entry["weight_quantizer"],
        activation=entry["activation"],
        ste_clip=entry.get("ste_clip"),
    )
    layer._keeps_own_scale = False  # what was saved had none, or is packed
    if eps is not None:
        weight = torch.empty(module.in_features, device="meta", dtype=module.weight.dtype)
        layer.register_module("rms_norm", RMSNorm(weight, eps))
    return layer
