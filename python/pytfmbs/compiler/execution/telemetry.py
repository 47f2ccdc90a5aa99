"""Telemetry of a module, as its ops carry it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ..emission.module import MlirModule
from ..toolchain import pipelines
from ..toolchain.programs import NO_OP_DUMPS, CompilationError, Toolchain
from .compiled import source_file

# telemetry_hint's keys, in its order, without the state of a device.
_KEYS = (
    "layer", "sparsity", "tile_mask", "weight_addr", "in_features", "out_features",
    "weight_quantizer", "activation",
)  # fmt: skip


def read_telemetry(
    module: str | os.PathLike[str] | MlirModule, toolchain: Toolchain | None = None
) -> list[dict[str, Any]]:
    """What every op with telemetry says of its layer, in program order.

    The module (text, the path of a file, or an MlirModule) may be as the front end wrote it or
    lowered to linalg. Each dictionary has the keys of ``telemetry_hint`` but for ``resident``:
    ``weight_addr`` is None where the module leaves it to the device, and what the module does not
    say of quantizers is absent; entries that the module adds follow.

    Raises ToolNotFoundError, CompilationError (no valid module), FileNotFoundError, TypeError.
    """
    tools = toolchain or Toolchain()
    with tempfile.TemporaryDirectory(prefix="tfmbs-") as name:
        folder = Path(name)
        report = folder / "telemetry.json"
        passes = pipelines.module_pipeline(
            f"tfmbs-report-telemetry{{output={pipelines.option(str(report))}}}"
        )
        tools.run(
            "mlir-opt", *tools.plugin_flags(), f"--pass-pipeline={passes}", NO_OP_DUMPS,
            str(source_file(module, folder)), "-o", os.devnull,
        )  # fmt: skip
        try:
            entries = json.loads(report.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CompilationError(
                "tfmbs-report-telemetry", f"left no report that can be read: {error}"
            ) from error
    return [_hint(entry) for entry in entries]


def _hint(entry: dict[str, Any]) -> dict[str, Any]:
    hint: dict[str, Any] = {
        key: entry.get(key) for key in _KEYS if key in entry or key == "weight_addr"
    }
    if "sparsity" in hint:
        hint["sparsity"] = float(hint["sparsity"])  # JSON writes 0.0 as 0
    return hint | {key: value for key, value in entry.items() if key not in (*_KEYS, "op")}
