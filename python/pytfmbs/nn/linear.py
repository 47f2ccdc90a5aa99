"""TFMBSLinear: nn.Linear on the Ternary Fabric."""

from __future__ import annotations

import copy
import warnings
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .. import _fabric, errors
from .._fabric import Fabric
from ..ops import observers, torch_ops
from ..ops.dense import check_layout, exceeds_storage
from ..quantization import quantizers
from ..quantization.activations import ACTIVATIONS
from ..quantization.quantizers import WeightQuantizer

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# What __setstate__ builds anew: a place on a device is this process's own.
_TRANSIENT = ("_layer", "_spec", "_host")

_Parameter = nn.Parameter
_is_traced = torch.compiler.is_dynamo_compiling
_linear = torch_ops.linear
# The same op without the Python frame of torch's OpOverload, which Dynamo wants to see.
_eager_linear = getattr(torch_ops.linear, "_op", torch_ops.linear)
_fabric.use_tensors(Tensor, _Parameter, observers.QUESTIONS)


def _checked_clip(clip: float | None) -> float | None:
    if clip is not None and not clip > 0:
        raise ValueError(f"ste_clip is {clip!r}; it must be above 0, or None")
    return None if clip is None else float(clip)


class TFMBSLinear(nn.Linear):
    """A drop-in for nn.Linear with ternary weights, computed as the Ternary Fabric computes it.

    Weights stay ordinary parameters (``weight``, ``bias``, nn.Linear's ``state_dict``); they are
    quantized and packed on the first forward, and again whenever they change. The product is exact
    in int32; scale and bias are applied in fp32 (fp64 for fp64 input), and the result is rounded
    once to nn.Linear's output dtype.

    Args:
        in_features, out_features, bias: as nn.Linear's.
        device, dtype: as nn.Linear's; dtype is float32, float64, bfloat16 or float16.
        name: the layer's name in telemetry; None makes one. A name that another layer of the device
            has gets a suffix.
        weight_addr: byte address in tile 0's Bank A; None lets the device choose.
        fabric: the device; None is the process's default one.
        weight_quantizer: "sign", "absmean", "twn", or an object (see pytfmbs.WeightQuantizer).
        activation: "ternary" (sign; one trit) or "int8" (a token's absmax to ±127).
        ste_clip: the straight-through window of the input gradient, |x| <= ste_clip; None is 1 for
            ternary activations and no window for int8. Where activations are sums of trits, about
            sqrt(in_features) of the layer before.
        tile_mask: tiles to run on, bit t for tile t; None is the lowest min(tiles,
            ceil(out_features / lanes)).

    Shapes: input [..., in_features], output [..., out_features].

    Raises:
        PlacementError: weight_addr outside Bank A, too small a rest of the bank, or another
            layer's.
        ArgumentError: a tile mask or activation that does not exist. ValueError, TypeError: as
            named.
    """

    _layer: _fabric.Layer
    _spec: str
    _offload: bool = False
    _host: Fabric | None = None  # where an offloaded layer lives: a device that counts nothing

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
        if (dtype or torch.get_default_dtype()) not in _DTYPES:
            raise TypeError(
                f"dtype is {dtype}; TFMBSLinear takes float32, float64, bfloat16 and float16"
            )
        if fabric is not None and not isinstance(fabric, Fabric):
            raise TypeError(f"fabric must be a pytfmbs.Fabric or None, not {type(fabric).__name__}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, not {type(name).__name__}")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}; allowed are {', '.join(map(repr, ACTIVATIONS))}"
            )
        clip = _checked_clip(ste_clip)
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._fabric = Fabric() if fabric is None else fabric
        self._weight_quantizer = quantizers.resolve(weight_quantizer)
        self._activation = activation
        self._given_addr = weight_addr
        self._given_mask = tile_mask
        self._pinned = False
        self._ste_clip = clip
        self._enter(name or "linear")

    # --- the forward --------------------------------------------------------------------------

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
                return _linear(input, weight, bias, self._spec, self.training)  # type: ignore[no-any-return]
            if not self.training:
                output = self._layer.direct_forward(input, weight, bias)
                if output is not None:
                    return output  # type: ignore[return-value]
            return _eager_linear(input, weight, bias, self._spec, self.training)  # type: ignore[no-any-return]
        except (RuntimeError, TypeError) as error:
            self._raise_as_linear_does(error, input)

    def _forward_general(self, input: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        """With a quantizer of the user's, or a weight that is no parameter."""
        # Parameters are replaced while torch.onnx.export traces.
        if type(weight) is not _Parameter and torch.onnx.is_in_onnx_export():
            return self._forward_onnx(input, weight, bias)
        if self._custom:
            trits, scale = quantizers.apply(self._weight_quantizer, weight.detach())
            return torch_ops.linear_trits(input, weight, trits, scale, bias, self._spec)  # type: ignore[no-any-return]
        # A weight that is computed (parametrized, functional_call) may lie in a buffer that a
        # compiled graph uses again without raising its version: compared by content.
        by_content = self.training or type(weight) is not _Parameter
        return _linear(input, weight, bias, self._spec, by_content)  # type: ignore[no-any-return]

    def _forward_onnx(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What pytfmbs.onnx translates."""
        autocast = torch.is_autocast_enabled("cpu")
        out_dtype = torch_ops.autocast_dtype(input, weight) if autocast else None
        return torch_ops.onnx_linear(input, weight, bias, self._spec, out_dtype)  # type: ignore[no-any-return]

    def _raise_as_linear_does(self, error: Exception, input: Tensor) -> NoReturn:
        errors.raise_own(error)
        check_layout(input, "input")
        # What nn.Linear raises, in its own type and words; but it reads an input beyond its storage.
        if not (isinstance(input, Tensor) and exceeds_storage(input)):
            nn.functional.linear(input, self.weight, self.bias)
        raise error

    # --- placement and telemetry --------------------------------------------------------------

    @property
    def name(self) -> str:
        """The layer's name in telemetry. Setting it starts the layer's counters anew."""
        return self._layer.name

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a string that is not empty, not {name!r}")
        if name != self.name:
            self._move(name, self._given_addr, self._given_mask)

    @property
    def fabric(self) -> Fabric:
        """The device that the layer runs on."""
        return self._fabric

    @property
    def weight_quantizer(self) -> WeightQuantizer:
        return self._weight_quantizer

    @property
    def activation(self) -> str:
        return self._activation

    @property
    def weight_addr(self) -> int | None:
        """Byte address in tile 0's Bank A: the given one, or where the device put the layer, or
        None."""
        if self._offload:
            return None
        return self._layer.profile()["weight_addr"]  # type: ignore[no-any-return]

    @weight_addr.setter
    def weight_addr(self, address: int | None) -> None:
        self._move(self.name, address, self._given_mask)

    @property
    def tile_mask(self) -> int:
        """Tiles that the layer runs on, bit t for tile t. Setting None goes back to the automatic
        mask."""
        return self._layer.profile()["tile_mask"]  # type: ignore[no-any-return]

    @tile_mask.setter
    def tile_mask(self, mask: int | None) -> None:
        self._move(self.name, self._given_addr, mask)

    @property
    def resident(self) -> bool:
        """Whether the layer's weights lie in Bank A."""
        return not self._offload and self._layer.profile()["resident"]

    @property
    def given_weight_addr(self) -> int | None:
        """The address that the layer was told; None where the device chooses."""
        return self._given_addr

    @property
    def given_tile_mask(self) -> int | None:
        """The mask that the layer was told; None where it is automatic."""
        return self._given_mask

    @property
    def pinned(self) -> bool:
        return self._pinned

    @property
    def offload(self) -> bool:
        """Whether the CPU alone computes the layer: the same numbers, no place in Bank A, and
        nothing counted on the device. False unless set. Offloading unpins; coming back, the layer
        enters the device anew, and raises PlacementError where its given address is taken. No
        other thread may be in the layer's forward then."""
        return self._offload

    @offload.setter
    def offload(self, offload: bool) -> None:
        if not isinstance(offload, bool):
            raise TypeError(f"offload must be a bool, not {type(offload).__name__}")
        if offload == self._offload:
            return
        before = self._host, self._pinned
        self._offload, self._pinned, self._host = offload, False, None
        try:
            self._enter(self.name)
        except Exception:
            self._offload = not offload
            self._host, self._pinned = before
            raise

    @property
    def packed_bytes(self) -> int:
        """Host memory that the packed weights take, in bytes; 0 before the first forward."""
        return self._layer.packed_bytes

    @property
    def packed_layout(self) -> str | None:
        """How the packed weights lie (docs/format.md, "Weight panels"): "trit_quads", "int8_fives",
        ...; None before the first forward. See pytfmbs.set_weight_storage."""
        return self._layer.packed_layout

    @property
    def telemetry_hint(self) -> dict[str, Any]:
        """What the compiler and the runtime agree on: ``layer``, ``sparsity`` (zeros among the
        quantized weights, four decimals), ``tile_mask``; and the layer's shape, quantizers and
        place."""
        trits, _ = self.quantized_weight()
        zeros = trits.numel() - int(torch.count_nonzero(trits))
        self._layer.note_sparsity(zeros, trits.numel())  # so that profiles say the same
        profile = self._layer.profile()
        return {
            "layer": self.name,
            "sparsity": profile["sparsity"],
            "tile_mask": profile["tile_mask"],
            "weight_addr": None if self._offload else profile["weight_addr"],
            "resident": not self._offload and profile["resident"],
            "in_features": self.in_features,
            "out_features": self.out_features,
            "weight_quantizer": self._weight_quantizer.name,
            "activation": self._activation,
        }

    def quantized_weight(self) -> tuple[Tensor, Tensor]:
        """Trits, int8 [out_features, in_features], and scale, [1] or [out_features], of the present
        weight. Raises ArgumentError for what a quantizer of the user's gave wrong."""
        with torch.no_grad():
            trits, scale = quantizers.apply(self._weight_quantizer, self.weight.detach())
            if self._custom:  # the ops check them, and this calls none
                quantizers.check_trits(trits)
            return trits, scale

    def prefetch(self) -> bool:
        """Loads the weights into Bank A before a forward; True if they are resident now, False if
        they stream or the layer is offloaded."""
        if self._offload:
            return False
        try:
            with torch.no_grad():
                if self._custom:
                    return bool(
                        torch_ops.prefetch_trits(self.weight, *self.quantized_weight(), self._spec)
                    )
                return bool(torch_ops.prefetch(self.weight, self._spec, self.training))
        except RuntimeError as error:
            raise errors.from_op(error) or error from None

    def pin(self) -> None:
        """Loads the layer and keeps it in Bank A. Raises PlacementError where it does not fit, or
        is offloaded."""
        if self._offload:
            raise errors.PlacementError(
                f"layer {self.name!r} cannot be pinned: it is offloaded to the CPU"
            )
        before = self._pinned
        self._layer.set_pinned(True)
        self._pinned = True
        try:
            resident = self.prefetch()
        except Exception:
            if not before and not self._fabric.closed:
                self.unpin()
            raise
        if not resident:
            self.unpin()
            raise errors.PlacementError(
                f"layer {self.name!r} cannot be pinned: no room beside what is pinned already"
            )

    def unpin(self) -> None:
        """Lets the layer be evicted again."""
        self._layer.set_pinned(False)
        self._pinned = False

    def refresh(self) -> None:
        """Quantizes the weight anew at the next forward: for changes that nothing shows, such as
        writes through ``.data`` in eval mode or into inference tensors."""
        self._layer.refresh()

    # --- life ---------------------------------------------------------------------------------

    def _enter(self, name: str, replacing: _fabric.Layer | None = None) -> None:
        """A place on the device under a name, the replaced one's if it likes."""
        if self._offload and self._host is None:
            self._host = Fabric(self._fabric.config)
            self._host.telemetry = False
        layer = _fabric.Layer(
            self._fabric if self._host is None else self._host,
            name,
            self.out_features,
            self.in_features,
            quantizers.spec_name(self._weight_quantizer),
            self._activation,
            None if self._offload else self._given_addr,
            self._given_mask,
            self._window(),
            replacing,
        )
        self._layer = layer
        self._spec = layer.spec
        self._custom = quantizers.spec_name(self._weight_quantizer) == "custom"
        if self._pinned:
            layer.set_pinned(True)

    def _move(self, name: str, address: int | None, mask: int | None) -> None:
        """Another name, address or mask. After an error nothing has moved."""
        layer, before = self._layer, (self.name, self._given_addr, self._given_mask)
        try:
            self._given_addr, self._given_mask = address, mask
            self._enter(name, replacing=layer)
        except Exception:
            name, self._given_addr, self._given_mask = before
            if self._layer is not layer:  # there, but too small a place for a pinned layer
                self._enter(name, replacing=self._layer)
            raise

    @property
    def ste_clip(self) -> float | None:
        """The straight-through window of the input gradient; None is the activation's default."""
        return self._ste_clip

    @ste_clip.setter
    def ste_clip(self, clip: float | None) -> None:
        self._ste_clip = _checked_clip(clip)
        self._layer.set_ste_clip(self._window())
        self._spec = self._layer.spec

    def _window(self) -> float | None:
        return 1.0 if self._ste_clip is None and self._activation == "ternary" else self._ste_clip

    def __getstate__(self) -> dict[str, Any]:
        return self._state()

    # Apart from __getstate__, which torch replaces in parametrized modules: those refuse to pickle,
    # and can be copied.
    def _state(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key not in _TRANSIENT}
        state["_name"] = self.name
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        name = state.pop("_name")
        super().__setstate__(state)
        try:
            self._enter(name)
        except errors.PlacementError as error:
            self._given_addr = None
            warnings.warn(f"{error}; placed automatically instead", stacklevel=2)
            self._enter(name)

    def __deepcopy__(self, memo: dict[int, Any]) -> TFMBSLinear:
        """A copy under the name with a suffix, placed automatically."""
        duplicate = type(self).__new__(type(self))
        memo[id(self)] = duplicate
        state = copy.deepcopy(self._state(), memo)
        state["_given_addr"] = None
        state["_pinned"] = False
        duplicate.__setstate__(state)
        return duplicate

    def extra_repr(self) -> str:
        return (
            f"{super().extra_repr()}, name={self.name!r}, "
            f"weight_quantizer={self._weight_quantizer.name!r}, activation={self._activation!r}"
            f"{', offload=True' if self._offload else ''}"
        )
