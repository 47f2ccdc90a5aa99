"""Finds MLIR's and LLVM's programs and the project's plugin, and runs them.

Only the standard library: the scripts of tests/mlir load this file without the package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Major version of LLVM that the plugin is built against; a plugin loads into no other.
LLVM_MAJOR = 22

#: For mlir-opt: a diagnostic is its line, without a print of the whole op that it is about.
NO_OP_DUMPS = "--mlir-print-op-on-diagnostic=false"

_SHARED_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
PLUGIN_NAME = f"libtfmbs_plugin{_SHARED_SUFFIX}"
_PACKAGE = Path(__file__).resolve().parents[2]
_ROOT = _PACKAGE.parents[1]  # of a source tree; anything at all where the package is installed

_FOLDERS = (
    f"/usr/lib/llvm-{LLVM_MAJOR}/bin",  # Debian, Ubuntu
    f"/opt/homebrew/opt/llvm@{LLVM_MAJOR}/bin",  # Homebrew, Apple silicon
    f"/usr/local/opt/llvm@{LLVM_MAJOR}/bin",  # Homebrew, Intel
)
_INSTALL_TOOLS = (
    f"On Debian or Ubuntu: apt-get install mlir-{LLVM_MAJOR}-tools llvm-{LLVM_MAJOR}-dev "
    f"libmlir-{LLVM_MAJOR}-dev (where the system has no such package, https://apt.llvm.org has); "
    f"with Homebrew: brew install llvm@{LLVM_MAJOR}."
)
_PLUGIN_WHEEL = "pytfmbs_mlir_plugin"
_INSTALL_PLUGIN = (
    "Install the wheel pytfmbs-mlir-plugin (`make wheel` builds it), or build it in the project's folder "
    "by `make build-mlir`, or name it in TFMBS_MLIR_PLUGIN."
)
_INSTALL_LINKER = "On Debian or Ubuntu: apt-get install g++."
_TIMEOUT = 1800.0  # seconds; a 4096x11008 layer takes some tens

_VERSION = re.compile(r"LLVM version (\d+)\.(\d+)\.(\d+)")
_TRIPLE = re.compile(r"Default target:\s*(\S+)")


class ToolNotFoundError(FileNotFoundError):
    """A program or library that compiling needs is missing, or is of another version.

    ``tool`` names it, ``looked`` lists where it was looked for, and what was wrong there.
    """

    def __init__(self, tool: str, looked: Sequence[str], install: str) -> None:
        self.tool = tool
        self.looked = tuple(looked)
        places = "".join(f"\n  {place}" for place in self.looked)
        super().__init__(f"{tool} was not found. Looked for:{places}\n{install}")


class CompilationError(RuntimeError):
    """A tool refused its input. ``tool`` names it, ``diagnostics`` is what it said."""

    def __init__(self, tool: str, what: str, diagnostics: str = "") -> None:
        self.tool = tool
        self.diagnostics = diagnostics
        super().__init__(f"{tool} {what}" + (f":\n{diagnostics}" if diagnostics else ""))


@dataclass
class Toolchain:
    """The programs of one MLIR installation and the plugin.

    Each is looked for at its first use: in the argument here, in the environment
    (``TFMBS_MLIR_OPT``, ``TFMBS_MLIR_TRANSLATE``, ``TFMBS_MLIR_RUNNER``, ``TFMBS_LLVM_OPT``,
    ``TFMBS_LLC``, ``TFMBS_LINKER``, ``TFMBS_MLIR_PLUGIN``), then in the folder ``TFMBS_LLVM_BIN``,
    on PATH with and without the version as suffix, in the folder that ``llvm-config`` names, and in
    the systems' usual folders.
    What an argument or a variable names is taken or refused, never replaced by something else.
    """

    mlir_opt: str | os.PathLike[str] | None = None
    mlir_translate: str | os.PathLike[str] | None = None
    mlir_runner: str | os.PathLike[str] | None = None
    llvm_opt: str | os.PathLike[str] | None = None
    llc: str | os.PathLike[str] | None = None
    linker: str | os.PathLike[str] | None = None
    plugin: str | os.PathLike[str] | None = None
    _found: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def path(self, tool: str) -> str:
        """Path of "mlir-opt", "mlir-translate", "mlir-runner", "opt", "llc", "linker" or "plugin".

        Raises ToolNotFoundError where it is missing.
        """
        if tool not in self._found:
            if tool == "plugin":
                self._found[tool] = self._find_plugin()
            elif tool == "linker":
                self._found[tool] = self._find_linker()
            else:
                self._found[tool] = self._find_llvm(tool)
        return self._found[tool]

    def plugin_flags(self) -> list[str]:
        """What makes mlir-opt know the dialect and the passes: one library registers both."""
        return [f"--load-dialect-plugin={self.path('plugin')}"]

    def host_triple(self) -> str:
        """The target that LLVM compiles for where a module names none."""
        if "triple" not in self._found:
            match = _TRIPLE.search(self.run("llc", "--version"))
            if match is None:
                raise CompilationError("llc", "does not say what its default target is")
            self._found["triple"] = match[1]
        return self._found["triple"]

    def run(self, tool: str, *arguments: str, stdin: bytes | None = None) -> str:
        """Runs a tool and returns its standard output.

        Raises CompilationError with its diagnostics where it fails, dies or does not end.
        """
        command = [self.path(tool), *arguments]
        try:
            result = subprocess.run(
                command,
                input=b"" if stdin is None else stdin,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CompilationError(tool, f"did not end within {_TIMEOUT:.0f} seconds") from None
        except OSError as error:
            raise CompilationError(tool, f"cannot be run: {error}") from error
        if result.returncode != 0:
            said = result.stderr.decode(errors="replace").strip()
            how = f"failed (exit status {result.returncode})"
            if result.returncode < 0:
                how = f"died of signal {-result.returncode}"
            raise CompilationError(tool, how, said)
        return result.stdout.decode(errors="replace")

    # --- where things are ---------------------------------------------------------------------

    def _named(self, tool: str) -> tuple[str, str] | None:
        """What an argument or the environment names, and which of them."""
        attribute = {"opt": "llvm_opt"}.get(tool, tool.replace("-", "_"))
        argument = getattr(self, attribute)
        if argument is not None:
            return os.fspath(argument), f"{attribute}="
        variable = "TFMBS_MLIR_PLUGIN" if tool == "plugin" else f"TFMBS_{attribute.upper()}"
        value = os.environ.get(variable)
        return (value, f"{variable}=") if value else None

    def _find_llvm(self, tool: str) -> str:
        named = self._named(tool)
        if named is not None:
            path = shutil.which(named[0])
            fault = "not there, or not executable" if path is None else _version_fault(path)
            if path is None or fault is not None:
                raise ToolNotFoundError(
                    tool, [f"{''.join(reversed(named))}: {fault}"], _INSTALL_TOOLS
                )
            return path
        looked = []
        for candidate in _candidates(tool):
            path = shutil.which(candidate)
            fault = "not there" if path is None else _version_fault(path)
            if path is not None and fault is None:
                return path
            looked.append(f"{candidate}: {fault}")
        return _raise(ToolNotFoundError(tool, looked, _INSTALL_TOOLS))

    def _find_plugin(self) -> str:
        named = self._named("plugin")
        if named is not None:
            if not Path(named[0]).is_file():
                missing = f"{''.join(reversed(named))}: not there"
                raise ToolNotFoundError("the tfmbs plugin", [missing], _INSTALL_PLUGIN)
            return str(Path(named[0]).resolve())
        places = [_PACKAGE / PLUGIN_NAME]
        wheel = importlib.util.find_spec(_PLUGIN_WHEEL)
        if wheel is not None and wheel.origin is not None:
            places.append(Path(wheel.origin).parent / PLUGIN_NAME)
        if (_ROOT / "pyproject.toml").is_file():
            places.insert(0, _ROOT / "build" / PLUGIN_NAME)
        for place in places:
            if place.is_file():
                return str(place)
        looked = [f"{place}: not there" for place in places]
        return _raise(
            ToolNotFoundError(f"the tfmbs plugin, {PLUGIN_NAME},", looked, _INSTALL_PLUGIN)
        )

    def _find_linker(self) -> str:
        named = self._named("linker")
        candidates = [named[0]] if named is not None else ["cc", "c++", "gcc", "clang"]
        for candidate in candidates:
            path = shutil.which(candidate)
            if path is not None:
                return path
        given = "" if named is None else named[1]
        looked = [f"{given}{candidate}: not there" for candidate in candidates]
        return _raise(ToolNotFoundError("a C compiler, to link with,", looked, _INSTALL_LINKER))


def _raise(error: ToolNotFoundError) -> str:
    raise error


def _candidates(tool: str) -> Iterator[str]:
    folder = os.environ.get("TFMBS_LLVM_BIN")
    if folder:
        yield str(Path(folder) / tool)
    yield f"{tool}-{LLVM_MAJOR}"
    yield tool
    for config in (f"llvm-config-{LLVM_MAJOR}", "llvm-config"):
        path = shutil.which(config)
        if path is not None:
            yield str(Path(_output(path, "--bindir").strip()) / tool)
    yield from (str(Path(usual) / tool) for usual in _FOLDERS)


def _output(*command: str) -> str:
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return result.stdout.decode(errors="replace")


def _version_fault(path: str) -> str | None:
    """What is wrong with the version of a program of LLVM's, or None."""
    match = _VERSION.search(_output(path, "--version"))
    if match is None:
        return "does not say which LLVM it is of"
    if int(match[1]) != LLVM_MAJOR:
        return f"of LLVM {match[1]}; the plugin needs {LLVM_MAJOR}"
    return None
