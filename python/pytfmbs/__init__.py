"""pytfmbs: ternary neural networks in PyTorch.

``TFMBSLinear`` replaces ``nn.Linear``; ``convert`` replaces the linear layers of a whole model.
``Fabric`` reports the cycles, memory traffic and energy that the same layers take on the Ternary
Fabric, a tiled ternary vector engine.
"""

from __future__ import annotations

import warnings as _warnings
from typing import Any as _Any

from .ops import fused_optimizers as _fused_optimizers  # first: it loads the libraries

_fused_optimizers.register()

from . import quantizers  # noqa: E402, F401
from ._fabric import (  # noqa: E402
    TFD,
    Fabric,
    FabricConfig,
    Handle,
    active_kernels,
    check_kernel_selection,
    isa_variants,
    select_kernels,
    set_weight_storage,
    version,
    weight_storage,
)

__version__ = version()
check_kernel_selection()  # a wrong TFMBS_KERNEL is an error here, not a slow surprise later

from .agent import AdaptiveRuntimeAgent  # noqa: E402
from .conversion.convert import convert  # noqa: E402
from .conversion.freeze import freeze, thaw  # noqa: E402
from .conversion.summary import Summary, summary  # noqa: E402
from .decoding import (  # noqa: E402
    compare_decoding,
    prepare_for_decode,
    restore_after_decode,
)
from .distributed import awaiting as _distributed  # noqa: E402
from .errors import (  # noqa: E402
    AddressError,
    ArgumentError,
    CheckpointError,
    ClosedError,
    ConversionError,
    DescriptorError,
    EncodingError,
    FabricError,
    GeometryError,
    MismatchError,
    PlacementError,
)
from .integrations import awaiting as _awaiting  # noqa: E402
from .nn import changes as _changes  # noqa: E402
from .nn import foreign_helpers as _foreign_helpers  # noqa: E402
from .nn import parents as _parents  # noqa: E402
from .nn.function import TFMBSLinearFunction  # noqa: E402
from .nn.linear import TFMBSLinear  # noqa: E402
from .nn.linear_relu import TFMBSLinearReLU  # noqa: E402
from .nn.packed import TFMBSPackedLinear  # noqa: E402
from .nn.prepare import prepare  # noqa: E402
from .quantization.packing import pack_pt5, unpack_pt5  # noqa: E402
from .quantization.quantizers import (  # noqa: E402
    AbsMeanQuantizer,
    SignQuantizer,
    TwnQuantizer,
    WeightQuantizer,
)

_foreign_helpers.register()
_parents.register()
_awaiting.register_with_transformers()
_distributed.register()
_changes.listeners.append(_awaiting.tell_transformers)

__all__ = [
    "TFD",
    "AbsMeanQuantizer",
    "AdaptiveRuntimeAgent",
    "AddressError",
    "ArgumentError",
    "CheckpointError",
    "ClosedError",
    "ConversionError",
    "DescriptorError",
    "EncodingError",
    "Fabric",
    "FabricConfig",
    "FabricError",
    "GeometryError",
    "Handle",
    "MismatchError",
    "PlacementError",
    "SignQuantizer",
    "Summary",
    "TFMBSLinear",
    "TFMBSLinearFunction",
    "TFMBSLinearReLU",
    "TFMBSPackedLinear",
    "TwnQuantizer",
    "WeightQuantizer",
    "active_kernels",
    "compare_decoding",
    "convert",
    "freeze",
    "isa_variants",
    "pack_pt5",
    "prepare",
    "prepare_for_decode",
    "restore_after_decode",
    "select_kernels",
    "set_weight_storage",
    "summary",
    "thaw",
    "unpack_pt5",
    "weight_storage",
]

#: Names of before; they go with the next release.
_RENAMED = {"kernel_sets": "isa_variants"}


def __getattr__(name: str) -> _Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _warnings.warn(
        f"pytfmbs.{name} is now pytfmbs.{_RENAMED[name]}; the old name goes with the next release",
        DeprecationWarning,
        stacklevel=2,
    )
    return globals()[_RENAMED[name]]
