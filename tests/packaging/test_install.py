"""The wheels of `make wheel` in a fresh environment without compilers: the seed's snippets, the demo and
a compiled model there, from another folder."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from environment import ROOT, FreshEnvironment, dynamic_section, run

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
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by name: pytfmbs for this Python, and the plugin where MLIR is."""
    folder = tmp_path_factory.mktemp("wheels")
    run(["bash", "scripts/make-wheels.sh", str(folder), sys.executable], ROOT)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """An environment that holds torch and the wheel of pytfmbs."""
    environment = FreshEnvironment(tmp_path_factory.mktemp("fresh") / "venv")
    environment.pip_install("--only-binary", ":all:", str(wheels["pytfmbs"]))
    return environment


def test_wheels_say_what_they_run_on(wheels: dict[str, Path]) -> None:
    """A tag that the symbols allow, by auditwheel; the stable ABI from 3.12 on."""
    minor = sys.version_info[1]
    tag = f"cp3{minor}-cp3{minor}" if minor < 12 else "cp312-abi3"
    assert re.search(rf"-{tag}-manylinux_2_\d+_x86_64", wheels["pytfmbs"].name)
    plugin = wheels.get("pytfmbs_mlir_plugin")
    if plugin is not None:
        assert re.search(r"-py3-none-manylinux_2_\d+_x86_64", plugin.name)
    for path in wheels.values():
        found = run([sys.executable, "-m", "auditwheel", "show", str(path)], ROOT)
        # torch is outside, so that auditwheel names the tag that the symbols of the system allow.
        allowed = re.search(r'platform tag to\s+"(\w+)"', found)
        assert allowed, found
        assert path.stem.split("-")[-1] == allowed[1], found
        names = zipfile.ZipFile(path).namelist()
        assert not [name for name in names if "libtorch" in name or "libc10" in name]
        assert not [name for name in names if ".libs/" in name]


def test_demo_runs_without_a_compiler(fresh: FreshEnvironment, tmp_path: Path) -> None:
    fresh.pip_install("-r", str(ROOT / "requirements" / "demo.txt"))
    path = tmp_path / "bin"  # nothing on it: neither compilers nor this tree's tools
    path.mkdir()
    said = fresh.run("-m", "pytfmbs.demo", "--quick", cwd=tmp_path, PATH=str(path))
    assert "cycles" in said


def test_the_plugin_is_found_without_a_variable(
    wheels: dict[str, Path], fresh: FreshEnvironment, tmp_path: Path
) -> None:
    if "pytfmbs_mlir_plugin" not in wheels:
        pytest.skip("MLIR 22 is missing, so there is no plugin to pack")
    fresh.pip_install(str(wheels["pytfmbs_mlir_plugin"]))
    fresh.pip_install("-r", str(ROOT / "requirements" / "compile.txt"))
    code = """
import torch
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import compile
layer, x = TFMBSLinear(16, 4).eval(), torch.randn(3, 16)
with torch.no_grad(), compile(layer, (x,)) as program:
    print(torch.equal(program(x), layer(x)))
"""
    assert fresh.run("-c", code, cwd=tmp_path, TFMBS_MLIR_PLUGIN="").strip() == "True"


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
