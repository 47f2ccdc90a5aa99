"""tools/torch_to_tfmbs.py: files, exit statuses, messages."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytfmbs.compiler.cli import main
from torch import nn

TOOL = Path(__file__).resolve().parents[3] / "tools" / "torch_to_tfmbs.py"


def test_without_arguments_writes_the_same_bytes_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = []
    for run in ("a", "b"):
        assert main([], root=tmp_path / run) == 0
        written.append((tmp_path / run / "tests" / "mlir" / "torch_tfmbs.mlir").read_bytes())
    assert written[0] == written[1]
    sample = TOOL.parents[1] / "tests" / "mlir" / "torch_tfmbs.mlir"
    assert written[0] == sample.read_bytes(), "tools/torch_to_tfmbs.py writes it anew"
    assert b'telemetry = {layer = "0", sparsity = 0.0000' in written[0]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Gemm", "node_linear", "0", "60", "x", "784", "0xf", "0.0000"] in rows


def test_the_tool_runs_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "def build():\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 31))\n"
    )
    command = [sys.executable, str(TOOL), "mine:build", "--input-shape", "1x3x4"]
    options = ["-o", "out/mine.mlir", "--tiles", "8", "--lanes", "4", "--name", "forward"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "mine.mlir").read_text()
    assert "func.func @forward(%arg0: tensor<?x3x4xf32>" in text
    assert "tile_mask = 255 : ui64" in text


def test_exported_programs(tmp_path: Path) -> None:
    program = torch.export.export(nn.Sequential(nn.Linear(4, 3)), (torch.randn(2, 4),))
    torch.export.save(program, tmp_path / "model.pt2")
    out = tmp_path / "model.mlir"
    assert main([str(tmp_path / "model.pt2"), "-o", str(out)]) == 0
    assert "tensor<2x3xf32>" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["model.txt"], 2, "MODEL is 'model.txt'"),
        (["x.onnx", "-o", "x.txt"], 2, "must end in .mlir"),
        (["--tiles", "0"], 2, "tiles"),
        (["torch.nn:ReLU"], 2, "needs --input-shape"),
        (["torch.nn:ReLU", "--input-shape", "9" * 30 + "x1"], 2, "9x1 cannot be made"),
        (["torch.nn:ReLU", "--input-shape", f"{2**40}x{2**20}"], 2, "cannot be made"),
        (["none.onnx"], 1, "none.onnx"),
        (["none.pt2"], 1, "none.pt2"),
        (["nowhere:build", "--input-shape", "1x2"], 1, "nowhere"),
        (["json:loads", "--input-shape", "1x2"], 1, "json:loads"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        got = main(arguments)
    except SystemExit as exit_:
        got = int(exit_.code or 0)
    error = capsys.readouterr().err
    assert got == status
    assert message in error
    assert "Traceback" not in error
    if status == 1:
        assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("example", "status", "message"),
    [
        ("5", 2, "example_inputs of {} is 5; it must be a tensor, or a list or tuple"),
        ("lambda: {'x': 1}", 2, "is {{'x': 1}}; it must be a tensor"),
        ("lambda: 1 // 0", 1, "{}: ZeroDivisionError"),
    ],
)
def test_example_inputs_that_are_none(
    example: str, status: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        f"import torch\nbuild = torch.nn.ReLU()\nbuild.example_inputs = {example}\n"
    )
    done = subprocess.run(
        [sys.executable, str(TOOL), "mine:build"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == status
    assert message.format("mine:build") in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_torchs_is_said_and_no_logger_is_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("torch.onnx")
    logger.setLevel(logging.INFO)
    try:
        assert main([], root=tmp_path) == 0
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(logging.NOTSET)
    assert capsys.readouterr().err == ""
