"""What pyproject.toml and requirements/ say twice, they say alike."""

from __future__ import annotations

import re
import sys

import pytest
from environment import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")


def names(lines: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines)
    return {match[0] for match in found if match}


@pytest.mark.parametrize("extra", ["compile", "demo", "test", "lint"])
def test_each_extra_is_pinned(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = (ROOT / "requirements" / f"{extra}.txt").read_text().splitlines()
    declared = project["project"]["optional-dependencies"][extra]
    assert names(declared) == names([line for line in pinned if not line.startswith("#")])
    if extra == "lint":
        assert set(declared) <= set(pinned)
