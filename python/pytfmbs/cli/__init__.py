"""The command ``pytfmbs`` (``python -m pytfmbs``): inspect, convert and summarize checkpoints."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command and returns its exit code: 0 done, 1 refused or damaged, 2 usage."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich", "click"):
            raise
        print(f"pytfmbs needs {error.name}: pip install 'pytfmbs[cli]'", file=sys.stderr)
        return 1
    return run()
