"""PyTorch and ONNX to MLIR, and MLIR to functions of this process (docs/compiler.md)."""

from .compiled import CompiledModule, compile_module
from .signature import TensorType
from .toolchain import CompilationError, Toolchain, ToolNotFoundError

__all__ = [
    "CompilationError",
    "CompiledModule",
    "TensorType",
    "ToolNotFoundError",
    "Toolchain",
    "compile_module",
]
