"""Sizes of arguments that contradict each other: an error or the right answer, never garbage."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from frontend_cases import FAMILIES, Case, Constant, floats, model, value_info, vector
from onnx import helper, numpy_helper
from pytfmbs.compiler import (
    CompilationError,
    CompiledModule,
    compile_module,
    import_onnx,
)

pytestmark = pytest.mark.usefixtures("mlir_tools")


def compiled(text: Any, **options: Any) -> CompiledModule:
    return compile_module(text, opt_level=0, **options)


def unknown(case: Case) -> CompiledModule:
    return compiled(import_onnx(model([case], dims="unknown")))


def zeros(*shape: int) -> np.ndarray:
    """Of pages that nobody has touched."""
    return np.zeros(shape, np.float32)


def test_a_product_of_depths_that_differ() -> None:
    module = unknown(Case("MatMul", [floats(3, 4), floats(4, 5)]))
    words = "argument 0 of main, dimension 1, is 536870912, and argument 1 of main, dimension 0, is"
    with pytest.raises(ValueError, match=words + r" 1: they must be equal \(MatMul node 'node0'\)"):
        module(zeros(1, 1 << 29), zeros(1, 1))
    with pytest.raises(ValueError, match="they must be equal"):
        module(zeros(2, 0), zeros(3, 4))
    assert module(zeros(2, 0), zeros(0, 4)).tolist() == [[0.0] * 4] * 2


def test_a_sum_that_does_not_broadcast() -> None:
    module = unknown(Case("Add", [floats(5), Constant(np.arange(5, dtype=np.float32))]))
    words = r"argument 0 of main, dimension 0, is 3; it must be 1 or 5 \(Add node 'node0'\)"
    for size in (0, 2, 3, 6, 1 << 29):
        with pytest.raises(ValueError, match=words.replace("3", str(size), 1)):
            module(zeros(size))
    assert module(zeros(1)).tolist() == module(zeros(5)).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize("target", ["linalg", "runtime"])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_a_layer_of_another_depth(op: str, target: Any) -> None:
    case = Case(op, [floats(3, 16384), Constant(floats(16384, 2))])
    module = compiled(import_onnx(model([case], dims="unknown")), target=target)
    for features in (0, 1, 2, 16383, 16385):
        with pytest.raises(ValueError, match=f"dimension 1, is {features}; it must be 16384"):
            module(zeros(3, features))
    assert module(zeros(3, 16384)).shape == (3, 2)


def test_sizes_that_follow_from_others() -> None:
    # x [n, m] as [-1, 6], plus y [k, 6]: n·m is a multiple of 6, and k is n·m/6 or 1.
    x, y = floats(4, 3), floats(2, 6)
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["z"], name="r"),
            helper.make_node("Add", ["z", "y"], ["s"], name="a"),
        ],
        "g",
        [value_info("x", x, ["n", "m"]), value_info("y", y, ["k", "l"])],
        [onnx.ValueInfoProto(name="s")],
        [numpy_helper.from_array(np.array([-1, 6]), "shape")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    module = compiled(import_onnx(made))
    assert np.array_equal(module(x, y), x.reshape(2, 6) + y)
    assert np.array_equal(module(x, y[:1]), x.reshape(2, 6) + y[:1])
    with pytest.raises(
        ValueError, match=r"follows from argument 0.* is 7.* is 6.*Reshape node 'r'"
    ):
        module(floats(7, 1), y)
    with pytest.raises(ValueError, match=r"is 3: .* one of them 1 \(Add node 'a'\)"):
        module(x, floats(3, 6))
    with pytest.raises(ValueError, match="is 5; it must be 1 or 6"):
        module(x, floats(2, 5))


def test_results_that_no_memory_holds() -> None:
    outer = unknown(Case("Add", [floats(3, 1), floats(1, 3)]))
    with pytest.raises(MemoryError, match=r"no room for a tensor of 4611686018427387904 bytes"):
        outer(zeros(1 << 30, 1), zeros(1, 1 << 30))
    with pytest.raises(ValueError, match=r"the largest is 9223372036854775807"):
        outer(zeros(1 << 31, 1), zeros(1, 1 << 31))
    expand = compiled(import_onnx(model([Case("Expand", [floats(1), vector(1 << 59)])])))
    with pytest.raises(MemoryError, match="no room"):
        expand(zeros(1))


# --- at random ------------------------------------------------------------------------------------

SIZES = [0, 1, 1, 2, 3, 4, 5, 7, 24]
CALLS = 60  # a module


def onnx_runtimes(session: Any, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
    """What ONNX Runtime gives, None where it refuses the shapes."""
    feed = {info.name: array for info, array in zip(session.get_inputs(), arrays, strict=True)}
    try:
        return [np.asarray(array) for array in session.run(None, feed)]
    except Exception:  # its errors have no common class that is public
        return None


def contradicted(rng: np.random.Generator, array: np.ndarray, bold: float) -> np.ndarray:
    """An array of the same rank and type, with some sizes drawn anew."""
    shape = [int(rng.choice(SIZES)) if rng.random() < bold else size for size in array.shape]
    values = np.resize(array.reshape(-1), shape) if array.size else np.ones(shape)
    return np.ascontiguousarray(values, array.dtype).reshape(shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_contradicting_sizes_at_random(family: str) -> None:
    """A module a case; each call against ONNX Runtime's answer."""
    cases = {(c.op, len(c.inputs), str(c.attributes)): c for c in FAMILIES[family] if not c.static}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    ends: Counter[str] = Counter()
    for place, case in enumerate(cases.values()):
        single = family == "unary" and len(case.inputs) == 1
        if single or not any(array.ndim for array in case.arrays):
            continue  # any size is right
        made = model([case], dims="unknown")
        module = unknown(case)
        session = onnxruntime.InferenceSession(made.SerializeToString(), options)
        rng = np.random.default_rng(place)
        for call in range(CALLS):
            arrays = [contradicted(rng, array, 0.2 + call / CALLS / 2) for array in case.arrays]
            where = f"{case.op} {case.attributes} of {[a.shape for a in arrays]}"
            try:
                given = module(*arrays)
            except ValueError:
                ends["refused"] += 1
                continue
            wanted = onnx_runtimes(session, arrays)
            if wanted is None:
                ends["more than ONNX Runtime takes"] += 1
                continue
            ends["computed"] += 1
            results = given if isinstance(given, tuple) else (given,)
            for got, want in zip(results, wanted, strict=True):
                assert (got.dtype, got.shape) == (want.dtype, want.shape), where
                if not all(array.size for array in arrays):
                    continue  # the mean of nothing is 0 there, NaN in the specification
                tolerance = 2e-3 if got.dtype == np.float16 else 1e-5
                np.testing.assert_allclose(
                    got.astype(np.float64), want.astype(np.float64), tolerance, 1e-5, err_msg=where
                )
    assert ends["computed"] > 50, ends


