"""TFMBSPackedLinear: a ternary layer for inference, which holds trits and scales alone."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .. import _fabric, errors
from .._fabric import Fabric
from ..ops import torch_ops, transforms
from ..ops.dense import check_layout
from ..ops.observers import profiler_enabled
from ..ops.panels import panels_of_rows, panels_of_trits
from ..quantization.quantizers import WeightQuantizer, as_trits
from .fabric_layer import FabricLayer, checked_clip
from .linear import DTYPES, TFMBSLinear

#: Inputs that may share a scale.
GROUP_SIZES = (32, 64, 128, 256)
_BUFFERS = ("_panels", "_scales")

_is_traced = torch.compiler.is_dynamo_compiling
_packed_linear = torch_ops.packed_linear
_eager_packed_linear = getattr(torch_ops.packed_linear, "_op", torch_ops.packed_linear)


class TFMBSPackedLinear(FabricLayer):
    """y = x (trits · scale)ᵀ + bias. A ternary layer for inference, without float weights.

    Its numbers and telemetry are those of a TFMBSLinear with the same trits. It takes 2 bits per
    weight (1.6 with packing "packed_base3"). It is not an nn.Linear: it has no ``weight``. Make one
    with ``from_trits``, ``from_linear`` or ``pytfmbs.freeze``. A layer made by the constructor holds
    zeros until ``load_state_dict``.

    ``state_dict`` has ``packed``, uint8 [out_features, ceil(in_features / 5)] (PT-5, each row aligned
    to a byte: docs/format.md), ``scale``, float32, and ``bias``. In memory the weights lie as the
    kernels read them.

    Args:
        in_features, out_features, bias, device, dtype: as nn.Linear's; dtype is the bias's. Inputs
            may be of any float type, and give outputs of theirs.
        name, weight_addr, fabric, ste_clip, tile_mask: as TFMBSLinear's.
        activation: "int8" or "ternary".
        group_size: inputs that share a scale: 32, 64, 128 or 256; None for one scale of all weights
            or one an output.
        packing: "auto", "packed2" (2 bits per weight) or "packed_base3" (1.6 bits, no group scales).

    Shapes: input [..., in_features], output [..., out_features].

    Raises: as TFMBSLinear; ValueError for a group size or packing that does not exist.
    """

    bias: nn.Parameter | None
    _layout: str
    _panels: Tensor
    _scales: Tensor
    _share: Any = None  # pytfmbs.distributed's, of a layer that is a part of a larger one

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
        activation: str = "int8",
        ste_clip: float | None = None,
        tile_mask: int | None = None,
        group_size: int | None = None,
        packing: str = "auto",
    ) -> None:
        super().__init__()
        self._check_options(name, fabric, activation)
        if (dtype or torch.get_default_dtype()) not in DTYPES:
            raise TypeError(
                f"dtype is {dtype}; a layer takes float32, float64, bfloat16 and float16"
            )
        size = _checked_group(group_size)
        torch.empty((out_features, in_features), device="meta")  # raises what nn.Linear raises
        clip = checked_clip(ste_clip)
        self.in_features, self.out_features = in_features, out_features
        self._group_size = size
        self._quantizer_name = "custom"
        self._layout = _layout(activation, packing, self._group_size)
        self._init_fabric_layer(name, fabric, weight_addr, tile_mask, activation, clip)
        parameter = None
        if bias:
            parameter = nn.Parameter(torch.zeros(out_features, device=device, dtype=dtype))
        self.register_parameter("bias", parameter)
        panels = torch.empty(
            _fabric.panel_bytes(self._layout, out_features, in_features),
            dtype=torch.uint8,
            device="meta",
        )
        self.register_buffer("_panels", panels, persistent=False)
        self.register_buffer("_scales", torch.ones(1, device="meta"), persistent=False)
        if torch.empty(0, device=device).device.type != "meta":  # torch's default device, for None
            self._set_zero()

    # --- made from --------------------------------------------------------------------------------

    @classmethod
    def from_trits(
        cls,
        trits: Tensor,
        scale: Tensor | float = 1.0,
        bias: Tensor | None = None,
        *,
        group_size: int | None = None,
        **options: Any,
    ) -> TFMBSPackedLinear:
        """A layer of given trits, [out, in] of any dtype, and scale: [] or [1], [out] or [out, 1], or
        with a group size [out, ceil(in / group_size)]. options: as the class's; dtype None is the
        bias's own.

        Raises ArgumentError for a value that is no trit or a scale of another shape.
        """
        # The core checks int8, without memory of its own.
        core_checks = isinstance(trits, Tensor) and trits.dtype == torch.int8 and trits.dim() == 2
        values = trits.detach() if core_checks else as_trits(trits)
        outputs, inputs = values.shape
        if bias is not None:
            if not bias.dtype.is_floating_point:
                raise TypeError(f"bias is {bias.dtype}; it must be of a float dtype")
            if tuple(bias.shape) != (outputs,):
                raise errors.ArgumentError(
                    f"bias is of shape {tuple(bias.shape)}; it must be ({outputs},)"
                )
        # Before the layer is there, and takes a place on the device.
        size = _checked_group(group_size)
        kind, packing = options.get("activation", "int8"), options.get("packing", "auto")
        cls._check_options(options.get("name"), options.get("fabric"), kind)
        layout = _layout(kind, packing, size)
        scales = _kernel_scale(torch.as_tensor(scale, dtype=torch.float32), outputs, inputs, size)
        with errors.as_own():
            panels = panels_of_trits(values, layout)
        layer = cls(
            inputs, outputs, bias is not None, device="meta", group_size=group_size, **options
        )
        if bias is not None:
            kept = bias.detach().to(options.get("dtype") or bias.dtype, copy=True)
            layer.bias = nn.Parameter(kept, requires_grad=bias.requires_grad)
        layer._adopt(panels, scales)
        return layer

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        weight_quantizer: str | WeightQuantizer = "absmean",
        **options: Any,
    ) -> TFMBSPackedLinear:
        """A layer with the quantized weight of an nn.Linear; for a TFMBSLinear, with its own
        quantizer, activation, name, place and device, unless the options say otherwise.

        Raises ArgumentError where the scales are float64 values that float32 does not hold.
        """
        if type(linear) is not TFMBSLinear:
            if type(linear) is not nn.Linear:  # a subclass has ways of its own
                raise TypeError(
                    f"linear must be an nn.Linear or a TFMBSLinear, not {type(linear).__name__}"
                )
            twin = TFMBSLinear(
                linear.in_features,
                linear.out_features,
                linear.bias is not None,
                device="meta",
                dtype=linear.weight.dtype,
                weight_quantizer=weight_quantizer,
            )
            twin.weight, twin.bias = linear.weight, linear.bias
            layer = cls.from_linear(twin, **{"name": None, "activation": "int8", **options})
            return layer.train(linear.training)
        return cls._of_ternary(linear, options)

    @classmethod
    def _of_ternary(cls, linear: TFMBSLinear, options: dict[str, Any]) -> TFMBSPackedLinear:
        """from_linear of a ternary layer."""
        trits, scale = linear.packed_weight()
        settings = {
            "name": linear.name,
            "fabric": linear.fabric,
            "weight_addr": linear.given_weight_addr,
            "tile_mask": linear.given_tile_mask,
            "activation": linear.activation,
            "ste_clip": linear.ste_clip,
        }
        layer = cls.from_trits(trits, scale, linear.bias, **{**settings, **options})
        layer.offload = linear.offload
        return layer.train(linear.training)

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            raise AttributeError(
                f"packed layer {self.name!r} has no float weight: it holds trits and scales "
                "(quantized_weight(), dequantized_weight()). If its parent module reads weight, leave it "
                "trainable: pytfmbs.freeze(model, filter_fn)"
            )
        return super().__getattr__(name)

    # --- the forward pass -------------------------------------------------------------------------

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] to [..., out_features]. Bad input raises what nn.Linear raises."""
        if self._share is not None:
            return self._share.forward(self, input)  # type: ignore[no-any-return]
        try:
            if torch.onnx.is_in_onnx_export():
                return self._forward_onnx(input)
            traced = _is_traced() or type(input) is not Tensor
            if not _is_traced():
                if transforms.differentiated():
                    return self._forward_by(transforms.packed_linear, input)
                if profiler_enabled():
                    with self._named_in_profiles():
                        return self._forward_by(_packed_linear, input)
            return (_packed_linear if traced else _eager_packed_linear)(  # type: ignore[no-any-return]
                input,
                self._panels,
                self._scales,
                self.bias,
                self.fabric_identity if traced else self._own_identity,
                self._layout,
                self.out_features,
                self.in_features,
                self._group_size,
                self._activation,
                self._window,
            )
        except (RuntimeError, TypeError) as error:
            self._raise_as_linear_does(error, input)

    def _forward_by(self, op: Any, input: Tensor) -> Tensor:
        return op(  # type: ignore[no-any-return]
            input,
            self._panels,
            self._scales,
            self.bias,
            self.fabric_identity,
            self._layout,
            self.out_features,
            self.in_features,
            self._group_size,
            self._activation,
            self._window,
            None,
        )

    def _forward_onnx(self, input: Tensor) -> Tensor:
        """What pytfmbs.onnx translates: the weight it names is of its shape alone."""
        out_dtype = torch_ops.autocast_dtype(input, input)
        shape_only = input.new_zeros(1, 1).expand(self.out_features, self.in_features)
        return torch_ops.onnx_linear(  # type: ignore[no-any-return]
            input,
            shape_only,
            self.bias,
            self._layer.spec,
            out_dtype if torch.is_autocast_enabled("cpu") else None,
        )

    def _raise_as_linear_does(self, error: Exception, input: Any) -> NoReturn:
        errors.raise_own(error)
        check_layout(input, "input")
        shape = (self.out_features, self.in_features)
        if isinstance(input, Tensor):
            if input.dtype not in DTYPES:
                allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
                raise RuntimeError(f"input is {input.dtype}; it must be {allowed}")
            weight = torch.empty(shape, dtype=input.dtype, device="meta")
            torch_ops.fake_output(input.detach().to("meta"), weight, None, None)
        else:
            nn.functional.linear(input, torch.empty(shape, device="meta"))
        raise error

    # --- weights ----------------------------------------------------------------------------------

    @property
    def packed(self) -> Tensor:
        """The trits as files hold them: uint8, [out_features, ceil(in_features / 5)]. A copy."""
        return torch_ops.rows_of_panels(  # type: ignore[no-any-return]
            self._panels, self._layout, self.out_features, self.in_features
        )

    @property
    def scale(self) -> Tensor:
        """float32: [1], [out_features], or [out_features, ceil(in_features / group_size)]."""
        if self._group_size == 0:
            return self._scales
        return torch_ops.scale_rows(  # type: ignore[no-any-return]
            self._scales, self.out_features, self.in_features, self._group_size
        )

    @property
    def group_size(self) -> int | None:
        """Inputs that share a scale; None for one scale, or one an output."""
        return self._group_size or None

    @property
    def packing(self) -> str:
        """The weight packing, "packed2" (2 bits per weight) or "packed_base3" (1.6 bits)."""
        return "packed_base3" if self._layout.endswith("fives") else "packed2"

    def quantized_weight(self) -> tuple[Tensor, Tensor]:
        """Trits, int8 [out_features, in_features], and scale."""
        trits = torch_ops.trits_of_panels(
            self._panels, self._layout, self.out_features, self.in_features
        )
        return trits, self.scale

    def dequantized_weight(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """trits · scale, [out_features, in_features]."""
        return torch_ops.dequantized_panels(
            self._panels,
            self._scales,
            self._layout,
            self.out_features,
            self.in_features,
            self._group_size,
            dtype,
        )

    @property
    def packed_bytes(self) -> int:
        """Memory that the packed weights take, in bytes."""
        return self._panels.numel()

    def _packed_layout(self) -> str:
        return self._layout

    def _hint_quantizer(self) -> str:
        return "packed"

    def _prefetch(self) -> bool:
        return bool(
            torch_ops.prefetch_packed(
                self._panels,
                self._scales,
                self._own_identity,
                self._layout,
                self.out_features,
                self.in_features,
                self._group_size,
                self._activation,
            )
        )

    def _adopt(self, panels: Tensor, scales: Tensor) -> None:
        self._buffers["_panels"], self._buffers["_scales"] = panels, scales

    def _set_zero(self) -> None:
        rows = torch.zeros(
            self.out_features,
            -(-self.in_features // _fabric.TRITS_PER_BYTE),
            dtype=torch.uint8,
            device="cpu",
        )
        shape: tuple[int, ...] = (1,)
        if self._group_size:
            shape = (self.out_features, -(-self.in_features // self._group_size))
        scale = torch.ones(shape, device="cpu")
        self._adopt(
            panels_of_rows(rows, self.in_features, self._layout),
            self._kernel_scale(scale),
        )

    def _kernel_scale(self, scale: Tensor) -> Tensor:
        return _kernel_scale(scale, self.out_features, self.in_features, self._group_size)

    # --- life -------------------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        packed, scale = (
            (self.packed, self.scale.clone()) if self._share is None else self._share.state(self)
        )
        destination[prefix + "packed"], destination[prefix + "scale"] = packed, scale

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
        """Whole or not at all: an error leaves trits, scale and bias as they were."""
        keys = ("packed", "scale")
        rest = {k: v for k, v in state_dict.items() if k not in [prefix + key for key in keys]}
        missing = [prefix + key for key in keys if prefix + key not in state_dict]
        bias_key = prefix + "bias"
        found: tuple[Tensor, Tensor] | None = None
        whole_scale: Tensor | None = None
        failed = bool(missing) or (strict and self.bias is not None and bias_key not in rest)
        if not failed:
            try:
                packed, scale = state_dict[prefix + "packed"], state_dict[prefix + "scale"]
                if self._share is not None:
                    packed, scale, whole_scale = self._share.load(self, packed, scale)
                found = self._of_state(packed, scale)
            except (errors.FabricError, RuntimeError, TypeError) as error:
                error_msgs.append(f"{prefix or 'the packed layer'}: {error}")
                failed = True
        if bias_key in rest and self.bias is not None and failed and (strict or not missing):
            rest[bias_key] = self.bias  # itself: nothing changes
        before = len(error_msgs)
        super()._load_from_state_dict(
            rest, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        missing_keys.extend(missing)
        if found is not None and len(error_msgs) == before:
            self._adopt(*found)
            if whole_scale is not None:
                self._share.adopt_scale(whole_scale)

    def _of_state(self, packed: Any, scale: Any) -> tuple[Tensor, Tensor]:
        """Panels and scales of a state's tensors, which may be memory-mapped: one copy is made, in
        the kernels' layout. Raises for what is no state of this layer."""
        for name, value in (("packed", packed), ("scale", scale)):
            if not isinstance(value, Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(value).__name__}")
        if packed.device.type == "meta" and self._panels.device.type == "meta":
            return self._panels, self._scales
        shape = (self.out_features, -(-self.in_features // _fabric.TRITS_PER_BYTE))
        if packed.dtype != torch.uint8 or tuple(packed.shape) != shape:
            raise errors.ArgumentError(
                f"packed is {packed.dtype} of shape {tuple(packed.shape)}; the layer's is "
                f"torch.uint8 of shape {shape}"
            )
        if not scale.dtype.is_floating_point:
            raise errors.ArgumentError(f"scale is {scale.dtype}; it must be float32")
        scales = self._kernel_scale(scale)
        with errors.as_own():
            panels = panels_of_rows(packed.cpu(), self.in_features, self._layout)
        return panels, scales

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As nn.Module's; trits and scales stay what they are, scales float32."""
        before = {name: self._buffers[name] for name in _BUFFERS}
        kept = [old for old in before.values() if old is not None and old.device.type == "cpu"]

        def in_kind(tensor: Tensor) -> Tensor:
            """Whoever calls the layer meanwhile finds its trits and scales as they are."""
            new: Tensor = fn(tensor)
            if any(tensor is old for old in kept) and new.device.type == "cpu":
                return new if new.dtype == tensor.dtype and torch.equal(new, tensor) else tensor
            return new

        result = super()._apply(in_kind, recurse)
        old, new = before["_panels"], self._buffers["_panels"]
        assert old is not None
        assert new is not None
        if old.device.type == "meta" and new.device.type == "cpu":  # to_empty
            self._set_zero()
        return result

    def _state(self) -> dict[str, Any]:
        """Portable: rows and scale, not the layout of this machine's kernels."""
        state = super()._state()
        state["_buffers"] = {k: v for k, v in state["_buffers"].items() if k not in _BUFFERS}
        state["_rows"] = None if self._panels.device.type == "meta" else self.packed
        state["_scale_rows"] = self.scale.clone() if state["_rows"] is not None else None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        rows, scale = state.pop("_rows"), state.pop("_scale_rows")
        super().__setstate__(state)
        if rows is None:
            size = _fabric.panel_bytes(self._layout, self.out_features, self.in_features)
            panels = torch.empty(size, dtype=torch.uint8, device="meta")
            scales = torch.ones(1, device="meta")
        else:
            # Of this machine's kernels, which may like another layout of the same packing.
            self._layout = _layout(self._activation, self.packing, self._group_size)
            panels = panels_of_rows(rows, self.in_features, self._layout)
            scales = self._kernel_scale(scale)
        self.register_buffer("_panels", panels, persistent=False)
        self.register_buffer("_scales", scales, persistent=False)

    def extra_repr(self) -> str:
        groups = f", group_size={self._group_size}" if self._group_size else ""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, name={self.name!r}, activation={self._activation!r}, "
            f"packing={self.packing!r}{groups}{', offload=True' if self._offload else ''}"
        )


def _layout(activation: str, packing: str, group_size: int) -> str:
    """The kernels' layout of a packing. Raises ArgumentError."""
    if group_size and packing == "packed_base3":
        raise errors.ArgumentError("packing 'packed_base3' takes no group scales; use 'packed2'")
    return _fabric.packing_layout(activation, "packed2" if group_size else packing)


def _checked_group(group_size: int | None) -> int:
    """A group size as ops take it: 0 for None. Raises ValueError."""
    if group_size is None:
        return 0
    if not isinstance(group_size, int) or group_size not in GROUP_SIZES:
        allowed = ", ".join(map(str, GROUP_SIZES))
        raise ValueError(f"group_size is {group_size!r}; allowed are {allowed}, or None")
    return group_size


def _kernel_scale(scale: Tensor, outputs: int, inputs: int, group_size: int) -> Tensor:
    """A copy of a scale as the kernels read it. Raises ArgumentError for another shape."""
    scale = scale.detach().to("cpu", torch.float32)
    if group_size:
        groups = -(-inputs // group_size)
        if tuple(scale.shape) != (outputs, groups):
            raise errors.ArgumentError(
                f"scale is of shape {tuple(scale.shape)}; with groups of {group_size} it must be "
                f"({outputs}, {groups})"
            )
        return torch_ops.ordered_scales(  # type: ignore[no-any-return]
            scale.contiguous(), inputs, group_size
        )
    if tuple(scale.shape) not in ((), (1,), (outputs,), (outputs, 1)):
        raise errors.ArgumentError(
            f"scale is of shape {tuple(scale.shape)}; without a group_size it must be (1,) or "
            f"({outputs},)"
        )
    return scale.reshape(-1).clone()
