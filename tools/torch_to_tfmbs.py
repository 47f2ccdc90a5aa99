#!/usr/bin/env python3
"""PyTorch and ONNX models to MLIR in the tfmbs dialect: ``torch_to_tfmbs.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

try:
    from pytfmbs.compiler.cli import main
except ImportError as error:
    sys.exit(f"torch_to_tfmbs.py: error: {error} (make build, or pip install pytfmbs[compile])")

if __name__ == "__main__":
    sys.exit(main(root=ROOT))
