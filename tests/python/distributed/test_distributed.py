"""Ternary layers in several processes: what ranks.py checks, on gloo and the loopback."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

HERE = Path(__file__).resolve().parent
WORLD = 4
TIMEOUT_S = 300


def _checks() -> list[str]:
    """Names of the functions under @check."""
    return [
        node.name
        for file in sorted(HERE.glob("check_*.py"))
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "check" for d in node.decorator_list)
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Of each check, what each process says: nothing, or an error."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(WORLD),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(HERE / "ranks.py"), str(folder)],
            env={**shared, "RANK": str(rank)},
            stderr=(folder / f"{rank}.err").open("w"),
        )
        for rank in range(WORLD)
    ]
    try:
        for process in processes:
            process.wait(TIMEOUT_S)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found: dict[str, list[str]] = {name: [] for name in _checks()}
    for rank in range(WORLD):
        file = folder / f"{rank}.json"
        said = json.loads(file.read_text()) if file.exists() else {}
        for name, texts in found.items():
            texts.append(said.get(name, f"rank {rank} did not run it:\n" + _tail(folder, rank)))
    return found


def _tail(folder: Path, rank: int) -> str:
    return (folder / f"{rank}.err").read_text()[-2000:]


@pytest.mark.parametrize("name", _checks())
def test_in_four_processes(name: str, findings: dict[str, list[str]]) -> None:
    wrong = [text for text in findings[name] if text]
    assert not wrong, "\n\n".join(wrong)
