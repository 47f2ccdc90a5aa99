"""The MLIR plugin of pytfmbs: libtfmbs_plugin beside this file, for mlir-opt 22.

pytfmbs.compiler finds it here. Elsewhere: ``mlir-opt-22 --load-dialect-plugin=<path()>``.
"""

from __future__ import annotations

import sys
from pathlib import Path


def path() -> Path:
    """The plugin's file."""
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    return Path(__file__).parent / f"libtfmbs_plugin{suffix}"
