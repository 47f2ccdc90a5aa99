"""PyTorch and ONNX to MLIR, and MLIR to functions of this process (docs/compiler.md)."""

from __future__ import annotations

try:
    import ml_dtypes as _ml_dtypes  # noqa: F401
    import onnx as _onnx  # noqa: F401
    import onnx_ir as _onnx_ir  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"pytfmbs.compiler needs onnx, onnx-ir, onnxscript and ml_dtypes ({error}): "
        "pip install onnx onnxscript ml_dtypes (the extra 'compile')"
    ) from error

from .compiled import CompiledModule, compile_module
from .driver import compile
from .errors import ConversionError, InvalidModelError, UnsupportedOperatorError
from .importer import import_onnx
from .module import MlirModule, TensorInfo
from .signature import TensorType
from .telemetry import read_telemetry
from .toolchain import CompilationError, Toolchain, ToolNotFoundError
from .torch_frontend import to_mlir, to_onnx

__all__ = [
    "CompilationError",
    "CompiledModule",
    "ConversionError",
    "InvalidModelError",
    "MlirModule",
    "TensorInfo",
    "TensorType",
    "ToolNotFoundError",
    "Toolchain",
    "UnsupportedOperatorError",
    "compile",
    "compile_module",
    "import_onnx",
    "read_telemetry",
    "to_mlir",
    "to_onnx",
]
