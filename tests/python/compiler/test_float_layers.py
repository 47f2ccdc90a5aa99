"""Which products become ternary layers: what is ternary in the model, and floats where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import (
    ConversionError,
    MlirModule,
    compile,
    compile_module,
    import_onnx,
    to_mlir,
)
from pytfmbs.compiler.cli import main
from pytfmbs.onnx.export import export
from torch import nn


def mixed() -> nn.Sequential:
    torch.manual_seed(0)
    body = TFMBSLinear(16, 32, name="body", weight_quantizer="absmean", activation="int8")
    return nn.Sequential(body, nn.ReLU(), nn.Linear(32, 4)).eval()


def layers(module: MlirModule) -> list[str]:
    return [hint["layer"] for hint in module.layers]


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize("target", ["linalg", "runtime"])
def test_a_float_head_stays_in_floats(target: Any) -> None:
    model, x = mixed(), torch.randn(8, 16)
    with torch.no_grad(), compile(model, (x,), target=target) as program:
        torch.testing.assert_close(program(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["custom", "portable"])
@pytest.mark.parametrize(("float_layers", "count"), [("auto", 1), ("keep", 1), ("quantize", 2)])
def test_choices_of_a_mixed_model(mode: Any, float_layers: Any, count: int) -> None:
    model = mixed()
    # A layer of an earlier test that is not collected yet may hold the name "body".
    body = cast(TFMBSLinear, model[0]).name
    file = export(model, (torch.randn(8, 16),), mode=mode).model_proto
    assert layers(import_onnx(file, float_layers=float_layers)) == [body, "2"][:count]


@pytest.mark.parametrize(("float_layers", "count"), [("auto", 2), ("keep", 0), ("quantize", 2)])
def test_choices_of_a_model_without_ternary_layers(float_layers: Any, count: int) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    module = to_mlir(model, torch.randn(2, 5), float_layers=float_layers)
    assert len(module.layers) == count
    assert ("tfmbs.gemv" in str(module)) == bool(count)


def test_a_choice_that_is_none() -> None:
    with pytest.raises(ConversionError, match="float_layers is 'float'; allowed are 'auto'"):
        to_mlir(nn.Linear(2, 2), torch.randn(2, 2), float_layers="float")  # type: ignore[arg-type]


def test_the_tool_takes_the_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.onnx"
    export(nn.Linear(5, 4).eval(), (torch.randn(2, 5),), file)
    out = str(tmp_path / "model.mlir")
    assert main([str(file), "-o", out, "--float-layers", "keep"]) == 0
    assert "(no ternary layer)" in capsys.readouterr().out
    assert main([str(file), "-o", out]) == 0
    assert "4 x 5" in capsys.readouterr().out


# --- weights that are ternary in the file ---------------------------------------------------------


def qdq(
    integers: np.ndarray,
    scale: np.ndarray,
    zero: int | None = None,
    *,
    kind: int = TensorProto.INT8,
    op: str = "MatMul",
    transposed: bool = False,
    bias: np.ndarray | None = None,
    **attributes: Any,
) -> onnx.ModelProto:
    """y = x · DequantizeLinear(integers) (+ bias); Gemm takes the weights as [outputs, depth]."""
    flat = integers.reshape(-1).tolist()
    tensors = [
        helper.make_tensor("fc.weight_quantized", kind, integers.shape, flat),
        numpy_helper.from_array(scale, "scale"),
    ]
    if zero is not None:
        tensors.append(helper.make_tensor("zero", kind, [], [zero]))
    names = [tensor.name for tensor in tensors]
    nodes = [helper.make_node("DequantizeLinear", names, ["w"], "dq", **attributes)]
    if transposed:
        nodes.append(helper.make_node("Transpose", ["w"], ["wt"], "transpose", perm=[1, 0]))
    inputs = ["x", nodes[-1].output[0]]
    if bias is not None:
        tensors.append(numpy_helper.from_array(bias, "c"))
        inputs.append("c")
    extra = {"transB": 1} if op == "Gemm" else {}
    nodes.append(helper.make_node(op, inputs, ["y"], "product", **extra))
    depth = integers.shape[1 if transposed or op == "Gemm" else 0]
    element = helper.np_dtype_to_tensor_dtype(scale.dtype)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", element, ["n", depth])],
        [helper.make_tensor_value_info("y", element, ["n", "outputs"])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])


RNG = np.random.default_rng(3)
TRITS = RNG.integers(-1, 2, (7, 12))  # [outputs, depth]
X = RNG.standard_normal((5, 12)).astype(np.float32)
PER_OUTPUT = np.linspace(0.25, 2.0, 7).astype(np.float32)
ONE = np.array(0.5, np.float32)

CASES: dict[str, tuple[onnx.ModelProto, np.ndarray]] = {
    "int8": (qdq(TRITS.T, ONE), ONE),
    "int4": (qdq(TRITS.T, ONE, kind=TensorProto.INT4), ONE),
    "int2": (qdq(TRITS.T, ONE, kind=TensorProto.INT2), ONE),
    "uint8 about 128": (qdq(TRITS.T + 128, ONE, 128, kind=TensorProto.UINT8), ONE),
    "uint2 about 1": (qdq(TRITS.T + 1, ONE, 1, kind=TensorProto.UINT2), ONE),
    "a scale an output": (qdq(TRITS.T, PER_OUTPUT, axis=1), PER_OUTPUT),
    "transposed": (qdq(TRITS, PER_OUTPUT, axis=0, transposed=True), PER_OUTPUT),
    "Gemm": (qdq(TRITS, PER_OUTPUT, axis=0, op="Gemm", bias=PER_OUTPUT), PER_OUTPUT),
    "blocks of equal scales": (
        qdq(TRITS, np.repeat(PER_OUTPUT[:, None], 3, 1), axis=1, block_size=4, transposed=True),
        PER_OUTPUT,
    ),
}


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize("case", CASES)
def test_qdq_weights_are_layers_with_their_scales(case: str) -> None:
    model, scale = CASES[case]
    module = import_onnx(model)
    (hint,) = module.layers
    assert (hint["out_features"], hint["in_features"]) == TRITS.shape
    assert (hint["activation"], hint["layer"]) == ("int8", "fc")
    got = compile_module(module, opt_level=0)(X)
    top = np.maximum(np.abs(X).max(1, keepdims=True), np.float32(1e-5))
    q = np.round(X * (np.float32(127) / top)).clip(-127, 127).astype(np.int32)
    expected = (q @ TRITS.T).astype(np.float32) * ((top / np.float32(127)) * scale)
    if case == "Gemm":
        expected = expected + PER_OUTPUT
    np.testing.assert_array_equal(got, expected)


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize(
    "model",
    [
        qdq(TRITS.T * 2, ONE),
        qdq(TRITS, np.linspace(0.5, 1, 12).astype(np.float32), axis=1, transposed=True),
        qdq(TRITS, RNG.random((7, 3)).astype(np.float32), axis=1, block_size=4, transposed=True),
    ],
    ids=["no trits", "a scale an input", "blocks"],
)
def test_qdq_weights_that_no_layer_holds_stay_floats(model: onnx.ModelProto) -> None:
    module = import_onnx(model, float_layers="keep")
    assert module.layers == ()
    (expected,) = ReferenceEvaluator(model).run(None, {"x": X})
    got = compile_module(module, opt_level=0)(X)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_a_qdq_layer_keeps_the_float_layers_beside_it() -> None:
    model = qdq(TRITS.T, ONE)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((7, 3), np.float32), "head"))
    model.graph.node.append(helper.make_node("MatMul", ["y", "head"], ["z"], "head"))
    model.graph.output[0].name = "z"
    assert layers(import_onnx(model)) == ["fc"]
    assert layers(import_onnx(model, float_layers="quantize")) == ["fc", "head"]
    assert import_onnx(model, activation="ternary").layers[0]["activation"] == "ternary"
