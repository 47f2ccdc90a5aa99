"""TFMBSLinear: nn.Linear on the Ternary Fabric."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .. import _fabric, errors
from .._fabric import Fabric
from ..ops import observers, torch_ops, transforms
from ..ops.dense import check_layout, exceeds_storage
from ..ops.observers import profiler_enabled
from ..quantization import quantizers
from ..quantization.fixed_scale import FixedScaleQuantizer, check_held
from ..quantization.kept_weight import KeptWeight
from ..quantization.own_scale import keeping_own_scale
from ..quantization.quantizers import WeightQuantizer
from . import foreign_helpers, sharding
from .fabric_layer import FabricLayer, checked_clip

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

_log = logging.getLogger("pytfmbs")
#: Attributes of the constructor's options.
_OPTIONS = {
    "activation": "_activation",
    "fabric": "_fabric",
    "ste_clip": "_ste_clip",
    "tile_mask": "_given_mask",
    "weight_addr": "_given_addr",
}
_Parameter = nn.Parameter
_is_traced = torch.compiler.is_dynamo_compiling
_linear = torch_ops.linear
# The same op without the Python frame of torch's OpOverload, which Dynamo wants to see.
_eager_linear = getattr(torch_ops.linear, "_op", torch_ops.linear)
_fabric.use_tensors(Tensor, _Parameter, observers.QUESTIONS, *observers.FORWARD_MODE)


class TFMBSLinear(FabricLayer, nn.Linear):
    """A drop-in for nn.Linear with ternary weights, computed as the Ternary Fabric computes it.

    ``weight`` and ``bias`` are ordinary float parameters, with nn.Linear's ``state_dict``. The weight is
    quantized and packed at the first forward pass, and again after each change. The product is exact
    in int32; scale and bias are applied in fp32 (fp64 for fp64 input), and the result is rounded
    once to nn.Linear's output dtype.

    Args:
        in_features, out_features, bias: as nn.Linear's.
        device, dtype: as nn.Linear's; dtype is float32, float64, bfloat16 or float16.
        name: the layer's name in telemetry; None makes one. A name that is already in use on the device
            gets a suffix.
        weight_addr: byte address in tile 0's Bank A; None lets the device choose.
        fabric: the device; None is the process's default one.
        weight_quantizer: "sign", "absmean", "twn", or an object (see pytfmbs.WeightQuantizer).
        activation: "ternary" (sign; one trit) or "int8" (a token's absmax to ±127).
        ste_clip: the input gradient passes where |x| <= ste_clip. None is 1 for ternary activations
            and no limit for int8. For inputs that are sums of trits, use about sqrt(in_features)
            of the layer before.
        tile_mask: tiles to run on, bit t for tile t; None is the lowest min(tiles,
            ceil(out_features / lanes)).

    Shapes: input [..., in_features], output [..., out_features].

    Raises:
        PlacementError: weight_addr is outside Bank A, too near to its end, or in use by another
            layer.
        ArgumentError: a tile mask or activation that does not exist. ValueError, TypeError: as
            named.
    """

    _weight_quantizer: WeightQuantizer
    _custom = False
    _quantizer_before: WeightQuantizer  # of a layer that keeps its weight's own scale
    _kept: KeptWeight | None = None
    _storage: Any  # memory that the weight came with
    _told_shared = False
    _keeps_own_scale = True  # of weights that are ternary already

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        name: str | None = None,
        weight_addr: int | None = None,
        fabric: Fabric | None = None,
        weight_quantizer: str | WeightQuantizer = "sign",
        activation: str = "ternary",
        ste_clip: float | None = None,
        tile_mask: int | None = None,
    ) -> None:
        if (dtype or torch.get_default_dtype()) not in DTYPES:
            raise TypeError(
                f"dtype is {dtype}; TFMBSLinear takes float32, float64, bfloat16 and float16"
            )
        self._check_options(name, fabric, activation)
        clip = checked_clip(ste_clip)
        nn.Linear.__init__(self, in_features, out_features, bias, device=device, dtype=dtype)
        quantizer = quantizers.resolve(weight_quantizer)
        quantizer_name = quantizers.spec_name(quantizer)
        own = self.__dict__
        own["_weight_quantizer"] = quantizer
        own["_quantizer_name"] = quantizer_name
        if quantizer_name == "custom":
            own["_custom"] = True
        self._init_fabric_layer(name, fabric, weight_addr, tile_mask, activation, clip)

    @classmethod
    def from_trits(
        cls,
        trits: Tensor,
        scale: Tensor | float = 1.0,
        bias: Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> TFMBSLinear:
        """A trainable layer with given trits, [out, in], and scale, [1] or [out], above 0.

        The weight is trits · scale. The layer keeps the scale: training changes the weight, and it
        is always quantized with this scale. The state_dict has it as ``weight_scale``. options: the
        class's, without weight_quantizer.

        Raises ArgumentError for a value that is not a trit, and for a scale of another shape, not
        finite, not above 0, or too small or large for dtype.
        """
        values = quantizers.as_trits(trits)
        outputs, inputs = values.shape
        scales = torch.as_tensor(scale, dtype=torch.float32).detach().reshape(-1).clone()
        if scales.numel() not in (1, outputs):
            raise errors.ArgumentError(
                f"scale holds {scales.numel()} values; it must hold 1 or {outputs}"
            )
        wrong = ~((scales > 0) & torch.isfinite(scales))
        if wrong.any():
            raise errors.ArgumentError(
                f"scale holds {scales[wrong][0].item()}; it must be finite and above 0"
            )
        if bias is not None and tuple(bias.shape) != (outputs,):
            raise errors.ArgumentError(
                f"bias is of shape {tuple(bias.shape)}; it must be ({outputs},)"
            )
        check_held(scales, dtype or torch.get_default_dtype())
        layer = cls(
            inputs,
            outputs,
            bias is not None,
            device="meta",
            dtype=dtype,
            weight_quantizer=FixedScaleQuantizer(scales),
            **options,
        )
        each = scales.unsqueeze(1) if scales.numel() > 1 else scales
        weight = values.to(torch.float32) * each
        layer.weight = nn.Parameter(weight.to(layer.weight.dtype))
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone().to(layer.weight.dtype))
        layer.register_buffer("weight_scale", scales)
        return layer

    # --- weights that are ternary already -----------------------------------------------------

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As nn.Module's. A weight that is ternary already keeps its own scale ("sign" has none to
        keep)."""
        if name != "weight":
            return super().register_parameter(name, param)
        made = "_weight_quantizer" in self.__dict__  # else nn.Linear is making the first weight
        if made:
            foreign_helpers.check_assigned_weight(self, param)
        super().register_parameter(name, param)
        self._note_storage()
        if made:
            self._see_own_scale(assigned=True)

    def _see_own_scale(self, assigned: bool, signs: bool = False) -> None:
        """Keeps the scale of a present weight that is ternary already: the quantizer is a fixed scale
        from then on, which the state_dict has as ``weight_scale``.

        assigned: the weight is another tensor, so that a scale which an earlier one had ends with
            it. signs: "sign" layers too.
        """
        weight = self._parameters.get("weight")
        quantizer = self.__dict__.get("_quantizer_before", self._weight_quantizer)
        if not self._keeps_own_scale or not quantizers.is_built_in(quantizer):
            return
        if type(weight) is not _Parameter:
            return
        if quantizer.name == "sign" and not signs:
            return
        kept = keeping_own_scale(quantizer, weight)
        if kept is not None:
            self._fix_scale(kept.scale)
            self.__dict__["_quantizer_before"] = quantizer
        elif assigned and "_quantizer_before" in self.__dict__:
            del self.__dict__["_quantizer_before"]
            self._buffers.pop("weight_scale", None)
            self._set_quantizer(quantizer)

    def _fix_scale(self, scale: Tensor) -> None:
        self.register_buffer("weight_scale", scale)
        self._set_quantizer(FixedScaleQuantizer(scale))

    def _set_quantizer(self, quantizer: WeightQuantizer) -> None:
        name = quantizers.spec_name(quantizer)
        self.__dict__.update(
            _weight_quantizer=quantizer, _quantizer_name=name, _custom=name == "custom"
        )
        if "_layer" in self.__dict__:
            self._enter(self.name, replacing=None if self._offload else self._layer)

    def _reconfigure(self, **options: Any) -> Callable[[], None]:
        """Other options of the constructor, which it has checked. After an error nothing has
        changed. Returns what undoes it."""
        state, buffers = dict(self.__dict__), dict(self._buffers)
        elsewhere = "fabric" in options
        name = options.pop("name", (elsewhere and self._wanted_name) or self.name)
        quantizer = options.pop("weight_quantizer", None)
        layer = self._layer
        stays = not elsewhere and not self._offload

        def undo() -> None:
            entered = self._layer
            self.__dict__.clear()
            self.__dict__.update(state)
            self._buffers.clear()
            self._buffers.update(buffers)
            if entered is not layer and stays:  # the layer's place went to it
                self._enter(layer.name, replacing=entered)

        try:
            self.__dict__.update(
                {
                    _OPTIONS[key]: Fabric() if key == "fabric" and value is None else value
                    for key, value in options.items()
                }
            )
            self._window = self._resolved_window()
            if quantizer is not None:
                self.__dict__.pop("_quantizer_before", None)
                self._buffers.pop("weight_scale", None)
                resolved = quantizers.resolve(quantizer)
                kind = quantizers.spec_name(resolved)
                self.__dict__.update(
                    _weight_quantizer=resolved, _quantizer_name=kind, _custom=kind == "custom"
                )
            self._enter(name, replacing=layer if stays else None)
            if quantizer is not None:
                self._see_own_scale(assigned=False, signs=True)
        except Exception:
            undo()
            raise
        return undo

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As nn.Module's. A scale in the state, or of a weight that is ternary already, is kept. A
        state without a weight that fits changes neither scale nor quantizer."""
        key, own = prefix + "weight_scale", self.__dict__
        scale, weight = state_dict.get(key), state_dict.get(prefix + "weight")
        present = self._parameters.get("weight")
        fits = present is None or getattr(weight, "shape", None) == present.shape
        if isinstance(scale, Tensor) and fits and "weight_scale" not in self._buffers:
            if scale.numel() in (1, self.out_features) and scale.is_floating_point():
                before = self._weight_quantizer
                self._fix_scale(scale.detach().cpu().reshape(-1).clone())
                if quantizers.is_built_in(before):
                    own["_quantizer_before"] = before
        elif scale is None and fits and "_quantizer_before" in own:  # nn.Linear's state
            self._buffers.pop("weight_scale", None)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if scale is None and fits and weight is not None:
            self._see_own_scale(assigned="_quantizer_before" in own)
        loaded = self._buffers.get("weight_scale")
        if isinstance(self._weight_quantizer, FixedScaleQuantizer) and loaded is not None:
            self._weight_quantizer.scale = loaded  # another tensor, where it was assigned

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As FabricLayer's; a fixed scale stays float32."""
        scale = self._buffers.get("weight_scale")
        result = super()._apply(fn, recurse)
        if scale is not None and isinstance(self._weight_quantizer, FixedScaleQuantizer):
            self._buffers["weight_scale"] = self._weight_quantizer.scale = scale
        return result

    # --- the forward pass ---------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]. Bad input raises what nn.Linear raises."""
        # Few Python frames and no question that can be spared: a small product takes a microsecond.
        parameters = self._parameters  # nn.Module's own lookup costs as much as the product
        weight: Any
        bias: Any
        try:
            try:
                weight, bias = parameters["weight"], parameters["bias"]
            except KeyError:  # parametrized, pruned
                weight, bias = self.weight, self.bias
            if type(weight) is not _Parameter or self._custom:
                return self._forward_general(input, weight, bias)
            if _is_traced():
                return _linear(  # type: ignore[no-any-return]
                    input,
                    weight,
                    bias,
                    self.fabric_identity,
                    self._quantizer_name,
                    self._activation,
                    self._window,
                    self.training,
                )
            if not self.training:
                output = self._layer.direct_forward(input, weight, bias)
                if output is not None:
                    return output  # type: ignore[return-value]
            if transforms.differentiated() or profiler_enabled():
                return self._forward_general(input, weight, bias)
            return _eager_linear(  # type: ignore[no-any-return]
                input,
                weight,
                bias,
                self._own_identity,
                self._quantizer_name,
                self._activation,
                self._window,
                self.training or self._is_shared(weight),
            )
        except (RuntimeError, TypeError) as error:
            self._raise_as_linear_does(error, input)

    def _forward_general(self, input: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        """With a quantizer of the user's, or a weight that is no parameter."""
        shared = sharding.KINDS.get(type(weight))
        if shared is not None:
            return shared.forward(self, input, weight, bias)
        # Parameters are replaced while torch.onnx.export traces.
        if type(weight) is not _Parameter and torch.onnx.is_in_onnx_export():
            return self._forward_onnx(input, weight, bias)
        if _is_traced():
            return self._forward_by_op(input, weight, bias)
        with self._named_in_profiles():
            return self._forward_by_op(input, weight, bias)

    def _forward_by_op(self, input: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        identity, activation, window = self.fabric_identity, self._activation, self._window
        transformed = not _is_traced() and transforms.differentiated()
        if self._custom:
            # A weight that is no parameter may be a transform's, without memory.
            plain = type(weight) is _Parameter and not _is_traced() and not transformed
            kept = self._kept if plain else None
            if kept is not None and self._still_holds(kept, weight):
                output = self._layer.direct_forward(input, weight, bias)
                if output is not None:
                    return output  # type: ignore[return-value]
                trits, scale = kept.trits, kept.scale
            else:
                trits, scale = quantizers.apply(self._weight_quantizer, weight.detach())
                if not _is_traced():
                    self._kept = self._keep(weight, trits, scale) if plain else None
            linear_trits = transforms.linear_trits if transformed else torch_ops.linear_trits
            return linear_trits(  # type: ignore[no-any-return]
                input, weight, trits, scale, bias, identity, activation, window, None
            )
        # A weight that is computed (parametrized, functional_call) may lie in a buffer that a
        # compiled graph uses again without raising its version: compared by content.
        by_content = self.training
        if not (torch.compiler.is_exporting() and "weight" in self._parameters):
            # While torch.export traces, a parameter is a plain tensor.
            by_content = by_content or type(weight) is not _Parameter or self._is_shared(weight)
        linear = transforms.linear if transformed else _linear
        return linear(  # type: ignore[no-any-return]
            input,
            weight,
            bias,
            identity,
            self._quantizer_name,
            activation,
            window,
            by_content,
            None,
        )

    def _keep(self, weight: Tensor, trits: Tensor, scale: Tensor) -> KeptWeight | None:
        """What a quantizer of the user's gave, for as long as the weight does not change; None in
        training, and where a change might not be seen."""
        if self.training or self._is_shared(weight):
            return None
        return KeptWeight.of(weight, self._weight_quantizer, trits, scale)

    def _note_storage(self) -> None:
        """Remembers which memory the weight came with."""
        self.__dict__["_storage"] = observers.storage_reference(self._parameters["weight"])

    def _is_shared(self, weight: Tensor) -> bool:
        """Whether the weight got its memory by ``.data = ...`` and other tensors hold that memory too
        (views of a flat vector). They count versions of their own, so only the contents tell of a
        write. A parameter that was made of a tensor counts that tensor's."""
        if torch.compiler.is_compiling():  # whatever holds the weight while it is traced
            return False
        if observers.is_storage_of(self.__dict__.get("_storage"), weight):
            return False
        own = 2 if self._layer.holds_storage(weight.data_ptr()) else 1
        if observers.storage_holders(weight) <= own:
            return False
        if not self._told_shared:
            self._told_shared = True
            _log.info(
                "layer %r: other tensors share its weight's memory, so each forward pass in eval mode "
                "reads the weight to see whether it changed. Give the layer a copy, or freeze it",
                self.name,
            )
        return True

    def _still_holds(self, kept: KeptWeight, weight: Tensor) -> bool:
        if self.training or (torch.is_grad_enabled() and kept.trits.is_inference()):
            return False  # autograd keeps no inference tensors
        return kept.is_of(weight, self._weight_quantizer)

    def refresh(self) -> None:
        self._kept = None
        self.__dict__.pop("_kept_shard", None)
        super().refresh()

    refresh.__doc__ = FabricLayer.refresh.__doc__

    def _forward_onnx(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What pytfmbs.onnx translates."""
        autocast = torch.is_autocast_enabled("cpu")
        out_dtype = torch_ops.autocast_dtype(input, weight) if autocast else None
        return torch_ops.onnx_linear(input, weight, bias, self._layer.spec, out_dtype)  # type: ignore[no-any-return]

    def _raise_as_linear_does(self, error: Exception, input: Tensor) -> NoReturn:
        errors.raise_own(error)
        if type(self.weight) in sharding.KINDS:  # nn.Linear would compute with other processes
            raise error
        check_layout(input, "input")
        # What nn.Linear raises, in its own type and words; but it reads an input beyond its storage.
        if not (isinstance(input, Tensor) and exceeds_storage(input)):
            nn.functional.linear(input, self.weight, self.bias)
        raise error

    # --- weights ------------------------------------------------------------------------------

    @property
    def weight_quantizer(self) -> WeightQuantizer:
        return self._weight_quantizer

    def quantized_weight(self) -> tuple[Tensor, Tensor]:
        """Trits, int8 [out_features, in_features], and scale, [1] or [out_features], of the present
        weight. Raises ArgumentError for what a quantizer of the user's gave wrong."""
        with torch.no_grad():
            shared = sharding.KINDS.get(type(self.weight))
            if shared is not None:
                return shared.quantized_weight(self, self.weight)
            trits, scale = quantizers.apply(self._weight_quantizer, self.weight.detach())
            if self._custom:  # the ops check them, and this calls none
                quantizers.check_trits(trits)
            return trits, scale

    def packed_weight(self) -> tuple[Tensor, Tensor]:
        """As quantized_weight(), with float32 scales that are NaN for outputs with a NaN weight, as a
        packed layer has them. Raises ArgumentError where float32 does not hold a scale."""
        trits, scale = self.quantized_weight()
        if not self.has_float32_scales(scale):
            raise errors.ArgumentError(
                f"layer {self.name!r} has float64 scales, which a packed layer would round to "
                "float32: convert it with .float() first"
            )
        scale = scale.to(torch.float32)
        nan_outputs = torch.isnan(self.weight.detach()).any(dim=1)
        if nan_outputs.any():
            scale = torch.where(nan_outputs, torch.nan, scale.expand(self.out_features))
        return trits, scale

    def has_float32_scales(self, scale: Tensor | None = None) -> bool:
        """Whether float32 holds the scales exactly. scale: quantized_weight()'s, if it is known."""
        scale = self.quantized_weight()[1] if scale is None else scale
        if scale.dtype != torch.float64:
            return True
        return torch.equal(scale.float().double().nan_to_num(), scale.nan_to_num())

    def _prefetch(self) -> bool:
        if self._custom:
            return bool(
                torch_ops.prefetch_trits(self.weight, *self.quantized_weight(), *self._key())
            )
        return bool(
            torch_ops.prefetch(
                self.weight, *self._key(), self.training or self._is_shared(self.weight)
            )
        )

    def _pack(self) -> None:
        """Packs the present weight; Python's part of pytfmbs.prepare."""
        with torch.no_grad():
            if self._custom:
                torch_ops.pack_trits(self.weight, *self.quantized_weight(), *self._key())
            else:
                torch_ops.pack(
                    self.weight, *self._key(), self.training or self._is_shared(self.weight)
                )

    def _key(self) -> tuple[Any, ...]:
        """What an op finds the layer by."""
        if self._custom:
            return self._own_identity, self._activation
        return self._own_identity, self._quantizer_name, self._activation

    def _hint_quantizer(self) -> str:
        return self._weight_quantizer.name

    def extra_repr(self) -> str:
        return (
            f"{nn.Linear.extra_repr(self)}, name={self.name!r}, "
            f"weight_quantizer={self._weight_quantizer.name!r}, activation={self._activation!r}"
            f"{', offload=True' if self._offload else ''}"
        )
