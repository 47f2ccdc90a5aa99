"""The demo, run as a user runs it: what it claims, what it saves, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

SEEDS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """Output folder, what was printed, and seconds."""
    folder = tmp_path_factory.mktemp("demo")
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytfmbs.demo", "--seeds", str(SEEDS), "--output", str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, time.monotonic() - start


def test_ternary_is_within_a_point_and_a_half_of_fp32(run: tuple[Path, str, float]) -> None:
    results = json.loads((run[0] / "results.json").read_text())
    assert results["points_below_fp32"] <= 1.5
    assert results["points_above_just_quantized"] >= 2.0


def test_every_seed_is_shown(run: tuple[Path, str, float]) -> None:
    fp32 = next(line for line in run[1].splitlines() if line.startswith("fp32"))
    shown = [word for word in fp32.split() if word.replace(".", "").isdigit()]
    assert len(shown) >= SEEDS + 2  # the seeds, the mean and the spread


def test_a_fresh_process_gets_the_same_outputs(run: tuple[Path, str, float]) -> None:
    assert json.loads((run[0] / "results.json").read_text())["same_outputs_after_reload"] is True


def test_the_pictures_are_there(run: tuple[Path, str, float]) -> None:
    for name in ("sram.png", "cycles.png", "weights.png"):
        content = (run[0] / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
