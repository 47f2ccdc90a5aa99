"""Where tools are looked for, and what is said where they are missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytfmbs.compiler.toolchain import CompilationError, Toolchain, ToolNotFoundError, programs

TOOLS = ("mlir-opt", "mlir-translate", "mlir-runner", "opt", "llc")


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing but a folder "bin" on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin/does-not-exist")
    monkeypatch.setattr(programs, "_FOLDERS", (str(tmp_path / "usual"),))
    for name in list(os.environ):
        if name.startswith("TFMBS_"):
            monkeypatch.delenv(name)
    (tmp_path / "bin").mkdir()
    return tmp_path


def llvm(path: Path, major: int = programs.LLVM_MAJOR) -> Path:
    return script(path, f"echo 'Debian LLVM version {major}.1.8'")


@pytest.mark.parametrize("tool", TOOLS)
def test_where_a_tool_is_found(alone: Path, monkeypatch: pytest.MonkeyPatch, tool: str) -> None:
    with pytest.raises(ToolNotFoundError) as raised:
        Toolchain().path(tool)
    assert raised.value.tool == tool
    for place in (f"{tool}-22: not there", f"{tool}: not there", str(alone / "usual" / tool)):
        assert place in str(raised.value)
    assert "apt-get install mlir-22-tools" in str(raised.value)

    usual = llvm(alone / "usual" / tool)
    assert Toolchain().path(tool) == str(usual)

    folder = alone / "elsewhere"
    script(alone / "bin" / "llvm-config", f"echo {folder}")
    asked = llvm(folder / tool)
    assert Toolchain().path(tool) == str(asked)

    old = llvm(alone / "bin" / tool, major=14)  # another version on PATH is passed by
    assert Toolchain().path(tool) == str(asked)
    llvm(old)
    assert Toolchain().path(tool) == str(old)
    versioned = llvm(alone / "bin" / f"{tool}-22")
    assert Toolchain().path(tool) == str(versioned)
    chosen = llvm(alone / "chosen" / tool)
    monkeypatch.setenv("TFMBS_LLVM_BIN", str(chosen.parent))
    assert Toolchain().path(tool) == str(chosen)


@pytest.mark.parametrize("tool", TOOLS)
def test_what_is_named_is_taken_or_refused(
    alone: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    llvm(alone / "bin" / tool)
    attribute = {"opt": "llvm_opt"}.get(tool, tool.replace("-", "_"))
    variable = f"TFMBS_{attribute.upper()}"
    mine, yours = llvm(alone / "mine"), llvm(alone / "yours")
    monkeypatch.setenv(variable, str(mine))
    assert Toolchain().path(tool) == str(mine)
    assert Toolchain(**{attribute: yours}).path(tool) == str(yours)
    for text, words in (
        ("echo 'LLVM version 14.0.6'", "of LLVM 14; the plugin needs 22"),
        ("echo hello", "does not say which LLVM"),
        ("exit 1", "does not say which LLVM"),
    ):
        script(mine, text)
        with pytest.raises(ToolNotFoundError, match=words) as raised:
            Toolchain().path(tool)
        assert variable in str(raised.value)
    monkeypatch.setenv(variable, str(alone / "nowhere"))
    with pytest.raises(ToolNotFoundError, match=f"{variable}=.*nowhere: not there"):
        Toolchain().path(tool)


def test_the_plugin(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_ROOT", alone / "tree")
    monkeypatch.setattr(programs, "_PACKAGE", alone / "package")
    in_tree = str(alone / "tree" / "build" / programs.PLUGIN_NAME)
    with pytest.raises(ToolNotFoundError, match="name it in TFMBS_MLIR_PLUGIN") as raised:
        Toolchain().path("plugin")
    assert in_tree not in str(raised.value)  # an installed package has no tree
    (alone / "tree").mkdir()
    (alone / "tree" / "pyproject.toml").touch()
    with pytest.raises(ToolNotFoundError, match="make build-mlir") as raised:
        Toolchain().path("plugin")
    assert in_tree in str(raised.value)
    packaged = alone / "package" / programs.PLUGIN_NAME
    built = alone / "tree" / "build" / programs.PLUGIN_NAME
    for place in (packaged, built):
        place.parent.mkdir(parents=True)
        place.touch()
        assert Toolchain().path("plugin") == str(place)
    named = alone / "other.so"
    monkeypatch.setenv("TFMBS_MLIR_PLUGIN", str(named))
    with pytest.raises(ToolNotFoundError, match="TFMBS_MLIR_PLUGIN="):
        Toolchain().path("plugin")
    named.touch()
    assert Toolchain().path("plugin") == str(named)
    assert Toolchain(plugin=built).plugin_flags() == [f"--load-dialect-plugin={built}"]


def test_the_linker(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolNotFoundError, match=r"apt-get install g\+\+"):
        Toolchain().path("linker")
    compiler = script(alone / "bin" / "gcc", "exit 0")
    assert Toolchain().path("linker") == str(compiler)
    missing = str(alone / "nowhere")
    with pytest.raises(ToolNotFoundError, match=f"linker={missing}: not there"):
        Toolchain(linker=missing).path("linker")
    monkeypatch.setenv("TFMBS_LINKER", missing)
    with pytest.raises(ToolNotFoundError, match=f"TFMBS_LINKER={missing}: not there"):
        Toolchain().path("linker")


def test_how_a_tool_fails(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = "case $1 in --version) echo 'LLVM version 22.1.0'; exit 0;; esac\n"

    def tool(text: str) -> Toolchain:
        return Toolchain(mlir_opt=script(alone / "mlir-opt", version + text))

    assert tool("echo out; echo err >&2").run("mlir-opt") == "out\n"
    with pytest.raises(
        CompilationError, match=r"mlir-opt failed \(exit status 3\):\nwhy"
    ) as raised:
        tool("echo why >&2; exit 3").run("mlir-opt", "--flag")
    assert raised.value.tool == "mlir-opt"
    assert raised.value.diagnostics == "why"
    with pytest.raises(CompilationError, match="died of signal 11"):
        tool("kill -11 $$").run("mlir-opt")
    with pytest.raises(CompilationError, match="does not say what its default target is"):
        Toolchain(llc=script(alone / "llc", version)).host_triple()
    monkeypatch.setattr(programs, "_TIMEOUT", 0.2)
    with pytest.raises(CompilationError, match="did not end"):
        tool("while :; do :; done").run("mlir-opt")
