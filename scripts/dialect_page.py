"""Makes docs/dialect.md of what TableGen says about the dialect and its passes.

scripts/dialect_page.py <mlir-tblgen> <folder of MLIR's headers> <output>
scripts/dialect_page.py --check <mlir-tblgen> <folder of MLIR's headers> <page>
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from pathlib import Path

_INCLUDE = Path(__file__).resolve().parents[1] / "mlir" / "include"
_HEAD = """\
<!-- Made from mlir/include/tfmbs-mlir by `cmake --build build --target tfmbs_mlir_docs`. -->

# The tfmbs dialect

`mlir-opt --load-dialect-plugin=build/libtfmbs_plugin.so` knows the dialect and its passes;
`--load-pass-plugin=` brings the passes alone. How the ops come to be, and what the passes are for,
is in [compiler.md](compiler.md).

"""


def tablegen(program: str, headers: str, source: str, *generator: str) -> str:
    """What a generator of mlir-tblgen writes, without its note and its table of contents."""
    command = [program, *generator, "-I", str(_INCLUDE), "-I", headers, str(_INCLUDE / source)]
    text = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
    lines = [line for line in text.split("\n") if not line.startswith(("<!--", "[TOC]"))]
    return "\n".join(lines)


def page(program: str, headers: str) -> str:
    dialect = tablegen(
        program, headers, "tfmbs-mlir/Dialect/TfmbsOps.td", "-gen-dialect-doc", "-dialect=tfmbs"
    )
    passes = tablegen(program, headers, "tfmbs-mlir/Transforms/Passes.td", "-gen-pass-doc")
    body = dialect.split("# 'tfmbs' Dialect\n", 1)[1] + "\n## Passes\n" + passes
    lines: list[str] = []
    for line in (_HEAD + body).split("\n"):
        if line.strip() or (lines and lines[-1]):  # one empty line where TableGen leaves several
            lines.append(line.rstrip())
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="The dialect's page, from TableGen.")
    parser.add_argument("program", help="mlir-tblgen")
    parser.add_argument("headers", help="the folder of MLIR's headers")
    parser.add_argument("page", type=Path, help="the page, docs/dialect.md")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    arguments = parser.parse_args()
    made = page(arguments.program, arguments.headers)
    if not arguments.check:
        arguments.page.write_text(made, encoding="utf-8")
        return 0
    there = arguments.page.read_text(encoding="utf-8")
    sys.stdout.writelines(
        difflib.unified_diff(
            there.splitlines(True), made.splitlines(True), str(arguments.page), "TableGen"
        )
    )
    return 0 if there == made else 1


if __name__ == "__main__":
    sys.exit(main())
