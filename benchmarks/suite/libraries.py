"""The C++ libraries of the suite, which are built beside the project's own."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def path_of(folder: str, target: str) -> Path:
    """Of the library that the target makes in a layer's folder."""
    return ROOT / "build" / "cpp" / folder / "bench" / f"lib{target}.so"


def load(variable: str, path: Path, target: str) -> ctypes.CDLL:
    """The library at the path, or at the one that the environment's variable names."""
    path = Path(os.environ.get(variable, path))
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is missing: `make bench` builds it, as does "
            f"`cmake --build build --target {target}`"
        )
    return ctypes.CDLL(str(path))
