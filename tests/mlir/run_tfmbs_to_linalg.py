#!/usr/bin/env python3
"""Lowers the fixtures of this folder with tfmbs-to-linalg, and checks what comes out.

    mlir-opt --load-dialect-plugin=build/libtfmbs_plugin.so \\
        --pass-pipeline="builtin.module(tfmbs-to-linalg)" FIXTURE

For each: linalg.matmul is there, no op or type of the dialect is left, and each product's
telemetry, tile mask and address stand on a linalg.matmul with the values that they had.

Exit status: 0 fine, 1 a check failed, 2 a tool or a file is missing. Any Python 3.10 runs it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PIPELINE = "builtin.module(tfmbs-to-linalg)"
KEPT = ("telemetry", "tile_mask", "weight_addr")


def load_toolchain() -> Any:
    """The package's module that finds tools, without the package, which needs torch."""
    path = ROOT / "python" / "pytfmbs" / "compiler" / "toolchain" / "programs.py"
    spec = importlib.util.spec_from_file_location("tfmbs_toolchain", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def without_strings(text: str) -> str:
    """The text with every string literal and comment blanked, place by place."""
    return re.sub(
        r'"(?:[^"\\]|\\.)*"|//[^\n]*', lambda match: " " * (match.end() - match.start()), text
    )


def products(text: str, op: str) -> list[dict[str, str]]:
    """The kept attributes of every such op, as text by name, in program order."""
    blank = without_strings(text)
    found = []
    for match in re.finditer(rf"\b{re.escape(op)}\b", blank):
        head = blank[match.end() : blank.find("ins(", match.end())]
        start = head.find("{")
        offset = match.end() + start
        attributes = split_dictionary(text, blank, offset) if start >= 0 else {}
        found.append({key: attributes[key] for key in KEPT if key in attributes})
    return found


def split_dictionary(text: str, blank: str, start: int) -> dict[str, str]:
    """The entries of the dictionary attribute that begins at start."""
    entries, depth, begin = {}, 0, start + 1
    for place in range(start, len(blank)):
        sign = blank[place]
        depth += (sign in "{[(<") - (sign in "}])>")
        if depth == 0 or (sign == "," and depth == 1):
            key, _, value = text[begin:place].partition("=")
            entries[key.strip()] = value.strip()
            begin = place + 1
        if depth == 0:
            break
    return entries


def faults(before: str, after: str) -> list[str]:
    """What is wrong with a lowered module."""
    found = []
    blank = without_strings(after)
    if "linalg.matmul" not in blank:
        found.append("there is no linalg.matmul")
    ops = re.findall(r"^\s*(?:%[^=\n]*= )?(tfmbs\.\w+)", blank, re.MULTILINE)
    left = sorted({*ops, *re.findall(r"!tfmbs\.\w+", blank)})
    if left:
        found.append(f"of the dialect is left: {', '.join(left)}")
    wanted = products(before, "tfmbs.gemv") + products(before, "tfmbs.linear")
    matmuls = products(after, "linalg.matmul")
    if not wanted:
        found.append("the fixture has no product: nothing was checked")
    for attributes in wanted:
        if attributes in matmuls:
            matmuls.remove(attributes)
        else:
            found.append(f"no linalg.matmul carries {attributes}; those left carry {matmuls}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mlir-opt", help="the program (default: TFMBS_MLIR_OPT, or looked for)")
    parser.add_argument("--plugin", help="the plugin (default: TFMBS_MLIR_PLUGIN, or looked for)")
    parser.add_argument("--show", action="store_true", help="print each lowered module")
    parser.add_argument("files", nargs="*", type=Path, help="default: every .mlir of this folder")
    arguments = parser.parse_args()

    toolchain = load_toolchain()
    tools = toolchain.Toolchain(mlir_opt=arguments.mlir_opt, plugin=arguments.plugin)
    files = arguments.files or sorted(HERE.glob("*.mlir"))
    try:
        tools.path("mlir-opt")
        flags = [*tools.plugin_flags(), toolchain.NO_OP_DUMPS]
    except toolchain.ToolNotFoundError as error:
        print(f"run_tfmbs_to_linalg: {error}", file=sys.stderr)
        return 2
    missing = [str(path) for path in files if not path.is_file()]
    if missing or not files:
        print(f"run_tfmbs_to_linalg: no such file: {', '.join(missing) or HERE}", file=sys.stderr)
        return 2

    failed = 0
    for path in files:
        try:
            # As mlir-opt prints it: the same spelling of every attribute on both sides.
            before = tools.run("mlir-opt", *flags, str(path))
            after = tools.run("mlir-opt", *flags, f"--pass-pipeline={PIPELINE}", str(path))
            found = faults(before, after)
        except toolchain.CompilationError as error:
            found, before, after = [str(error)], "", ""
        if arguments.show:
            print(after)
        failed += bool(found)
        count = len(products(after, "linalg.matmul"))
        verdict = "FAILED" if found else f"ok, {count} linalg.matmul with telemetry and mask"
        print(f"{path.name}: {verdict}")
        for fault in found:
            print(f"  {fault}")
    print(f"tfmbs-to-linalg: {len(files) - failed} of {len(files)} fixtures fine")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
