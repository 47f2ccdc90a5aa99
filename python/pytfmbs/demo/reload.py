"""Does a saved model give the same outputs in another process?

``python -m pytfmbs.demo.reload MODEL PROBE`` is that process: it exits with 0 if the model's outputs
equal the ones in the probe, bit for bit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

_PACKAGES = Path(__file__).resolve().parents[2]


def survives(model: nn.Module, inputs: Tensor, folder: Path) -> bool:
    """Saves the model to folder/model.pt; True if a fresh process gets the same outputs of it."""
    with torch.inference_mode():
        outputs = model(inputs)
    saved, probe = folder / "model.pt", folder / "probe.pt"
    torch.save(model, saved)
    torch.save({"inputs": inputs, "outputs": outputs}, probe)
    # The package may have been found through this process's own path.
    path = [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-m", "pytfmbs.demo.reload", str(saved), str(probe)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
        check=False,
    )
    probe.unlink()
    return finished.returncode == 0


def main(model_file: str, probe_file: str) -> int:
    # Whole modules are code; this file was written by the process that started this one.
    model = torch.load(model_file, weights_only=False)
    probe = torch.load(probe_file)
    with torch.inference_mode():
        return 0 if torch.equal(model(probe["inputs"]), probe["outputs"]) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
