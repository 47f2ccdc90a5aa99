"""Broken models: a ConversionError each, and nothing else."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from frontend_mutations import mutated_bytes, mutated_fields, seed_models
from onnx import TensorProto, helper, numpy_helper
from pytfmbs.compiler import (
    ConversionError,
    InvalidModelError,
    UnsupportedOperatorError,
    import_onnx,
    to_mlir,
)


def graph(nodes: list[onnx.NodeProto], *initializers: onnx.TensorProto) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = onnx.ValueInfoProto(name="y")
    made = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


def weights(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def test_mutations_end_in_a_module_or_a_conversion_error(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    models = seed_models()
    data = [model.SerializeToString() for model in models]
    path = tmp_path / "mutated.onnx"
    ends: Counter[str] = Counter()
    modules: list[str] = []
    for seed in range(2000):
        rng = random.Random(seed)
        which = rng.randrange(len(models))
        try:
            if seed % 2:
                path.write_bytes(mutated_bytes(rng, data[which]))
                module = to_mlir(path)
            else:
                module = import_onnx(mutated_fields(rng, models[which]))
            ends["module"] += 1
            modules.append(module.text)
        except ConversionError:
            ends["error"] += 1
    assert min(ends["module"], ends["error"]) > 100, ends
    tools = request.getfixturevalue("dialect_tools")  # only now: above needs none
    for text in modules[:: len(modules) // 40]:
        tools.run("mlir-opt", *tools.plugin_flags(), "-o", os.devnull, "-", stdin=text.encode())


@pytest.mark.parametrize("data", [b"", b"\0" * 64, b"not a model", b"\x08\x0a\x3a"])
def test_bytes_that_are_no_model(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModelError, match=r"broken\.onnx is no ONNX file|no version"):
        to_mlir(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        to_mlir(tmp_path / "none.onnx")


def test_external_data_that_is_missing(tmp_path: Path) -> None:
    model = graph([helper.make_node("MatMul", ["x", "w"], ["y"])], weights("w", 4, 300))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="data.bin", size_threshold=0)
    assert to_mlir(path).layers[0]["out_features"] == 300
    (tmp_path / "data.bin").unlink()
    with pytest.raises(InvalidModelError, match="external data cannot be read"):
        to_mlir(path)
    with pytest.raises(InvalidModelError, match="external file"):
        to_mlir(onnx.load(path, load_external_data=False))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([helper.make_node("Relu", ["z"], ["y"], "r")], "reads 'z', which nothing defines"),
        (
            [helper.make_node("Relu", ["b"], ["y"]), helper.make_node("Neg", ["y"], ["b"])],
            "a cycle through",
        ),
        (
            [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])],
            "defined already",
        ),
        ([helper.make_node("Relu", ["x", "x"], ["y"], "r")], "2 inputs; allowed are 1 to 1"),
        ([helper.make_node("Relu", ["x"], ["y"], alpha=1.0)], "no attribute 'alpha'"),
        ([helper.make_node("Softmax", ["x"], ["y"], axis=2)], "axis is 2; a tensor of rank 2"),
        ([helper.make_node("Softmax", ["x"], ["y"], axis=0.5)], "axis must be INT, not FLOAT"),
        ([helper.make_node("MatMul", ["x", "w"], ["y"], "m")], r"\[\.\.\., 5\].*not float32"),
        ([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 0])], r"perm is \[0, 0\]"),
    ],
)
def test_faults_are_named(nodes: list[onnx.NodeProto], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        import_onnx(graph(nodes, weights("w", 5, 3)))


def test_an_unknown_operator_is_named_with_its_node_and_output() -> None:
    model = graph(
        [
            helper.make_node("Bernoulli", ["x"], ["h"], "dice"),
            helper.make_node("Relu", ["h"], ["y"], "relu"),
        ]
    )
    with pytest.raises(UnsupportedOperatorError) as caught:
        import_onnx(model)
    error = caught.value
    assert (error.op_type, error.domain, error.node) == ("Bernoulli", "", "dice")
    assert error.outputs == ("y",)
    for word in ("Bernoulli", "'dice'", "'y'"):
        assert word in str(error)


def test_what_the_output_does_not_need_is_not_looked_at() -> None:
    model = graph(
        [
            helper.make_node("Bernoulli", ["x"], ["h"], "dice"),
            helper.make_node("Relu", ["x"], ["y"], "relu"),
        ]
    )
    assert "arith.select" in import_onnx(model).text


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])], "b", [], [onnx.ValueInfoProto(name="b")]
    )
    model = graph(
        [
            helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
            helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
            helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=branch),
        ]
    )
    with pytest.raises(UnsupportedOperatorError, match="control flow"):
        import_onnx(model)


def test_huge_shapes_are_refused() -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])])
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = 2**40
    with pytest.raises(ConversionError, match="too many elements"):
        import_onnx(model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "int4"}, "'ternary', 'int8'"),
        ({"weight_quantizer": "best"}, "'sign', 'absmean', 'twn'"),
        ({"function_name": ""}, "function_name"),
        ({"outputs": ["nope"]}, "'nope' is no value of the graph"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str) -> None:
    model = graph([helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(ConversionError, match=message):
        import_onnx(model, **options)
