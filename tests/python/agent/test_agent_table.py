"""docs/agent.md: its table is current, and what the page says of it is so."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmark_scripts import load_script

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("agent_policy")


@pytest.fixture(scope="module")
def results(script: ModuleType) -> dict[str, list[Any]]:
    return script.measure()


def test_the_pages_table_is_current(script: ModuleType, results: dict[str, list[Any]]) -> None:
    page = (ROOT / "docs" / "agent.md").read_text(encoding="utf-8")
    assert script.markdown(results) in page, "run: python benchmarks/agent_policy.py --write"
    assert page.count(script.BEGIN) == 1
    picture = ROOT / "docs" / "images" / "agent-policy.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "images/agent-policy.png" in page


def test_what_the_page_says(script: ModuleType, results: dict[str, list[Any]]) -> None:
    larger = results["larger than the banks"]
    assert len(larger) == 12
    for found in larger:
        assert found.network.size > 1
        assert found.agent.cycles < 0.98 * found.default.cycles
        assert found.agent.misses <= found.default.misses
        assert found.agent.energy_nj < found.default.energy_nj
    for found in results["larger, and no placement is better"]:
        assert found.network.size > 1
        assert found.agent == found.default
    for found in results["fitting"]:
        assert found.network.size <= 1
        assert found.default.misses == 0
        assert found.agent == found.default
    for found in (found for group in results.values() for found in group):
        assert found.predicted_cycles == pytest.approx(found.agent.cycles, rel=0.005)


def test_the_script_shows_and_draws(
    script: ModuleType,
    results: dict[str, list[Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script.show(results)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 100
    for found in (found for group in results.values() for found in group):
        for cell in script.row(found):
            assert cell in shown
    script.draw(results, tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").stat().st_size > 10_000
    json.dumps([found.to_dict() for group in results.values() for found in group])
