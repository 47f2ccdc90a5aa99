"""`pip install .` into a fresh environment, and the seed's snippets there, from another folder."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from environment import ROOT, FreshEnvironment, dynamic_section

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(1200)]

# Sections 1 and 3 of the request that this project answers, word by word.
MODEL = """
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
FABRIC = """
import pytfmbs
fabric = pytfmbs.Fabric()
"""
PROFILE = """
stats = fabric.profile_detailed()
print(f"Cycles: {stats['cycles']}")
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """An environment into which `pip install --no-build-isolation .` has put pytfmbs."""
    environment = FreshEnvironment(tmp_path_factory.mktemp("fresh") / "venv")
    environment.pip_install("-r", str(ROOT / "requirements" / "build.txt"))
    environment.pip_install("--no-build-isolation", str(ROOT))
    return environment


@pytest.mark.parametrize("fabric_first", [False, True])
def test_seed_snippets_print_the_cycles_of_the_model(
    fresh: FreshEnvironment, tmp_path: Path, fabric_first: bool
) -> None:
    parts = [FABRIC, MODEL, PROFILE] if fabric_first else [MODEL, FABRIC, PROFILE]
    check = "\nassert tuple(output.shape) == (1, 10) and output.requires_grad\n"
    cycles = re.fullmatch(r"Cycles: (\d+)\n", fresh.run("-c", "".join(parts) + check, cwd=tmp_path))
    assert cycles
    assert int(cycles[1]) > 0


def test_the_installed_package_is_complete_and_its_own(
    fresh: FreshEnvironment, tmp_path: Path
) -> None:
    where = fresh.run("-c", "import pytfmbs; print(pytfmbs.__file__)", cwd=tmp_path)
    package = Path(where.strip()).parent
    assert package == fresh.site / "pytfmbs"
    names = {path.name for path in package.iterdir()}
    assert {"py.typed", "_fabric.pyi", "libtfmbs_torch.so"} <= names
    # One file of libtfmbs, under the name that the loader is asked for: two would be two devices.
    library = fresh.run(
        "-c", "import pytfmbs._fabric as f; print(f.library())", cwd=tmp_path
    ).strip()
    assert {name for name in names if name.startswith("libtfmbs.")} == {library}
    assert re.search(rf"SONAME\).*\[{re.escape(library)}\]", dynamic_section(package / library))
    assert len([name for name in names if re.fullmatch(r"_fabric\..*\.so", name)]) == 1
    tracked = subprocess.run(
        ["git", "ls-files", "python/pytfmbs"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for name in tracked:
        assert (fresh.site / Path(name).relative_to("python")).exists(), name


def test_the_version_is_one(fresh: FreshEnvironment, tmp_path: Path) -> None:
    code = (
        "import importlib.metadata as m, pytfmbs; print(m.version('pytfmbs'), pytfmbs.__version__)"
    )
    metadata, module = fresh.run("-c", code, cwd=tmp_path).split()
    declared = re.search(r"project\(tfmbs VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text())
    assert declared
    assert metadata == module == declared[1]


def test_no_folder_of_this_machine_is_in_the_libraries(fresh: FreshEnvironment) -> None:
    libraries = list((fresh.site / "pytfmbs").glob("*.so*"))
    assert len(libraries) == 3
    for library in libraries:
        dynamic = dynamic_section(library)
        assert "(NEEDED)" in dynamic
        assert re.findall(r"R(?:UN)?PATH\).*\[(.*)\]", dynamic) in ([], ["$ORIGIN"]), library.name
