"""From a model to a function of this process in one call."""

from __future__ import annotations

import os
from typing import Any

from .._fabric import Fabric, FabricConfig
from .emission.module import MlirModule
from .execution.compiled import CompiledModule, Target, compile_module
from .frontend.torch_frontend import to_mlir
from .toolchain.programs import Toolchain


def compile(
    source: Any,
    args: Any = None,
    *,
    target: Target = "linalg",
    fabric: Fabric | None = None,
    config: FabricConfig | None = None,
    place: bool = False,
    opt_level: int = 3,
    keep: str | os.PathLike[str] | None = None,
    toolchain: Toolchain | None = None,
    **conversion: Any,
) -> CompiledModule:
    """Converts and compiles a model: :func:`to_mlir`, then :func:`compile_module`.

    source is an nn.Module (args are example inputs), an exported program, an ONNX model, the path
    of a .onnx, .pt2, .mlir or .mlirbc file, or MLIR as text or MlirModule. conversion holds options
    of ``to_mlir`` (weight_quantizer, activation, outputs, ...); the others are compile_module's.
    Layers get the tile masks of config, or else of the fabric's geometry.

    Raises what the two raise. TypeError: args or options of a conversion, and a module that is MLIR
    already.
    """
    if _is_mlir(source):
        if args is not None or conversion:
            given = [*(["args"] if args is not None else []), *conversion]
            raise TypeError(f"{', '.join(given)} given, but the module is MLIR already")
        module = source
    else:
        geometry = fabric.config if config is None and fabric is not None else config
        module = to_mlir(source, args, config=geometry, **conversion)
    return compile_module(
        module, target=target, fabric=fabric, config=config, place=place, opt_level=opt_level,
        keep=keep, toolchain=toolchain,
    )  # fmt: skip


def _is_mlir(source: Any) -> bool:
    if isinstance(source, MlirModule):
        return True
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source)
    return "\n" in text or text.endswith((".mlir", ".mlirbc"))
