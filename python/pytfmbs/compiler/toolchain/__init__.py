"""MLIR's and LLVM's programs, and the pass pipelines that they run. Only the standard library."""

from __future__ import annotations

from .programs import CompilationError, Toolchain, ToolNotFoundError

__all__ = ["CompilationError", "ToolNotFoundError", "Toolchain"]
