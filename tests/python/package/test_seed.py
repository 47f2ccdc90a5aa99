"""The seed's Python snippets, as they stand there, in processes of their own."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

# Word by word from the seed's page; `# ... run model ...` is where FORWARD goes.
USAGE = """\
import torch
from pytfmbs import TFMBSLinear

# Define a model using TFMBS-accelerated layers
model = torch.nn.Sequential(
    TFMBSLinear(784, 60), # 60 lanes = 4 tiles
    torch.nn.ReLU(),
    TFMBSLinear(60, 10)
)

# Inference (Weights are quantized and loaded on first pass)
input_data = torch.randn(1, 784)
output = model(input_data)
"""
PROFILING = """\
import pytfmbs
fabric = pytfmbs.Fabric()
# ... run model ...
stats = fabric.profile_detailed()
print(f"Cycles: {stats['cycles']}")
"""
GAP = "# ... run model ...\n"
SEED = "import torch\ntorch.manual_seed(12)\n"
FORWARD = "output = model(input_data)\n"


def run(script: str) -> str:
    """What a script prints in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cycles(script: str) -> int:
    """The number of the one line that a script prints."""
    found = re.fullmatch(r"Cycles: (\d+)\n", run(script))
    assert found, script
    return int(found[1])


@pytest.fixture(scope="module")
def once() -> int:
    """Cycles of one forward: the model first, then the profile."""
    return cycles(SEED + USAGE + PROFILING)


def test_usage_runs_verbatim() -> None:
    script = USAGE + "assert output.shape == (1, 10) and output.dtype == torch.float32\n"
    assert run(script + "assert output.requires_grad and not output.isnan().any()\n") == ""


def test_profiling_runs_verbatim_and_counts_nothing_where_nothing_ran() -> None:
    assert cycles(PROFILING) == 0


def test_model_before_handle(once: int) -> None:
    assert once > 0


def test_handle_before_model(once: int) -> None:
    """The usage snippet pasted where the profiling one says "run model"."""
    assert cycles(SEED + PROFILING.replace(GAP, USAGE)) == once


def test_handle_first_of_all(once: int) -> None:
    head, tail = PROFILING.split(GAP)
    assert cycles(head + SEED + USAGE + tail) == once


def test_model_defined_but_not_run() -> None:
    assert cycles(USAGE.replace(FORWARD, "") + PROFILING) == 0


def test_second_forward_loads_no_weights(once: int) -> None:
    twice = cycles(SEED + USAGE + PROFILING.replace(GAP, FORWARD))
    assert once < twice < 2 * once
    # 784 weight words to each of four tiles, 60 to one: all that the second forward does not move.
    assert 2 * once - twice == 4 * 784 + 60


def test_cycles_are_of_this_model(once: int) -> None:
    """Another input, with other zeros, runs in another time: the number is measured, not made."""
    half = USAGE.replace("torch.randn(1, 784)", "torch.randn(1, 784).relu()")
    assert half != USAGE
    assert cycles(SEED + half + PROFILING) < once


def test_section_4_is_a_torch_function() -> None:
    script = """\
import torch
from pytfmbs import TFMBSLinearFunction
assert issubclass(TFMBSLinearFunction, torch.autograd.Function)
weight = torch.randn(10, 60, requires_grad=True)
TFMBSLinearFunction.apply(torch.randn(3, 60), weight).sum().backward()
assert weight.grad.shape == (10, 60)
"""
    assert run(script) == ""
