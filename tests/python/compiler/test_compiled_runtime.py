"""Compiled modules on the fabric: layers that come and go, errors, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import pytfmbs
import torch
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import (
    CompilationError,
    MlirModule,
    Toolchain,
    compile_module,
    read_telemetry,
    to_mlir,
)
from pytfmbs.compiler import compile as compile_model
from torch import nn

pytestmark = pytest.mark.usefixtures("dialect_tools")

SMALL = pytfmbs.FabricConfig(bank_depth=64)  # the default masks, and too small for both layers


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        TFMBSLinear(50, 40, name="first"),
        nn.ReLU(),
        TFMBSLinear(40, 6, name="second", weight_quantizer="twn", activation="int8"),
    ).eval()


@pytest.fixture(scope="module")
def module(model: nn.Sequential) -> MlirModule:
    return to_mlir(model, torch.randn(2, 50))


def test_layers_show_while_the_module_lives(model: nn.Sequential, module: MlirModule) -> None:
    x = torch.randn(7, 50)
    with pytfmbs.Fabric(pytfmbs.FabricConfig()) as fabric:
        with compile_module(module, target="runtime", fabric=fabric) as compiled:
            assert fabric.profile_detailed()["layers"] == {}
            assert torch.equal(compiled(x), model(x))
            layers = fabric.profile_detailed()["layers"]
            assert list(layers) == ["first", "second"]
            assert all(layer["resident"] for layer in layers.values())
            assert layers["second"]["cycles"] > 0
        assert fabric.profile_detailed()["layers"] == {}


def test_the_default_device_is_the_processs_own(model: nn.Sequential, module: MlirModule) -> None:
    default = pytfmbs.Fabric()
    x = torch.randn(3, 50)
    default.reset_counters()
    expected = model(x)
    once = default.profile()["active_ops"]
    with compile_module(module, target="runtime") as compiled:
        assert torch.equal(compiled(x), expected)
        assert default.profile()["active_ops"] == 2 * once
        names = set(default.profile_detailed()["layers"]) - {"first", "second"}
        assert any(name.startswith("first") for name in names)  # its own, with a suffix


def test_two_modules_and_a_model_on_one_device(model: nn.Sequential, module: MlirModule) -> None:
    x = torch.randn(3, 50)
    with pytfmbs.Fabric(SMALL) as fabric:
        one = compile_module(module, target="runtime", fabric=fabric)
        two = compile_module(module, target="runtime", fabric=fabric)
        for _ in range(3):
            assert torch.equal(one(x), two(x))
        assert len(fabric.profile_detailed()["layers"]) == 4
        one.close()
        assert len(fabric.profile_detailed()["layers"]) == 2
        assert torch.equal(two(x), model(x))
        del two
        assert fabric.profile_detailed()["layers"] == {}


def test_a_closed_device_is_an_error(module: MlirModule) -> None:
    x = torch.randn(3, 50)
    fabric = pytfmbs.Fabric(SMALL)
    with compile_module(module, target="runtime", fabric=fabric) as compiled:
        assert torch.isfinite(compiled(x)).all()
        fabric.close()
        for _ in range(2):
            with pytest.raises(pytfmbs.ClosedError):
                compiled(x)
    with pytest.raises(pytfmbs.ClosedError):
        compile_module(module, target="runtime", fabric=fabric)(x)


def test_a_layer_that_finds_no_place_is_an_error(model: nn.Sequential) -> None:
    layer = TFMBSLinear(50, 40, name="there", weight_addr=0x1000, fabric=pytfmbs.Fabric(SMALL))
    text = to_mlir(layer, torch.randn(2, 50), config=SMALL).text
    assert "weight_addr = 4096" in text
    with pytfmbs.Fabric(SMALL) as fabric:
        high = text.replace("weight_addr = 4096", "weight_addr = 1048576")
        with (
            compile_module(high, target="runtime", fabric=fabric) as compiled,
            pytest.raises(pytfmbs.FabricError, match=r"1048576|100000"),
        ):
            compiled(torch.randn(2, 50))
        # The device is as it was.
        with compile_module(text, target="runtime", fabric=fabric) as compiled:
            assert torch.isfinite(compiled(torch.randn(2, 50))).all()


def test_not_a_number_travels(model: nn.Sequential, module: MlirModule) -> None:
    x = torch.randn(4, 50)
    x[1, 3] = torch.nan
    x[2, 7] = torch.inf
    for target in ("linalg", "runtime"):
        with compile_module(module, target=target) as compiled:  # type: ignore[arg-type]
            assert torch.equal(compiled(x).nan_to_num(7.0), model(x).nan_to_num(7.0))


def test_threads(model: nn.Sequential, module: MlirModule) -> None:
    failures: list[object] = []
    with (
        pytfmbs.Fabric(SMALL) as fabric,
        compile_module(module, target="runtime", fabric=fabric) as compiled,
    ):
        expected = {seed: torch.randn(5, 50) for seed in range(6)}
        results = {seed: model(x) for seed, x in expected.items()}
        start = threading.Barrier(6)

        def work(seed: int) -> None:
            start.wait()  # all of them define the layers
            try:
                equal = [torch.equal(compiled(expected[seed]), results[seed]) for _ in range(50)]
            except Exception as error:
                failures.append(error)
                return
            if not all(equal):
                failures.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert list(fabric.profile_detailed()["layers"]) == ["first", "second"]


def test_telemetry_before_and_after(
    model: nn.Sequential, module: MlirModule, dialect_tools: Toolchain
) -> None:
    hints = [layer.telemetry_hint for layer in model if isinstance(layer, TFMBSLinear)]
    for hint in hints:
        del hint["resident"]
        hint["weight_addr"] = None  # the device's own choice, by now; the IR leaves it open
    lowered = dialect_tools.run(
        "mlir-opt", *dialect_tools.plugin_flags(), "--pass-pipeline=builtin.module(tfmbs-to-linalg)", "-",
        stdin=module.text.encode(),
    )  # fmt: skip
    for text in (module, module.text, lowered):
        assert read_telemetry(text) == hints
    with pytest.raises(CompilationError):
        read_telemetry("func.func @f(\n")
    assert read_telemetry("module {\n}\n") == []


def test_one_call(model: nn.Sequential, module: MlirModule) -> None:
    x = torch.randn(9, 50)
    with compile_model(model, torch.randn(2, 50)) as compiled:
        assert torch.equal(compiled(x), model(x))
    with compile_model(module.text) as compiled:
        assert torch.equal(compiled(x), model(x))
    plain = nn.Sequential(nn.Linear(20, 9), nn.Tanh()).eval()
    with (
        pytfmbs.Fabric(SMALL) as fabric,
        compile_model(
            plain, torch.randn(2, 20), target="runtime", fabric=fabric, place=True,
            weight_quantizer="absmean", activation="int8",
        ) as compiled,
    ):  # fmt: skip
        assert compiled(torch.randn(4, 20)).shape == (4, 9)
        (layer,) = fabric.profile_detailed()["layers"].values()
        assert layer["weight_addr"] is not None
    with pytest.raises(TypeError, match="weight_quantizer given, but the module is MLIR already"):
        compile_model(module, weight_quantizer="twn")


@pytest.mark.parametrize("target", ["linalg", "runtime"])
def test_placed_on_a_geometry_without_its_fabric(target: str, tmp_path: Path) -> None:
    config = pytfmbs.FabricConfig(8, 4, 4096)
    model = nn.Sequential(nn.Linear(30, 32)).eval()
    options = {"config": config, "place": True, "keep": tmp_path, "opt_level": 0}
    module = to_mlir(model, torch.randn(2, 30), config=config)
    for source, args in ((model, torch.randn(2, 30)), (module, None)):
        compile_model(source, args, target=target, **options).close()
    with pytest.raises(CompilationError, match="tile_mask 255 names tiles beyond the 4"):
        compile_module(module, target=target, place=True)
    with pytest.raises(TypeError, match="config must be a FabricConfig or None, not int"):
        compile_module(module, config=4)
    with pytfmbs.Fabric(SMALL) as fabric, pytest.raises(ValueError, match="give one"):
        compile_module(module, target="runtime", fabric=fabric, config=config)
