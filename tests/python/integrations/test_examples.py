"""The scripts of examples/ run, offline, on their small random models."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
EXAMPLES = Path(__file__).parents[3] / "examples"
SAYS = {
    "generate_bitnet.py": "ternary",
    "quantize_llama.py": "bytes as saved",
    "convert_gguf.py": "with the same trits and scales",
    "tensor_parallel.py": "one process gives the same tokens",
}
#: Started by torchrun.
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
LAUNCHED = {"tensor_parallel.py": TORCHRUN}


def test_every_example_is_tested_and_described() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(SAYS)
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({name})" in text for name in scripts)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_examples_run(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *LAUNCHED.get(name, ()), EXAMPLES / name],
        capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert not list(tmp_path.iterdir())
