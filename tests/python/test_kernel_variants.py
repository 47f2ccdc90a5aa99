"""The list of ISA variants (cpp/kernels/variants.json): who reads it, and the page that shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import pytfmbs

from benchmarks.suite import kernel_page, variants
from benchmarks.suite.variants import VARIANTS


def test_the_libraries_variants_are_of_the_list_in_its_order() -> None:
    built = pytfmbs.isa_variants()
    assert built == [name for name in VARIANTS if name in built]
    assert built[0] == next(iter(VARIANTS)) == "portable"


def test_the_page_shows_the_list() -> None:
    page = kernel_page.PAGE.read_text(encoding="utf-8")
    assert page == kernel_page.made(page), (
        "docs/kernels.md is not of cpp/kernels/variants.json: "
        "`python -m benchmarks.suite.kernel_page` writes its tables"
    )


def test_a_page_without_marks_is_refused() -> None:
    page = kernel_page.PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"the page has no <!-- table of variants: begin -->"):
        kernel_page.made("# Kernels\n")
    with pytest.raises(ValueError, match=r"or no <!-- table of layouts: end -->"):
        kernel_page.made(page.replace("<!-- table of layouts: end -->", ""))


def test_what_an_entry_lacks_is_its_parents(tmp_path: Path) -> None:
    entries = [
        {"name": "one", "needs": "", "tested": "", "targets": ["fast"],
         "trit_layouts": ["a", "b"], "int8_layouts": ["c", "d"],
         "peaks": {"int8": ["int8 of one", ""], "fp32": ["fp32 of one", ""]}},
        {"name": "two", "parent": "one", "needs": "", "tested": "", "int8_layouts": ["e", "f"],
         "peaks": {"int8": ["int8 of two", ""]}},
        {"name": "three", "parent": "two", "needs": "", "tested": "", "targets": []},
    ]  # fmt: skip
    path = tmp_path / "variants.json"
    path.write_text(json.dumps({"variants": entries}), encoding="utf-8")
    found = variants.read(path)
    three = found["three"]
    assert list(found) == ["one", "two", "three"]
    assert [variant.name for variant in three.line()] == ["three", "two", "one"]
    assert (three.trit_layouts, three.int8_layouts) == (("a", "b"), ("e", "f"))
    assert [variant.targets for variant in found.values()] == [{"fast"}, {"fast"}, set()]
    assert {product: (peak.name, peak.key) for product, peak in three.peaks.items()} == {
        "int8": ("int8 of two", "int8/two"), "fp32": ("fp32 of one", "fp32/one"),
    }  # fmt: skip


@pytest.mark.parametrize("kernels", pytfmbs.isa_variants())
def test_the_environment_forces_a_variant(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFMBS_KERNEL", kernels)
    code = "import pytfmbs; print(pytfmbs.active_kernels())"
    found = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=300
    )
    assert found.stdout.strip() == kernels
