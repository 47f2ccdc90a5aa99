"""Loads the C++ libraries, or says what to do where they are missing, and where they are."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_PACKAGE = Path(__file__).parents[1]
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")


def load_torch_ops() -> None:
    """Registers the torch ops of namespace ``tfmbs``. Raises ImportError where the library is
    missing or unfit."""
    library = _PACKAGE / f"libtfmbs_torch{_SUFFIX}"
    if not library.exists():
        raise ImportError(
            f"pytfmbs is not built: {library.name} is missing. From a checkout run `make build`, "
            "or install the package: pip install --no-build-isolation ."
        )
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        raise ImportError(
            f"{library.name} does not load with torch {torch.__version__} "
            f"(2.10 or later is needed): {error}"
        ) from error


def runtime_library() -> Path:
    """The file of libtfmbs that this process uses: a second copy would be a second device."""
    from .. import _fabric

    return _PACKAGE / _fabric.library()
