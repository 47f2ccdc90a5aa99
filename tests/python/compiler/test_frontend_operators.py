"""Operators: the emitted modules, compiled and run, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from frontend_cases import FAMILIES, Case, model
from pytfmbs.compiler import compile_module, import_onnx


def expected(case: Case) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model([case]).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {f"i0_{i}": v for i, v in enumerate(case.inputs) if isinstance(v, np.ndarray)}
    return [np.asarray(array) for array in session.run(None, feed)]


@pytest.mark.parametrize("dims", ["static", "batch", "unknown"])
@pytest.mark.usefixtures("mlir_tools")
@pytest.mark.parametrize("family", FAMILIES)
def test_results_are_onnx_runtimes(family: str, dims: str) -> None:
    cases = FAMILIES[family]
    module = import_onnx(model(cases, dims=dims))
    function = compile_module(module, opt_level=0)
    given = function(*[array for case in cases for array in case.arrays])
    results = iter(given if isinstance(given, list | tuple) else [given])
    for case in cases:
        for want in expected(case):
            got = np.asarray(next(results))
            shapes = [getattr(value, "shape", None) for value in case.inputs]
            where = f"{case.op} {case.attributes} of {shapes}, {dims}"
            assert (got.dtype, got.shape) == (want.dtype, want.shape), where
            tolerance = 2e-3 if got.dtype == np.float16 else 2e-6
            np.testing.assert_allclose(
                got.astype(np.float64),
                want.astype(np.float64),
                rtol=tolerance,
                atol=1e-6,
                err_msg=where,
            )
