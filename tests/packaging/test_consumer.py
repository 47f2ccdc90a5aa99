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


def soname() -> str:
    """0.<minor> before 1.0, then <major>."""
    declared = re.search(r"project\(tfmbs VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert declared
    major, minor, _ = declared[1].split(".")
    return f"libtfmbs.so.0.{minor}" if major == "0" else f"libtfmbs.so.{major}"


@pytest.fixture(scope="module")
def project(prefix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of somebody else's, built."""
    source = tmp_path_factory.mktemp("elsewhere") / "consumer"
    shutil.copytree(ROOT / "tests" / "consumer", source)
    run(["cmake", "-B", "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}"], source)
    run(["cmake", "--build", "build"], source)
    return source


def test_a_project_multiplies_with_the_linear_layer_alone(project: Path) -> None:
    code = (project / "linear.cpp").read_text()
    assert set(re.findall(r"#include <tfmbs/(\w+)/", code)) == {"linear"}
    assert run(["build/linear"], project) == "linear: right\n"


def test_a_project_runs_a_device(project: Path) -> None:
    assert re.fullmatch(r"tfmbs [0-9.]+: right\n", run(["build/fabric"], project))


def test_exceptions_and_types_cross_the_boundary(project: Path) -> None:
    assert run(["build/errors"], project) == "errors: right\n"


def test_a_program_asks_for_the_soname(project: Path) -> None:
    needed = re.findall(r"NEEDED\).*\[(.*)\]", dynamic_section(project / "build" / "linear"))
    assert soname() in needed
    assert not [name for name in needed if name.startswith("libtfmbs") and name != soname()]


def test_what_is_installed_is_the_cpp_library_and_no_more(prefix: Path) -> None:
    files = {
        str(path.relative_to(prefix))
        for path in prefix.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    headers = {
        str(path.relative_to(include.parent))
        for include in (ROOT / "cpp").glob("*/include")
        for path in include.rglob("*.h*")
    }
    assert headers <= files
    rest = {name for name in files - headers if "/cmake/tfmbs/" not in name}
    library = next(prefix.rglob("libtfmbs.so"))
    assert {Path(name).name for name in rest} == {"version.hpp", library.resolve().name}
    links = {path.name for path in library.parent.iterdir() if path.is_symlink()}
    assert links == {"libtfmbs.so", soname()}
    assert library.resolve().name.startswith(f"{soname()}.")


def test_the_library_needs_neither_torch_nor_python(prefix: Path) -> None:
    library = next(prefix.rglob("libtfmbs.so"))
    needed = re.findall(r"NEEDED\).*\[(.*)\]", dynamic_section(library))
    assert needed
    assert not [name for name in needed if re.search("torch|python|c10", name)]