@pytest.mark.parametrize(
    "line",
    [
        "",
        "equal %1 3",
        "%1 = size 0 1",
        "%1 = size 1 0",
        "%1 = pow 2 3",
        "less 1 2",
        "%1 =",
        "room",
    ],
)
def test_requirements_that_are_none(line: str) -> None:
    text = f"""func.func @main(%x: tensor<?xf32>) -> tensor<?xf32>
    attributes {{tfmbs.requires = ["{line}"]}} {{
  return %x : tensor<?xf32>
}}
"""
    with pytest.raises(CompilationError, match="is no requirement"):
        compiled(text)


def test_requirements_of_a_module_as_text() -> None:
    text = r"""func.func private @other(%x: tensor<?xf32>) -> tensor<?xf32>
    attributes {tfmbs.requires = ["%1 = size 0 0", "equal %1 9 nobody"]} {
  return %x : tensor<?xf32>
}
func.func @main(%x: tensor<?x?xf32>) -> tensor<?x?xf32>
    attributes {tfmbs.requires = ["%1 = size 0 0", "%2 = size 0 1", "%3 = mul %1 %2",
                                  "at_least %3 4 a \22quoted\22 \C3\A4"]} {
  return %x : tensor<?x?xf32>
}
"""
    module = compiled(text)
    assert module(zeros(2, 2)).shape == (2, 2)
    with pytest.raises(ValueError, match=r'is 3; it must be at least 4 \(a "quoted" ä\)'):
        module(zeros(3, 1))
