"""The code of README, CONTRIBUTING and docs/ runs as it stands.

- Python blocks of a page run one after another, in one process.
- Shell blocks of a page run one after another, in one shell. A line that calls ``make`` is checked for
  its targets instead.
- A C++ block begins with ``// From <file>`` and has the lines of that file.
- A block that the tests do not run has ``<!-- not tested: <reason> -->`` in the line before it.

Pages run in a copy of what they write to, so the checkout stays as it is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")],
)
LANGUAGES = {"", "python", "sh", "cpp", "mlir", "mermaid", "text", "{toctree}", "{eval-rst}"}
MLIR_BIN = Path("/usr/lib/llvm-22/bin")


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    tested: bool


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    assert "# Not tested:" not in text, f"{page.name}: the mark is now a line before the block"
    found = re.findall(r"^(<!-- not tested: \S.{5,} -->\n)?```(.*)\n((?:.*\n)*?)```$", text, re.M)
    return [Block(language.strip(), code, not marker) for marker, language, code in found]


def code_of(page: Path, language: str) -> str:
    return "\n".join(b.code for b in blocks(page) if b.language == language and b.tested)


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+)(?= *[:\w-]*:)", (ROOT / "Makefile").read_text(), re.M)) | {
        name
        for line in re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
        for name in line.split()
    }


def without_make(shell: str) -> tuple[list[str], str]:
    """The targets that ``make`` is called with, and the rest of the lines."""
    made, rest = [], []
    for line in shell.splitlines():
        command = line.split("#")[0].strip()
        if command.startswith("make "):
            command = re.sub(r"\w+=(\"[^\"]*\"|\S*)", "", command)
            made += command.split()[1:]
        else:
            rest.append(line)
    return made, "\n".join(rest)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder like the checkout; what pages write to is a copy."""
    for entry in ROOT.iterdir():
        if entry.name not in (".git", "tests", "tools", "build", "demo-output"):
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copytree(ROOT / "tests" / "mlir", tmp_path / "tests" / "mlir")
    (tmp_path / "build").mkdir()
    for entry in (ROOT / "build").glob("*"):
        (tmp_path / "build" / entry.name).symlink_to(entry)
    return tmp_path


def run(command: list[str], folder: Path) -> None:
    paths = [str(Path(sys.executable).parent), str(MLIR_BIN), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=folder,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def needs_mlir(code: str, request: pytest.FixtureRequest, folder: Path) -> None:
    """Skips where code needs MLIR and the machine has none."""
    if re.search(r"compiler|mlir", code):
        toolchain = request.getfixturevalue("dialect_tools")
        plugin = folder / "build" / "libtfmbs_plugin.so"
        if not plugin.exists():
            plugin.symlink_to(toolchain.path("plugin"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_has_a_known_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.M)) == 2 * len(blocks(page))
    assert {block.language for block in blocks(page)} <= LANGUAGES
    marks = re.findall(r"^<!-- not tested", text, re.M)
    assert len(marks) == len([block for block in blocks(page) if not block.tested])


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page, "python")], ids=lambda page: page.name
)
def test_python_runs(page: Path, checkout: Path, request: pytest.FixtureRequest) -> None:
    code = code_of(page, "python")
    needs_mlir(code, request, checkout)
    run([sys.executable, "-c", code], checkout)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page, "sh")], ids=lambda page: page.name
)
def test_shell_runs(page: Path, checkout: Path, request: pytest.FixtureRequest) -> None:
    made, rest = without_make(code_of(page, "sh"))
    assert set(made) <= targets()
    if rest.strip():
        needs_mlir(rest, request, checkout)
        run(["bash", "-euo", "pipefail", "-c", rest], checkout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_name_targets(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"`make ([\w-]+)", text)) <= targets()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page, "cpp")], ids=lambda page: page.name
)
def test_quoted_cpp_is_in_its_file(page: Path) -> None:
    for block in blocks(page):
        if block.language == "cpp":
            first, _, code = block.code.partition("\n")
            assert first.startswith("// From "), block.code
            assert code in (ROOT / first.removeprefix("// From ")).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http:", "https:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles]
            assert anchor in slugs, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_fits_in_a_head(page: Path) -> None:
    if page.name != "dialect.md":  # made by TableGen
        assert page.read_text(encoding="utf-8").count("\n") <= 300
