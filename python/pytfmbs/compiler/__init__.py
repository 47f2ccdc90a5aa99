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

from .driver import compile
from .emission.module import MlirModule, TensorInfo
from .errors import ConversionError, InvalidModelError, UnsupportedOperatorError
from .execution.compiled import CompiledModule, compile_module
from .execution.signature import TensorType
from .execution.telemetry import read_telemetry
from .frontend.importer import import_onnx
from .frontend.torch_frontend import to_mlir, to_onnx
from .toolchain import pipelines
from .toolchain.programs import CompilationError, Toolchain, ToolNotFoundError

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
    "pipelines",
    "read_telemetry",
    "to_mlir",
    "to_onnx",
]
