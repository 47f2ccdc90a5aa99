"""What every layer of the fabric shares: its name, its place on a device, and their life."""

from __future__ import annotations

import copy
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .. import errors
from .._fabric import Fabric, Layer, default_tile_mask
from ..ops.identity import identity_tensor
from ..ops.observers import profiler_enabled
from ..quantization.activations import ACTIVATIONS, WINDOWS

_NOT_PROFILED = nullcontext()
# What __setstate__ builds anew: a place on a device is this process's own.
_TRANSIENT = ("_layer", "_own_identity", "_kept", "_kept_shard", "_storage", "_compiled_call_impl")
#: The buffer through which compiled and exported graphs get a layer's identity. It is not saved.
IDENTITY = "fabric_identity"


def checked_clip(clip: float | None) -> float | None:
    if clip is not None and not clip > 0:
        raise ValueError(f"ste_clip is {clip!r}; it must be above 0, or None")
    return None if clip is None else float(clip)


class FabricLayer(nn.Module):
    """Base of trainable and packed layers. A subclass has ``in_features`` and ``out_features``, says
    how its weights are quantized (``_quantizer_name``), and gives them (``quantized_weight``,
    ``_prefetch``)."""

    in_features: int
    out_features: int
    fabric_identity: Tensor
    _layer: Layer
    _quantizer_name: str
    _fabric: Fabric
    _activation: str
    _window: float | None
    # Defaults of the class, which a layer has as its own only where they differ: up to 30 attributes,
    # CPython keeps their names once for all layers, which spares each 1.4 kB.
    _given_addr: int | None = None
    _given_mask: int | None = None
    _pinned: bool = False
    _ste_clip: float | None = None
    _offload: bool = False
    _wanted_name: str | None = None  # what another device is asked for; None: the name of now
    _group_size: int = 0  # inputs that share a scale; 0: no groups
    _local_shape: tuple[int, int] | None = None  # of a layer that processes share: this one's part

    def _init_fabric_layer(
        self,
        name: str | None,
        fabric: Fabric | None,
        weight_addr: int | None,
        tile_mask: int | None,
        activation: str,
        ste_clip: float | None,
    ) -> None:
        """Called by a subclass's ``__init__`` once it has its sizes. Opens the account."""
        # Past nn.Module's __setattr__, which takes as long as entering the device.
        own = self.__dict__
        own["_fabric"] = Fabric() if fabric is None else fabric
        own["_activation"] = activation
        own["_wanted_name"] = name or "linear"
        own["_window"] = WINDOWS[activation] if ste_clip is None else ste_clip
        if weight_addr is not None:
            own["_given_addr"] = weight_addr
        if tile_mask is not None:
            own["_given_mask"] = tile_mask
        if ste_clip is not None:
            own["_ste_clip"] = ste_clip
        self._enter(name or "linear")

    @staticmethod
    def _check_options(name: str | None, fabric: Fabric | None, activation: str) -> None:
        if fabric is not None and not isinstance(fabric, Fabric):
            raise TypeError(f"fabric must be a pytfmbs.Fabric or None, not {type(fabric).__name__}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string or None, not {type(name).__name__}")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {activation!r}; allowed are {', '.join(map(repr, ACTIVATIONS))}"
            )

    def quantized_weight(self) -> tuple[Tensor, Tensor]:
        """Trits, int8 [out_features, in_features], and scale."""
        raise NotImplementedError

    def _prefetch(self) -> bool:
        raise NotImplementedError

    # --- placement and telemetry --------------------------------------------------------------

    @property
    def name(self) -> str:
        """The layer's name in telemetry. Setting it resets the layer's counters."""
        return self._layer.name

    @name.setter
    def name(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a non-empty string, not {name!r}")
        if name != self.name:
            self._move(name, self._given_addr, self._given_mask)
            self._wanted_name = name

    @property
    def fabric(self) -> Fabric:
        """The device that the layer runs on."""
        return self._fabric

    @property
    def activation(self) -> str:
        return self._activation

    @property
    def weight_addr(self) -> int | None:
        """Byte address in tile 0's Bank A, given or chosen by the device; None before the layer is
        placed."""
        return self._layer.profile()["weight_addr"]  # type: ignore[no-any-return]

    @weight_addr.setter
    def weight_addr(self, address: int | None) -> None:
        self._move(self.name, address, self._given_mask)

    @property
    def tile_mask(self) -> int:
        """Tiles that the layer runs on, bit t for tile t. Setting None goes back to the automatic
        mask."""
        if self._offload:
            if self._given_mask is not None:
                return self._given_mask
            return default_tile_mask(self._fabric.config, max(self.out_features, 1))
        return self._layer.profile()["tile_mask"]  # type: ignore[no-any-return]

    @tile_mask.setter
    def tile_mask(self, mask: int | None) -> None:
        self._move(self.name, self._given_addr, mask)

    @property
    def resident(self) -> bool:
        """Whether the layer's weights lie in Bank A."""
        return self._layer.profile()["resident"]  # type: ignore[no-any-return]

    @property
    def given_weight_addr(self) -> int | None:
        """The address that was set; None if the device chooses."""
        return self._given_addr

    @property
    def given_tile_mask(self) -> int | None:
        """The mask that was set; None if it is automatic."""
        return self._given_mask

    @property
    def pinned(self) -> bool:
        return self._pinned

    @property
    def offload(self) -> bool:
        """Whether the CPU alone computes the layer, with the same numbers and nothing counted.

        Setting True also unpins the layer. Setting False puts it back on the device, and raises
        PlacementError if its given address is taken. No other thread may run the layer meanwhile."""
        return self._offload

    @offload.setter
    def offload(self, offload: bool) -> None:
        if not isinstance(offload, bool):
            raise TypeError(f"offload must be a bool, not {type(offload).__name__}")
        if offload == self._offload:
            return
        pinned = self._pinned
        self._offload, self._pinned = offload, False
        try:
            self._enter(self.name)
        except Exception:
            self._offload, self._pinned = not offload, pinned
            raise

    @property
    def packed_bytes(self) -> int:
        """Host memory that the packed weights take, in bytes; 0 before the first forward pass."""
        return self._layer.packed_bytes

    @property
    def packing(self) -> str | None:
        """The weight packing, "packed2" (2 bits per weight) or "packed_base3" (1.6 bits);
        None before the first forward pass. See pytfmbs.set_weight_storage."""
        layout = self._packed_layout()
        if layout is None:
            return None
        return "packed_base3" if layout.endswith("fives") else "packed2"

    @property
    def packed_layout(self) -> str | None:
        """Deprecated; use ``packing``. The layout's name in the C++ core, such as "trit_quads"."""
        warnings.warn(
            "packed_layout is deprecated and goes with the next release; use packing",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._packed_layout()

    def _packed_layout(self) -> str | None:
        """The name of the layout in the C++ core."""
        return self._layer.packed_layout

    @property
    def telemetry_hint(self) -> dict[str, Any]:
        """What the layer tells the compiler. Keys are ``layer``, ``sparsity`` (the share of zeros among the
        quantized weights, four decimals), ``tile_mask``, and the layer's shape, quantizers, address,
        and ``group_size`` where scales are of groups."""
        trits, _ = self.quantized_weight()
        zeros = trits.numel() - int(torch.count_nonzero(trits))
        self._layer.note_sparsity(zeros, trits.numel())  # so that profiles say the same
        profile = self._layer.profile()
        hint = {
            "layer": self.name,
            "sparsity": profile["sparsity"],
            "tile_mask": self.tile_mask,
            "weight_addr": profile["weight_addr"],
            "resident": profile["resident"],
            "in_features": self.in_features,
            "out_features": self.out_features,
            "weight_quantizer": self._hint_quantizer(),
            "activation": self._activation,
        }
        if self._group_size:
            hint["group_size"] = self._group_size
        return hint

    def _hint_quantizer(self) -> str:
        return self._quantizer_name

    def prefetch(self) -> bool:
        """Loads the weights into Bank A before a forward pass; True if they are resident now, False
        if they stream or the layer is offloaded."""
        if self._offload:
            return False
        try:
            with torch.no_grad():
                return self._prefetch()
        except RuntimeError as error:
            raise errors.from_op(error) or error from None

    def pin(self) -> None:
        """Loads the weights and keeps them in Bank A. Raises PlacementError if they do not fit, or
        if the layer is offloaded."""
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
                f"layer {self.name!r} cannot be pinned: no room beside the layers that are pinned already"
            )

    def unpin(self) -> None:
        """Lets the layer be evicted again."""
        self._layer.set_pinned(False)
        self._pinned = False

    def refresh(self) -> None:
        """Makes the next forward pass quantize the weight again. Needed after changes that the layer
        cannot see: writes through ``.data`` in eval mode, or into inference tensors."""
        self._layer.refresh()

    @property
    def ste_clip(self) -> float | None:
        """The straight-through window of the input gradient; None is the activation's default."""
        return self._ste_clip

    @ste_clip.setter
    def ste_clip(self, clip: float | None) -> None:
        self._ste_clip = checked_clip(clip)
        self._window = self._resolved_window()

    def _resolved_window(self) -> float | None:
        return WINDOWS[self._activation] if self._ste_clip is None else self._ste_clip

    # --- life ---------------------------------------------------------------------------------

    def _enter(self, name: str, replacing: Layer | None = None) -> None:
        """A place on the device under a name, the replaced one's if it likes; offloaded, none."""
        outputs, inputs = self._local_shape or (self.out_features, self.in_features)
        layer = Layer(
            None if self._offload else self._fabric,
            name,
            outputs,
            inputs,
            "custom" if self._local_shape else self._quantizer_name,
            self._activation,
            None if self._offload else self._given_addr,
            None if self._offload else self._given_mask,
            replacing,
            self._group_size,
        )
        own = self.__dict__
        own["_layer"] = layer
        own.pop("_own_identity", None)
        self._buffers[IDENTITY] = identity_tensor(
            layer.identity
        )  # without register_buffer's questions
        self._non_persistent_buffers_set.add(IDENTITY)
        if self._pinned:
            layer.set_pinned(True)

    @cached_property
    def _own_identity(self) -> Tensor:
        """As the buffer, out of reach of what averages or broadcasts buffers."""
        return identity_tensor(self._layer.identity)

    def _enter_part(self, outputs: int, inputs: int) -> None:
        """A place on the device for this process's part of a weight that processes share."""
        if self._local_shape == (outputs, inputs):
            return
        before, self._local_shape = self._local_shape, (outputs, inputs)
        try:
            self._enter(self.name, replacing=None if self._offload else self._layer)
        except Exception:
            self._local_shape = before
            raise

    def _succeed(self, other: FabricLayer) -> None:
        """Takes another layer's name and place on its device; the other needs a new one then."""
        self._given_addr, self._given_mask = other._given_addr, other._given_mask
        self._offload, self._pinned = other._offload, False
        self._wanted_name = other._wanted_name
        self._enter(other.name, replacing=None if other._offload else other._layer)
        if other._pinned:
            self.pin()

    def _leave_place(self) -> None:
        """Where another layer has taken the place: the same name with a suffix, placed
        automatically. A model that still holds this layer can run it."""
        name, self._given_addr, self._pinned = self.name, None, False
        self._enter(name)

    def _move(self, name: str, address: int | None, mask: int | None) -> None:
        """Another name, address or mask. After an error nothing has moved."""
        layer, before = self._layer, (self.name, self._given_addr, self._given_mask)
        try:
            self._given_addr, self._given_mask = address, mask
            self._enter(name, replacing=None if self._offload else layer)
        except Exception:
            name, self._given_addr, self._given_mask = before
            if self._layer is not layer:  # there, but too small a place for a pinned layer
                self._enter(name, replacing=self._layer)
            raise

    def _named_in_profiles(self) -> AbstractContextManager[Any]:
        """Puts the layer's name around its op in torch.profiler's traces."""
        if not profiler_enabled():
            return _NOT_PROFILED
        return torch.profiler.record_function(f"{type(self).__name__}: {self.name}")

    def __prepare_scriptable__(self) -> NoReturn:
        """torch.jit.script asks every module."""
        raise NotImplementedError(
            f"torch.jit.script cannot compile layer {self.name!r} ({type(self).__name__}), which calls "
            "Python. Use torch.jit.trace, torch.export or torch.compile"
        )

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """As nn.Module's; the identity stays on the CPU, and what it says."""
        result = super()._apply(fn, recurse)
        self._buffers[IDENTITY] = self._own_identity.clone()
        return result

    def __getstate__(self) -> dict[str, Any]:
        return self._state()

    # Apart from __getstate__, which torch replaces in parametrized modules: those refuse to pickle,
    # and can be copied.
    def _state(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key not in _TRANSIENT}
        state["_buffers"] = {k: v for k, v in state["_buffers"].items() if k != IDENTITY}
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

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy under the name with a suffix, placed automatically."""
        duplicate = type(self).__new__(type(self))
        memo[id(self)] = duplicate
        state = copy.deepcopy(self._state(), memo)
        state.pop("_given_addr", None)
        state.pop("_pinned", None)
        duplicate.__setstate__(state)
        return duplicate
