"""onnx's own operator suite: what is taken gives its numbers, and what is refused is known."""

from __future__ import annotations

import json

import onnx
import pytest
from operator_suite import REFUSED, collected, run

_AT_LEAST = 800  # right


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.timeout(1200)
def test_every_case_is_right_or_refused_as_listed() -> None:
    known = json.loads(REFUSED.read_text(encoding="utf-8"))
    if known["onnx"] != onnx.__version__:
        pytest.skip(f"the list is of onnx {known['onnx']}; this is {onnx.__version__}")
    report = run(collected())
    assert report.wrong == {}
    assert report.invalid == {}
    # The names; what the list says of why is for its readers.
    fresh, listed = set(report.refused), set(known["refused"])
    assert fresh == listed, "python tests/python/compiler/operator_suite.py writes the list anew"
    assert len(report.right) == known["right"] >= _AT_LEAST
