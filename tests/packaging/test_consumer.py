"""The C++ library, installed, in a CMake project that lies elsewhere; no torch, no Python."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from environment import ROOT, dynamic_section, run

pytestmark = pytest.mark.packaging


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    build = ROOT / "build"
    if not (build / "cmake_install.cmake").exists():
        pytest.skip("there is no build/ to install from (make build)")
    path = tmp_path_factory.mktemp("prefix")
    run(["cmake", "--install", str(build), "--prefix", str(path)], ROOT)
    return path


def test_a_project_finds_links_and_runs_it(prefix: Path, tmp_path: Path) -> None:
    source = tmp_path / "consumer"
    shutil.copytree(ROOT / "tests" / "consumer", source)
    run(["cmake", "-B", "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}"], source)
    run(["cmake", "--build", "build"], source)
    assert re.fullmatch(r"tfmbs [0-9.]+: right\n", run(["build/consumer"], source))


def test_what_is_installed_is_the_cpp_library_and_no_more(prefix: Path) -> None:
    files = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file()}
    headers = {
        str(path.relative_to(include.parent))
        for include in (ROOT / "cpp").glob("*/include")
        for path in include.rglob("*.h*")
    }
    assert headers <= files
    rest = {name for name in files - headers if "/cmake/tfmbs/" not in name}
    assert {Path(name).name for name in rest} == {"version.hpp", "libtfmbs.so"}


def test_the_library_needs_neither_torch_nor_python(prefix: Path) -> None:
    library = next(prefix.rglob("libtfmbs.so"))
    needed = re.findall(r"NEEDED\).*\[(.*)\]", dynamic_section(library))
    assert needed
    assert not [name for name in needed if re.search("torch|python|c10", name)]
