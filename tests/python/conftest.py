"""Settings of all Python tests of this folder. What several of its folders share is in support/."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import pytfmbs
import torch
from hypothesis import settings

if TYPE_CHECKING:
    from bad_calls import Stage
    from pytfmbs.compiler import Toolchain

# Modules that assert for the tests: a failure shows its operands.
pytest.register_assert_rewrite("bad_calls", "onnx_models")

# "repeat", the default, draws the same examples each time; "explore" draws new ones.
settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    # One: the layers of most tests are small, and a second one only waits on a busy machine. Tests
    # of the threaded paths set their own number.
    torch.set_num_threads(1)


def _toolchain(*needs: str) -> Toolchain:
    """A Toolchain that has the named tools; skips with its own words where one is missing."""
    pytest.importorskip("onnx")  # which the compiler reads
    from pytfmbs.compiler import Toolchain, ToolNotFoundError

    tools = Toolchain()
    try:
        for tool in needs:
            tools.path(tool)
    except ToolNotFoundError as error:
        pytest.skip(str(error))
    return tools


@pytest.fixture(autouse=True, scope="module")
def _process_state() -> None:
    # What one file's tests leave in the process, the next file's must not see. Dynamo remembers by
    # code object: a frame that it once skipped stays skipped, and nn.Sequential.forward is one code
    # for all. Benchmarks turn the default device's telemetry off.
    torch._dynamo.reset()
    pytfmbs.Fabric().telemetry = True


@pytest.fixture
def one_thread() -> Iterator[None]:
    """torch on one thread during a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def mlir_tools() -> Toolchain:
    """What compiles a module without layers: MLIR's and LLVM's programs, and a linker."""
    return _toolchain("mlir-opt", "mlir-translate", "opt", "llc", "linker")


@pytest.fixture(scope="session")
def dialect_tools(mlir_tools: Toolchain) -> Toolchain:
    """The same and the project's plugin: what compiles a module with layers."""
    return _toolchain("plugin")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """What bad calls are made on."""
    from bad_calls import Stage

    built = Stage()
    yield built
    built.fabric.close()
    built.other.close()
