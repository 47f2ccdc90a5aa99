"""The Python of docs/python-api.md, "Packed layers", runs as it stands, one block after another."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "python-api.md"


def test_every_block_runs() -> None:
    text = PAGE.read_text(encoding="utf-8")
    section = re.search(r"^## Packed layers\n(.*?)^## ", text, re.M | re.S)
    assert section is not None
    blocks = re.findall(r"^```python\n(.*?)^```", section[1], re.M | re.S)
    assert len(blocks) == 3
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("packed")
