"""Fresh virtual environments for the packaging tests, and how to run things in them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def clean_environment() -> dict[str, str]:
    """This process's environment without what would let the tree leak into another Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"
    }


def run(command: list[str], cwd: Path, timeout: float = 900, **variables: str) -> str:
    """Runs a command and returns what it wrote; a failure shows it. variables: of its environment."""
    result = subprocess.run(
        command, cwd=cwd, env={**clean_environment(), **variables}, timeout=timeout, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout


def dynamic_section(library: Path) -> str:
    """What the dynamic loader is told, as readelf shows it, which comes with the linker."""
    return run(["readelf", "-d", str(library)], library.parent)


def closure(name: str) -> dict[str, importlib.metadata.Distribution]:
    """A distribution and everything that it requires here, by name."""
    found: dict[str, importlib.metadata.Distribution] = {}
    pending = [name]
    while pending:
        key = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        if key in found:
            continue
        try:
            found[key] = importlib.metadata.distribution(key)
        except importlib.metadata.PackageNotFoundError:
            continue  # a requirement of another platform or of an extra
        for requirement in found[key].requires or []:
            if "extra ==" not in requirement:
                match = re.match(r"[A-Za-z0-9._-]+", requirement)
                assert match, requirement
                pending.append(match[0])
    return found


class FreshEnvironment:
    """A virtual environment that holds torch, as `pip install torch` leaves it, and nothing else.

    Torch and its requirements, and no other package, are hard-linked from the running environment:
    an installation of its own would take minutes and gigabytes on some machines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        run([sys.executable, "-m", "venv", str(path)], ROOT)
        self.python = path / "bin" / "python"
        self.site = Path(
            self.run("-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
        )
        for distribution in closure("torch").values():
            for file in distribution.files or []:
                if ".." in file.parts or "__pycache__" in file.parts:
                    continue  # scripts
                source, target = Path(str(distribution.locate_file(file))), self.site / file
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copy2(source, target)

    def run(self, *arguments: str, cwd: Path | None = None, **variables: str) -> str:
        return run([str(self.python), *arguments], cwd or self.path, **variables)

    def pip_install(self, *arguments: str) -> str:
        quiet = ["--disable-pip-version-check", "-qq"]
        pins = ["-c", str(ROOT / "requirements" / "runtime.txt")]
        return self.run("-m", "pip", "install", *quiet, *pins, *arguments)
