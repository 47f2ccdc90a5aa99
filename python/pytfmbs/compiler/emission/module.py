"""What the front end gives: a module as text, and what is known of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConversionError
from ..toolchain.programs import Toolchain


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its name in the model, and its type in MLIR."""

    name: str
    type: str


@dataclass(frozen=True)
class MlirModule:
    """A converted model.

    ``layers``: for each ternary layer, in program order, what ``telemetry_hint`` says of it, but
    for ``resident``. ``sources``: the ONNX node that each came from, its operator and name.
    """

    text: str
    layers: tuple[dict[str, Any], ...]
    sources: tuple[tuple[str, str], ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    function_name: str

    def __str__(self) -> str:
        return self.text

    def save(self, path: str | os.PathLike[str], *, toolchain: Toolchain | None = None) -> None:
        """Writes text (.mlir) or bytecode (.mlirbc: weights raw, 1.6 bits each).

        Raises ConversionError for another ending; for bytecode ToolNotFoundError and
        CompilationError, as it is mlir-opt's work.
        """
        path = Path(path)
        if path.suffix == ".mlir":
            path.write_text(self.text, encoding="utf-8", newline="\n")
        elif path.suffix == ".mlirbc":
            tools = toolchain or Toolchain()
            tools.run(
                "mlir-opt",
                *tools.plugin_flags(),
                "--emit-bytecode",
                "-o",
                str(path),
                "-",
                stdin=self.text.encode(),
            )
        else:
            raise ConversionError(f"{path} must end in .mlir (text) or .mlirbc (bytecode)")
