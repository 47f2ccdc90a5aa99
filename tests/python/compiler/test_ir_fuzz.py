"""Broken modules: mlir-opt with the plugin accepts them or says what is wrong, and never dies.

Valid modules of this dialect are mutated, hundreds to a process: text by tokens, numbers, cuts and
swaps, bytecode by bytes. Mutations stay within the dialect's own ops, so that what MLIR does on broken
standard dialects is not tested here; a module of which MLIR dies without the plugin too, or in its
bytecode reader before it gets to the plugin, is told apart and left out.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from pytfmbs.compiler import Toolchain

#: Valid modules, an op a line.
SEEDS = {
    path.stem: path.read_text()
    for path in sorted(Path(__file__).with_name("ir_seeds").glob("*.mlir"))
}

PIPELINES = (
    "tfmbs-to-linalg",
    "tfmbs-place,tfmbs-fuse,tfmbs-to-linalg",
    "tfmbs-fuse,one-shot-bufferize{bufferize-function-boundaries "
    "function-boundary-type-conversion=identity-layout-map},tfmbs-to-runtime,tfmbs-to-linalg",
)
#: What a mutation puts in a token's place.
WORDS = (
    "tensor<2x3xi8>", "tensor<?x?xf32>", "tensor<*xf32>", "memref<2x3x!tfmbs.trit>", "memref<?x3xi8>",
    "memref<2x3xi8, strided<[1, 2]>>", "memref<2x3x!tfmbs.trit, 3>", "tensor<0x0x!tfmbs.trit>", "tensor<2xf64>",
    "memref<*xi8>", "vector<2xi8>", "i32", "f64", "bf16", "!tfmbs.trit", "index", "()", "none", "dense<7>", "dense<>",
    "dense<[1, 2, 3]>", "dense_resource<nowhere>", "sparse<[[0]], [5]>", "unit", "[]", "{}", '""', "@main", "true",
    "%q", "%w", "%p", "%x", "%s", "%y", "ternary", "int8", "relu", "ins", "outs", "bias", ":", "->", ",",
    "(", ")", "<", ">",
)  # fmt: skip
NUMBERS = (
    "0", "1", "2", "5", "-1", "242", "243", "255", "256", "16777217", "4294967296", "9223372036854775807",
    "18446744073709551615", "18446744073709551616", "0.5", "1.5", "-0.0", "0x7FF8000000000000", "1e308", "?", "1x1",
)  # fmt: skip
#: Changes of the whole module, after which its types still agree.
SWEEPS = (
    ("<?x3x", "<?x?x"), ("<?x", "<7x"), ("<4x", "<?x"), ("<4x", "<0x"), ("<4x", "<1x"), ("f32", "f64"), ("f64", "f32"),
    ("<?x3xf32>", "<?x3xbf16>"), ("<4x2xf64>", "<4x2xf16>"), ("<2xf64>", "<1xf64>"), ("ternary", "int8"),
    ("int8", "ternary"), ("dense<[5, 2]>", "dense<242>"), ("15 : ui64", "9223372036854775808 : ui64"),
    ('"fc1"', '"a \\"b\\" c"'), ("fc3", "fc1"), ("fc2", "fc1"), ("2x3x!tfmbs.trit>", "2x3x!tfmbs.trit, 1>"),
)  # fmt: skip
#: Values of the dialect's attributes: most pass the verifier, so that the passes have to judge them.
VALUES = (
    (re.compile(r"weight_addr = \d+"), ("weight_addr = 4096", "weight_addr = 4100", "weight_addr = 8188",
        "weight_addr = 8192", "weight_addr = 64", "weight_addr = 9223372036854775808")),
    (re.compile(r"tile_mask = \d+ : ui64"), ("tile_mask = 1 : ui64", "tile_mask = 6 : ui64", "tile_mask = 16 : ui64",
        "tile_mask = 18446744073709551615 : ui64", "tile_mask = 2 : ui64, weight_addr = 4096 : ui64")),
    (re.compile(r"sparsity = [\d.]+"), ("sparsity = 0.0", "sparsity = 1.0", "sparsity = 0.12345", "sparsity = 1.5")),
    (re.compile(r'layer = "\w+"'), ('layer = "fc1"', 'layer = "fc2"', 'layer = "a\\00b"', 'layer = "é"',
        'layer = "fc1", placement = "streamed"', 'layer = "fc1", fused = 7', 'layer = "fc1", sums = [1 : i8]')),
    (re.compile(r"dense<\[5, 2\]>"), ("dense<242>", "dense<[242, 0]>", "dense<0>", "dense<-14>")),
    (re.compile(r"\b(ternary|int8)\b(?=( relu)? [{i])"), ("ternary", "int8")),
    (re.compile(r"activation = \d"), ("activation = 0", "activation = 1", "activation = 2")),
)  # fmt: skip
TOKEN = re.compile(r'"[^"\n]*"|[%@!#]?[\w.]+|[^\s\w]')
CRASH = re.compile(
    r"Stack dump|PLEASE submit a bug|Assertion|UNREACHABLE|AddressSanitizer|runtime error"
)
CASES = int(os.environ.get("TFMBS_FUZZ_CASES", "2000"))
BATCH = 100  # modules a process
SEPARATOR = "// -----\n"
#: Seeds that no pipeline can lower, and what it says.
REFUSED = {"passed_around": "do not come from a tfmbs.weights|weights are no constant"}


def run(
    tools: Toolchain,
    passes: str,
    text: bytes,
    *flags: str,
    plugin: bool = True,
    output: str = os.devnull,
) -> subprocess.CompletedProcess[bytes]:
    command = [
        tools.path("mlir-opt"), *(tools.plugin_flags() if plugin else ["--allow-unregistered-dialect"]),
        *([f"--pass-pipeline=builtin.module({passes})"] if passes else []), *flags, "-o", output,
    ]  # fmt: skip
    return subprocess.run(command, input=text, capture_output=True, timeout=120, check=False)


def died(result: subprocess.CompletedProcess[bytes]) -> bool:
    said = result.stderr.decode(errors="replace")
    return result.returncode not in (0, 1) or CRASH.search(said) is not None


def is_ours(tools: Toolchain, passes: str, case: bytes, *flags: str) -> bool:
    """Does mlir-opt die of this module, in the plugin or beyond it, and live without the plugin?"""
    result = run(tools, passes, case, *flags)
    if not died(result):
        return False
    # MLIR's reader does not stand every broken bytecode: those in which it never got to us.
    frames = result.stderr.decode(errors="replace")
    if "readBytecodeFile" in frames and "tfmbs::" not in frames:
        return False
    return not died(run(tools, "", case, *flags, plugin=False))


def revalue(rng: random.Random, text: str) -> str:
    """Other values for up to four attributes; what is broken then is for passes to find."""
    places = [(match, values) for pattern, values in VALUES for match in pattern.finditer(text)]
    picked = rng.sample(places, min(len(places), rng.randint(1, 4)))
    for match, values in sorted(picked, key=lambda place: -place[0].start()):
        text = text[: match.start()] + rng.choice(values) + text[match.end() :]
    return text


def mutate(rng: random.Random, text: str) -> str:
    """Every second module: other values. The others: perhaps some sweeps, then up to three changes to
    lines that hold an op of the dialect."""
    if rng.random() < 0.5:
        return revalue(rng, text)
    sweeps = rng.choice([0, 0, 1, 3])
    for old, new in rng.sample(SWEEPS, sweeps):
        text = text.replace(old, new)
    lines = text.splitlines()
    for _ in range(rng.choice([0, 1, 2] if sweeps else [1, 1, 1, 2, 3])):
        ours = [i for i, line in enumerate(lines) if "tfmbs." in line and "func.func" not in line]
        if not ours:
            break
        at = rng.choice(ours)
        found = list(TOKEN.finditer(lines[at]))
        kind = rng.randrange(9)
        if kind == 0:
            del lines[at]
            continue
        if kind == 1:
            lines.insert(rng.choice(ours), lines[at])
            continue
        token, other = rng.choice(found), rng.choice(found)
        numbers = [t for t in found if t[0][0].isdigit()]
        if kind in (2, 3) and numbers:
            token = rng.choice(numbers)
            new = re.sub(r"\d+(\.\d+)?", lambda _: rng.choice(NUMBERS), token[0], count=1)
        elif kind == 4:
            new = ""
        elif kind == 5:
            new = f"{token[0]} {token[0]}"
        elif kind == 6:
            new = other[0]
        elif kind == 7:  # a piece of a line elsewhere
            source = rng.choice(lines)
            start = rng.randrange(len(source) + 1)
            new = source[start : start + rng.randrange(1, 30)]
        else:
            new = rng.choice(WORDS)
        line = lines[at]
        lines[at] = line[: token.start()] + new + line[token.end() :]
    return "\n".join(lines) + "\n"


def report(tools: Toolchain, passes: str, cases: list[bytes], folder: Path, *flags: str) -> None:
    """Fails with the smallest module of a batch that mlir-opt dies of."""
    ours = [case for case in cases if is_ours(tools, passes, case, *flags)]
    if not ours:
        return
    smallest = folder / "crash.mlir"
    smallest.write_bytes(min(ours, key=len))
    said = run(tools, passes, smallest.read_bytes(), *flags).stderr.decode(errors="replace")
    pytest.fail(
        f"mlir-opt dies of {smallest} with {passes!r}:\n{smallest.read_bytes()!r}\n{said[-4000:]}"
    )


def accepted(tools: Toolchain, passes: str, cases: list[str]) -> int:
    """How many of the modules come out of the passes."""
    text = SEPARATOR.join(cases).encode()
    out = run(tools, passes, text, "--split-input-file", output="-").stdout.decode()
    return sum("func.func @main" in module for module in out.split(SEPARATOR.strip()))


@pytest.mark.parametrize("passes", ["", *PIPELINES])
@pytest.mark.parametrize("name", list(SEEDS))
def test_the_seeds_are_valid(dialect_tools: Toolchain, name: str, passes: str) -> None:
    result = run(dialect_tools, passes, SEEDS[name].encode())
    said = result.stderr.decode()
    if passes and name in REFUSED:
        assert result.returncode == 1
        assert re.search(REFUSED[name], said), said
    else:
        assert result.returncode == 0, said


@pytest.mark.parametrize("name", list(SEEDS))
def test_broken_text(dialect_tools: Toolchain, name: str, tmp_path: Path) -> None:
    rng = random.Random(name)
    for batch in range(max(1, CASES // len(SEEDS) // BATCH)):
        passes = PIPELINES[batch % len(PIPELINES)]
        cases = [mutate(rng, SEEDS[name]) for _ in range(BATCH)]
        joined = SEPARATOR.join(cases).encode()
        if died(run(dialect_tools, passes, joined, "--split-input-file")):
            report(dialect_tools, passes, [case.encode() for case in cases], tmp_path)
        # Passes see what verifies; some of that they take, and some they have to refuse.
        valid, lowered = accepted(dialect_tools, "", cases), accepted(dialect_tools, passes, cases)
        assert BATCH // 4 <= valid < BATCH
        if name not in REFUSED:
            assert BATCH // 5 <= lowered <= valid


@pytest.mark.parametrize("name", list(SEEDS))
def test_broken_bytecode(dialect_tools: Toolchain, name: str, tmp_path: Path) -> None:
    """Bytes of the dialect's own attributes and of its names; each file takes a process."""
    source, good = tmp_path / "good.mlir", tmp_path / "good.mlirbc"
    source.write_text(SEEDS[name])
    dialect_tools.run(
        "mlir-opt", *dialect_tools.plugin_flags(), "--emit-bytecode", str(source), "-o", str(good)
    )
    data = good.read_bytes()
    rng = random.Random(name)
    for case in range(max(1, CASES // 100)):
        broken = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 4])):
            broken[rng.randrange(8, len(broken))] = rng.randrange(256)
        if died(run(dialect_tools, PIPELINES[case % len(PIPELINES)], bytes(broken))):
            report(dialect_tools, PIPELINES[case % len(PIPELINES)], [bytes(broken)], tmp_path)
