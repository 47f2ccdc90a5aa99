"""Ternary layers in emitted modules: telemetry, and results against TFMBSLinear."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from pytfmbs import Fabric, FabricConfig, TFMBSLinear, convert, pack_pt5
from pytfmbs.compiler import ConversionError, MlirModule, compile_module, import_onnx, to_mlir
from pytfmbs.onnx.export import export
from torch import nn

CONFIG = FabricConfig(tiles=6, lanes=10, bank_depth=512)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(37, 61)
        self.last = nn.Linear(61, 7, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def hints(model: nn.Module) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in module.telemetry_hint.items() if key != "resident"}
        for module in model.modules()
        if isinstance(module, TFMBSLinear)
    ]


def gemm(
    weight: np.ndarray, *rest: np.ndarray, rows: tuple[Any, ...] = ("n",), **attributes: Any
) -> onnx.ModelProto:
    """y = Gemm(x, weight, C)."""
    depth = weight.shape[1 if attributes.get("transB") else 0]
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    names = ["w", "c"][: 1 + len(rest)]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", *names], ["y"], "gemm", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", kind, [*rows, depth])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(a, n) for n, a in zip(names, (weight, *rest), strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def run(module: MlirModule, *arrays: Any) -> Any:
    return compile_module(module, opt_level=0)(*arrays)


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_modules_layers_have_the_hints_and_numbers_of_the_converted_model(activation: str) -> None:
    torch.manual_seed(3)
    model = Network().eval()
    x = torch.randn(2, 5, 37)
    options = {"weight_quantizer": "twn", "activation": activation}
    from_floats = to_mlir(model, (x,), config=CONFIG, **options)
    with Fabric(CONFIG) as fabric:
        ternary = convert(model, fabric=fabric, **options).eval()
        assert list(from_floats.layers) == hints(ternary)
        want = ternary(x)
        placed = hints(ternary)  # now the layers have addresses
        modules = {"floats": from_floats}
        for mode in ("custom", "portable"):
            modules[mode] = import_onnx(export(ternary, (x,), mode=mode).model_proto)
            assert list(modules[mode].layers) == placed, mode
    for name, module in modules.items():
        assert module.text.count("tfmbs.gemv") == 2, name
        assert torch.equal(run(module, x), want), name


def test_telemetry_in_the_text_is_the_hint() -> None:
    rng = np.random.default_rng(1)
    module = import_onnx(
        gemm(rng.standard_normal((30, 20)).astype("f")), weight_quantizer="absmean"
    )
    (layer,) = module.layers
    written = re.search(r"tile_mask = (\d+) : ui64, telemetry = \{(.*?)\}", module.text)
    assert written is not None
    assert int(written[1]) == layer["tile_mask"] == 0b11
    assert written[2] == (
        f'layer = "gemm", sparsity = {layer["sparsity"]:.4f}, '
        'weight_quantizer = "absmean", activation = "ternary"'
    )


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize(
    ("shape", "folded"), [((), 1), ((1,), 1), ((5,), 1), ((1, 5), 1), ((4, 1), 0), ((4, 5), 0)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_gemm(shape: tuple[int, ...], folded: int, transposed: bool) -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((5, 9) if transposed else (9, 5)).astype(np.float32)
    addend = rng.standard_normal(shape).astype(np.float32)
    x = rng.standard_normal((4, 9)).astype(np.float32)
    model = gemm(weight, addend, transB=int(transposed), alpha=0.5, beta=2.0)
    module = import_onnx(model)
    assert module.text.count("bias(") == folded
    trits = np.sign(weight if transposed else weight.T).astype(np.int64)
    sums = (np.sign(x).astype(np.int64) @ trits.T).astype(np.float32)
    want = sums * np.float32(0.5) + np.float32(2.0) * addend
    np.testing.assert_array_equal(run(module, x), want)
    assert run(module, x[:0] if folded else x).shape == ((0, 5) if folded else (4, 5))


@pytest.mark.usefixtures("dialect_tools")
def test_a_constant_on_the_left_is_the_weights() -> None:
    rng = np.random.default_rng(4)
    weight = rng.standard_normal((5, 9)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["w", "x"], ["y"], "left")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 9, "n"])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(weight, "w")],
    )
    module = import_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    x = rng.standard_normal((2, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(module, x), np.sign(weight) @ np.sign(x))
    assert (module.layers[0]["out_features"], module.layers[0]["in_features"]) == (5, 9)


@pytest.mark.usefixtures("dialect_tools")
def test_a_nan_weight_makes_its_column_nan() -> None:
    weight = np.ones((4, 3), np.float32)
    weight[2, 1] = np.nan
    y = run(import_onnx(gemm(weight)), np.ones((2, 4), np.float32))
    assert np.isnan(y).tolist() == [[False, True, False]] * 2


def test_a_layer_used_twice_is_one_and_names_are_unique() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.fc(x)))

    module = to_mlir(Shared(), torch.randn(3, 4))
    assert [layer["layer"] for layer in module.layers] == ["fc"]
    assert module.text.count("tfmbs.gemv") == 2

    rng = np.random.default_rng(0)
    model = gemm(rng.standard_normal((4, 4)).astype("f"))
    model.graph.initializer.append(
        numpy_helper.from_array(rng.standard_normal((4, 4)).astype("f"), "w2")
    )
    model.graph.node.append(helper.make_node("Gemm", ["y", "w2"], ["z"], "gemm"))
    names = [layer["layer"] for layer in import_onnx(model, outputs=["z"]).layers]
    assert names == ["gemm", "gemm-1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_features": 0}, "at least 1"),
        ({"in_features": 7}, "weights are uint8"),
        ({"activation": "int4"}, "allowed are 'ternary', 'int8'"),
        ({"weight_addr": 4098}, "multiple of 4"),
        ({"tile_mask": 16}, "the device has 4 tiles"),
        ({"sparsity": 0.5}, "sparsity is 0.5000"),
    ],
)
def test_the_own_operator_is_checked(change: dict[str, Any], message: str) -> None:
    attributes = {"in_features": 6, "out_features": 5, "layer": "fc", "activation": "ternary"}
    node = helper.make_node(
        "TernaryLinear", ["x", "w", "s"], ["y"], "own", domain="pytfmbs", **{**attributes, **change}
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [onnx.ValueInfoProto(name="y")],
        [
            numpy_helper.from_array(pack_pt5(np.ones(30, np.int8)), "w"),
            numpy_helper.from_array(np.ones(1, np.float32), "s"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("pytfmbs", 1)])
    with pytest.raises(ConversionError, match=message):
        import_onnx(model, config=FabricConfig())


@pytest.mark.usefixtures("dialect_tools")
def test_a_large_layer_takes_few_bits_in_bytecode(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((1024, 2752), dtype=np.float32)
    path = tmp_path / "layer.mlirbc"
    import_onnx(gemm(weight), weight_quantizer="absmean").save(path)
    assert path.stat().st_size * 8 / weight.size < 1.65
