"""Models with TFMBSLinear as ONNX files: docs/onnx.md. Needs the extra ``compile``."""

from __future__ import annotations

try:
    import onnx as _onnx  # noqa: F401
    import onnx_ir as _onnx_ir  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"pytfmbs.onnx needs onnx, onnx-ir and onnxscript ({error}): pip install onnx onnxscript "
        "(the extra 'compile')"
    ) from error

from ._layers import ExportError
from .export import export, translation_table

__all__ = ["ExportError", "export", "translation_table"]
