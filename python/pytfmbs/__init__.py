"""pytfmbs: train, run and profile ternary networks in PyTorch.

Modules of torch's kind (``TFMBSLinear``, ``convert``) compute ternary products at the speed of the
CPU's best kernels, and the Ternary Fabric, a tiled ternary vector engine, keeps exact account of
them (``Fabric``).
"""

from __future__ import annotations

from . import _fused_optimizers
from ._libraries import load_torch_ops as _load_torch_ops

_load_torch_ops()

from ._fabric import (  # noqa: E402
    TFD,
    Fabric,
    FabricConfig,
    Handle,
    active_kernels,
    check_kernel_selection,
    kernel_sets,
    select_kernels,
    set_weight_storage,
    version,
    weight_storage,
)

__version__ = version()
_fused_optimizers.register()
check_kernel_selection()  # a wrong TFMBS_KERNEL is an error here, not a slow surprise later

from .agent import AdaptiveRuntimeAgent  # noqa: E402
from .convert import convert  # noqa: E402
from .errors import (  # noqa: E402
    AddressError,
    ArgumentError,
    ClosedError,
    DescriptorError,
    EncodingError,
    FabricError,
    GeometryError,
    PlacementError,
)
from .function import TFMBSLinearFunction  # noqa: E402
from .linear import TFMBSLinear  # noqa: E402
from .linear_relu import TFMBSLinearReLU  # noqa: E402
from .packing import pack_pt5, unpack_pt5  # noqa: E402
from .quantizers import AbsMeanQuantizer, SignQuantizer, TwnQuantizer, WeightQuantizer  # noqa: E402

__all__ = [
    "TFD",
    "AbsMeanQuantizer",
    "AdaptiveRuntimeAgent",
    "AddressError",
    "ArgumentError",
    "ClosedError",
    "DescriptorError",
    "EncodingError",
    "Fabric",
    "FabricConfig",
    "FabricError",
    "GeometryError",
    "Handle",
    "PlacementError",
    "SignQuantizer",
    "TFMBSLinear",
    "TFMBSLinearFunction",
    "TFMBSLinearReLU",
    "TwnQuantizer",
    "WeightQuantizer",
    "active_kernels",
    "convert",
    "kernel_sets",
    "pack_pt5",
    "select_kernels",
    "set_weight_storage",
    "unpack_pt5",
    "weight_storage",
]
