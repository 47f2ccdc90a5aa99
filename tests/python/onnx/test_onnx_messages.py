"""What an export prints and logs: nothing of torch's noise, and everything else."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from onnx_models import TORCH_WARNINGS
from pytfmbs.onnx._quiet import torch_noise_hidden

pytestmark = TORCH_WARNINGS

LEAF_SPEC = "`isinstance(treespec, LeafSpec)` is deprecated"


def test_an_export_is_silent(tmp_path: Path) -> None:
    """In a process of its own, since torch says some things once."""
    script = tmp_path / "export.py"
    script.write_text(
        "import torch, pytfmbs, pytfmbs.onnx\n"
        "model = torch.nn.Sequential(pytfmbs.TFMBSLinear(8, 4)).eval()\n"
        "x = torch.randn(2, 8)\n"
        "pytfmbs.onnx.export(model, (x,), dynamic_shapes=({0: 'batch'},))\n"
        "pytfmbs.onnx.export(torch.export.export(model, (x,)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_only_torchs_two_messages_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    """And only while an export runs."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for hidden in (torch_noise_hidden(), nullcontext()):
                with hidden:
                    logger.warning("torchvision is not installed. Skipping %s", "torchvision::nms")
                    logger.warning("another")
                    warnings.warn(f"{LEAF_SPEC}, and more", FutureWarning, stacklevel=1)
                    warnings.warn(f"{LEAF_SPEC}", UserWarning, stacklevel=1)
                    warnings.warn(f"another: {LEAF_SPEC}", FutureWarning, stacklevel=1)
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.get_records("call")]
    skipping = "torchvision is not installed. Skipping torchvision::nms"
    assert list(dict.fromkeys(said)) == ["another", skipping]
    assert said.count("another") == 2 * said.count(skipping)
    assert [str(w.message) for w in warned] == [
        LEAF_SPEC, f"another: {LEAF_SPEC}",
        f"{LEAF_SPEC}, and more", LEAF_SPEC, f"another: {LEAF_SPEC}",
    ]  # fmt: skip
