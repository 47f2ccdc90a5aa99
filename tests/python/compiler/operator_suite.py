"""onnx's operator suite through the compiler: what each of its cases comes to.

python tests/python/compiler/operator_suite.py          writes operator_suite.json anew
"""

from __future__ import annotations

import json
import re
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from pytfmbs.compiler import (
    CompilationError,
    CompiledModule,
    ConversionError,
    MlirModule,
    Toolchain,
    compile_module,
    import_onnx,
)
from pytfmbs.compiler.execution import signature

REFUSED = Path(__file__).with_name("operator_suite.json")
#: The suite's tolerance, 0.001, is less than one rounding to these types: two of them. Its expected
#: numbers are rounded after each step, and sums of bfloat16 within.
_ROUNDINGS = {"float16": 2 * 2**-10, "bfloat16": 2 * 2**-7}
_A_BATCH = 60  # cases that are compiled as one module
_RESOURCES = re.compile(r"\n\{-#\n.*#-\}\n", re.DOTALL)
_ENTRY = re.compile(r"^      (\w[\w$.]*): (\"0x[0-9A-F]*\"),?$", re.MULTILINE)


@dataclass
class Report:
    """Cases by what came of them: their names, and why."""

    right: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    #: Modules that do not compile.
    invalid: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def collected() -> list[Any]:
    """The suite. It is made by running onnx's reference, in some ten seconds."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(collect_testcases(None))


def run(cases: Sequence[Any], threads: int = 2) -> Report:
    """Converts, compiles and calls every case."""
    report = Report()
    taken: list[tuple[Any, MlirModule]] = []
    for case in cases:
        module = _converted(case, f"case{len(taken)}")
        if isinstance(module, str):
            report.refused[case.name] = module
        else:
            taken.append((case, module))
    tools = Toolchain()
    batches = [taken[i : i + _A_BATCH] for i in range(0, len(taken), _A_BATCH)]
    with ThreadPoolExecutor(threads) as pool:
        compiled = list(pool.map(lambda batch: _compile(batch, tools), batches))
    for batch in compiled:
        for case, function in batch:
            if isinstance(function, str):
                report.invalid[case.name] = function
                continue
            fault = _fault(case, function)
            if fault is None:
                report.right.append(case.name)
            else:
                report.wrong[case.name] = fault
    return report


def _converted(case: Any, name: str) -> MlirModule | str:
    """A case's module, or why it is refused. Products stay products: no layer has their numbers."""
    try:
        return import_onnx(case.model, float_layers="keep", function_name=name)
    except ConversionError as error:
        return reason(str(error))


def _compile(
    batch: Sequence[tuple[Any, MlirModule]], tools: Toolchain
) -> list[tuple[Any, CompiledModule | str]]:
    """The functions of a batch, or what is wrong with a module: halves until it is alone."""
    if not batch:
        return []
    names = [module.function_name for _, module in batch]
    text = _merged([module.text for _, module in batch])
    with tempfile.TemporaryDirectory() as folder:
        try:
            first = compile_module(text, entry=names[0], opt_level=0, keep=folder, toolchain=tools)
        except CompilationError as error:
            if len(batch) == 1:
                return [(batch[0][0], str(error)[:500])]
            middle = len(batch) // 2
            return [*_compile(batch[:middle], tools), *_compile(batch[middle:], tools)]
        generic = tools.run(
            "mlir-opt", *tools.plugin_flags(), "--mlir-print-op-generic",
            "--mlir-elide-elementsattrs-if-larger=4", "--mlir-elide-resource-strings-if-larger=4",
            str(Path(folder, "module.mlir")),
        )  # fmt: skip
        library = next(path for path in Path(folder).iterdir() if path.suffix in (".so", ".dylib"))
        functions = [
            CompiledModule(library, signature.parse(generic, name), "linalg", None)
            for name in names
        ]
        first.close()
    return [(case, function) for (case, _), function in zip(batch, functions, strict=True)]


def _merged(texts: Sequence[str]) -> str:
    """Modules of a function each as one module."""
    functions, entries = [], []
    for number, text in enumerate(texts):
        resources = "".join(_RESOURCES.findall(text))
        body = _RESOURCES.sub("", text).strip()
        body = body.removeprefix("module {").removesuffix("}")
        for name, blob in _ENTRY.findall(resources):
            entries.append(f"      r{number}.{name}: {blob}")
            body = body.replace(f"dense_resource<{name}>", f"dense_resource<r{number}.{name}>")
        functions.append(body)
    module = "module {\n" + "\n".join(functions) + "\n}\n"
    if not entries:
        return module
    blobs = ",\n".join(entries)
    return (
        f"{module}\n{{-#\n  dialect_resources: {{\n    builtin: {{\n{blobs}\n    }}\n  }}\n#-}}\n"
    )


def _fault(case: Any, function: CompiledModule) -> str | None:
    """What a function's results differ in from the suite's, or None."""
    for inputs, outputs in case.data_sets:
        try:
            given = function(*map(_array, inputs))
        except (TypeError, ValueError, MemoryError) as error:
            return f"the call fails: {error}"
        results = given if isinstance(given, tuple) else (given,)
        for got, wanted in zip(map(np.asarray, results), map(_array, outputs), strict=True):
            if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
                return f"{got.dtype} {got.shape}, not {wanted.dtype} {wanted.shape}"
            if got.dtype.kind in "fV":
                wide = got.astype(np.float64), wanted.astype(np.float64)
                rtol = max(case.rtol, _ROUNDINGS.get(got.dtype.name, 0.0))
                same = np.allclose(*wide, rtol=rtol, atol=case.atol, equal_nan=True)
            else:
                same = np.array_equal(got, wanted)
            if not same:
                return "other numbers"
    return None


def _array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def reason(message: str) -> str:
    """A refusal less the names of its case."""
    message = message.splitlines()[0]
    message = re.sub(r" \(node .*?\)(, which output .*? needs,)?(?= cannot be taken)", "", message)
    message = message.partition("; export the model with others")[0]
    message = re.sub(r"'[^']*_expanded_function_[^']*'", "'…'", message)
    return re.sub(r"\s+", " ", message)[:240]


def main() -> None:
    report = run(collected())
    print(f"{len(report.right)} right, {len(report.refused)} refused")
    for name, why in (*report.wrong.items(), *report.invalid.items()):
        print(f"{name}: {why}")
    known = {
        "onnx": onnx.__version__,
        "right": len(report.right),
        "refused": dict(sorted(report.refused.items())),
    }
    text = json.dumps(known, indent=1, ensure_ascii=False)
    REFUSED.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
