"""What modules of the package import from each other: the contracts of pyproject.toml, and what
import-linter cannot see."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "python" / "pytfmbs"


def test_the_contracts_hold() -> None:
    pytest.importorskip("importlinter")
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def names_of_the_package(code: str, package: tuple[str, ...]) -> Iterator[str]:
    """What code in a folder of the package imports from the package's own __init__."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = [*above, *(node.module or "").split(".")]
            if [part for part in source if part] == ["pytfmbs"]:
                yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (f"import {a.name}" for a in node.names if a.name.split(".")[0] == "pytfmbs")


def modules() -> set[str]:
    return {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}


def test_names_come_from_the_modules_that_own_them() -> None:
    allowed = modules() | {"_fabric"}
    wrong = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        taken = names_of_the_package(path.read_text("utf-8"), ("pytfmbs", *inside.parts[:-1]))
        wrong[str(inside)] = set(taken) - allowed
    assert len(wrong) > 50
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from pytfmbs import TFMBSLinear", "TFMBSLinear"),
        ("from .. import TFMBSLinear", "TFMBSLinear"),
        ("def f():\n    import pytfmbs", "import pytfmbs"),
        ("from .linear import TFMBSLinear", None),
        ("from ..ops import torch_ops", None),
    ],
)
def test_names_of_the_package_are_found(code: str, name: str | None) -> None:
    assert list(names_of_the_package(code, ("pytfmbs", "nn"))) == ([name] if name else [])
