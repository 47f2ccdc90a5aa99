"""README's Python runs as it stands, one block after another, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_runs_and_says_what_it_prints() -> None:
    text = README.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    telemetry, training, compiling = blocks
    said = re.search(r"^# (Cycles: .* nJ)", telemetry, re.M)
    assert said is not None
    kept = "    losses.append(loss.item())\n    optimizer.zero_grad()\n"
    training = training.replace("    optimizer.zero_grad()\n", kept)
    output = run(f"{telemetry}\nlosses = []\n{training}\n{compiling}\nprint(losses[0], losses[-1])")
    counters, losses = output.strip().splitlines()
    assert counters == said[1]
    first, last = map(float, losses.split())
    assert last < first / 2
