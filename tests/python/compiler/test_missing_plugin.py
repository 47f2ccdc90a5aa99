"""Compiling without the plugin: every target says which library is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import Toolchain, ToolNotFoundError, compile, compile_module, to_mlir
from pytfmbs.compiler.toolchain import programs
from torch import nn


@pytest.fixture
def no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlir_tools: Toolchain) -> Path:
    """Every program of MLIR and LLVM is there, and no place has the plugin. An empty folder."""
    monkeypatch.delenv("TFMBS_MLIR_PLUGIN", raising=False)
    monkeypatch.setattr(programs, "_ROOT", tmp_path / "tree")
    monkeypatch.setattr(programs, "_PACKAGE", tmp_path / "package")
    monkeypatch.setattr(programs, "_PLUGIN_WHEEL", "pytfmbs_no_such_plugin")
    return tmp_path


def test_each_target_names_the_plugin(no_plugin: Path) -> None:
    module = to_mlir(TFMBSLinear(8, 4).eval(), (torch.randn(1, 8),))
    targets: tuple[Any, ...] = ("linalg", "runtime")
    for target in targets:
        for source in (module, str(module)):
            with pytest.raises(ToolNotFoundError, match="make build-mlir") as raised:
                compile_module(source, target=target)
            assert programs.PLUGIN_NAME in raised.value.tool
            assert f"{no_plugin / 'package' / programs.PLUGIN_NAME}: not there" in str(raised.value)
        with pytest.raises(ToolNotFoundError, match=r"plugin=.*elsewhere\.so: not there"):
            compile_module(module, target=target, toolchain=Toolchain(plugin="elsewhere.so"))


def test_placement_names_the_plugin(no_plugin: Path) -> None:
    with pytest.raises(ToolNotFoundError, match=programs.PLUGIN_NAME):
        compile(TFMBSLinear(8, 4).eval(), (torch.randn(1, 8),), place=True)


def test_a_model_without_layers_needs_no_plugin(no_plugin: Path) -> None:
    x = np.linspace(-2, 2, 6, dtype=np.float32).reshape(2, 3)
    with compile(nn.ReLU(), (torch.from_numpy(x),)) as program:
        np.testing.assert_array_equal(program(x), np.maximum(x, 0))
