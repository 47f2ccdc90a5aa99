"""Damaged checkpoints: each must give an error that names the file and the reason, or the numbers that
an independent reader finds in it.

    python tests/python/support/checkpoint_fuzz.py --cases 100000   (make fuzz-checkpoints)

runs a campaign a format, each in a process with a memory limit, and prints what came of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import gguf_by_hand as by_hand
import numpy as np
import torch
from pytfmbs import CheckpointError, TFMBSPackedLinear
from pytfmbs.checkpoints import TernaryTensor, open_checkpoint, save
from pytfmbs.checkpoints.reader import Checkpoint
from safetensors.torch import load_file
from torch import nn

#: Memory that a campaign may take beyond what the process has when it starts, in bytes. The files
#: take kilobytes.
LIMIT = 256 << 20
#: Processor time of a case; and time on the clock, which has to pass twice: a machine may stand still.
SECONDS, CLOCK_SECONDS = 10, 60

Array = Any
Values = Callable[[Path, str], Array]


def trits(outputs: int, inputs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(outputs)
    return torch.randint(-1, 2, (outputs, inputs), generator=generator, dtype=torch.int8)


def layer(name: str, outputs: int, inputs: int) -> TernaryTensor:
    scale = torch.tensor([0.5])
    return TernaryTensor(name, trits(outputs, inputs), scale, torch.ones(outputs))


# --- whole files ----------------------------------------------------------------------------------


def write_own(folder: Path) -> Path:
    model = nn.Module()
    model.a = layer("a", 8, 33).packed_layer()
    model.b = TFMBSPackedLinear.from_trits(trits(5, 40), torch.rand(5, 2), group_size=32)
    model.c = nn.Linear(3, 2)
    save(model, folder)
    return folder


def write_bitnet(folder: Path) -> Path:
    model = nn.Module()
    model.a, model.b = layer("a", 8, 33).packed_layer(), layer("b", 12, 7).packed_layer()
    model.c = nn.Linear(3, 2)
    save(model, folder, format="bitnet")
    return folder


def write_gguf(kind: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"general.architecture": "llama", "tokens": ["a", "bc", "d"], "scores": [1, 2]}
        tensors = [
            *gguf_tensors(kind),
            by_hand.f32("a.bias", np.ones(3)),
            by_hand.f32("c", np.ones((2, 3))),
        ]
        return by_hand.write(folder / "m.gguf", tensors, metadata=metadata)

    return write


def gguf_tensors(kind: str) -> list[by_hand.Tensor]:
    a, b = trits(3, 512).numpy(), trits(16, 256).numpy()
    if kind == "i2_s":
        return [by_hand.i2_s("a.weight", a, 0.5, 128), by_hand.i2_s("b.weight", b, 0.25, 128)]
    if kind == "q2_0":
        scales = np.linspace(1, 2, 64).reshape(16, 4)
        return [
            by_hand.q2_0("a.weight", a, np.full((3, 8), 0.5)),
            by_hand.q2_0("b.weight", b, scales),
        ]
    number = getattr(gguf.GGMLQuantizationType, kind.upper())
    return [
        by_hand.Tensor(
            name, values.shape, number, gguf.quants.quantize(np.float32(values), number).tobytes()
        )
        for name, values in (("a.weight", a * 0.5), ("b.weight", b * np.float32(2)))
    ]


# --- what they hold, by other hands ---------------------------------------------------------------


def expected_own(path: Path, name: str) -> Array:
    tensors = load_file(path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    entry = config["quantization_config"]["layers"][name]
    digits = tensors[f"{name}.packed"].numpy()[:, :, None] // 3 ** np.arange(5) % 3
    values = np.float32([0, 1, -1])[digits].reshape(len(digits), -1)[:, : entry["in_features"]]
    scale = tensors[f"{name}.scale"].numpy()
    if entry.get("group_size"):
        scale = np.repeat(scale, entry["group_size"], axis=1)[:, : values.shape[1]]
    elif scale.size > 1:
        scale = scale[:, None]
    return values * scale


def expected_bitnet(path: Path, name: str) -> Array:
    tensors = load_file(path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())["quantization_config"]
    packed, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    scale = np.float32(tensors[f"{name}.weight_scale"].float().numpy().reshape(1))
    divides = config.get("linear_class", "bitlinear") == "bitlinear"
    if packed.dtype != torch.uint8:  # trits of a float dtype
        return packed.float().numpy() * scale
    codes = packed.numpy()
    outputs = 4 * len(codes) if bias is None else bias.numel()
    rows = np.concatenate([(codes >> 2 * i) & 3 for i in range(4)])[:outputs]
    return (rows.astype(np.float32) - 1) * (1 / scale if divides else scale)


def expected_gguf(path: Path, name: str) -> Array:
    """Q2_0 and I2_S by hand, and the others by the gguf package, which does not know the two."""
    content = path.read_bytes()
    tensors, data = parse(content)
    shape, kind, offset = tensors[f"{name}.weight"]
    weights, at = shape[0] * shape[1], data + offset
    if kind == by_hand.I2_S:
        codes = np.frombuffer(content, np.uint8, weights // 4, at).reshape(-1, 1, 32)
        levels = (codes >> np.uint8([[6], [4], [2], [0]]) & 3).astype(np.float32) - 1
        values = levels.reshape(shape) * np.frombuffer(content, "<f4", 1, at + weights // 4)
    elif kind == by_hand.Q2_0:
        group = group_of(content, tensors, data)
        dtype = np.dtype([("scale", "<f2"), ("codes", "u1", group // 4)])
        blocks = np.frombuffer(content, dtype, weights // group, at)
        levels = (blocks["codes"][:, :, None] >> np.uint8([0, 2, 4, 6]) & 3).astype(np.float32) - 1
        scales = blocks["scale"].astype(np.float32)[:, None]
        values = (levels.reshape(-1, group) * scales).reshape(shape)
    else:
        number = gguf.GGMLQuantizationType(kind)
        block, size = gguf.GGML_QUANT_SIZES[number]
        rows = np.frombuffer(content, np.uint8, weights // block * size, at).reshape(shape[0], -1)
        values = gguf.quants.dequantize(rows, number)
    if f"{name}.scale" in tensors:
        values = values * np.frombuffer(content, "<f4", 1, data + tensors[f"{name}.scale"][2])
    return values


Places = dict[str, tuple[tuple[int, ...], int, int]]


def parse(content: bytes) -> tuple[Places, int]:
    """Shape, type and offset of each tensor of a sound GGUF file, and where its data begins."""
    at = 8

    def take(form: str) -> int:
        nonlocal at
        (number,) = struct.unpack_from("<" + form, content, at)
        at += struct.calcsize(form)
        return int(number)

    def text() -> str:
        nonlocal at
        size = take("Q")
        at += size
        return content[at - size : at].decode(errors="replace")

    def skip(kind: int) -> None:
        nonlocal at
        if kind == 9:
            item, count = take("I"), take("Q")
            for _ in range(count):
                skip(item)
        elif kind == 8:
            text()
        else:
            at += {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4)

    count, keys, alignment = take("Q"), take("Q"), 32
    for _ in range(keys):
        key, kind = text(), take("I")
        if key == "general.alignment":
            alignment = struct.unpack_from("<I", content, at)[0]
        skip(kind)
    tensors: Places = {}
    for _ in range(count):
        name = text()
        shape = tuple(take("Q") for _ in range(take("I")))[::-1]
        tensors[name] = (shape, take("I"), take("Q"))
    return tensors, -(-at // alignment) * alignment


def group_of(content: bytes, tensors: Places, data: int) -> int:
    """64, or 128 where the tensors stand too close together for 64."""
    ends = sorted([offset for _, _, offset in tensors.values()] + [len(content) - data])
    for shape, kind, offset in tensors.values():
        room = next((end for end in ends if end > offset), offset) - offset
        if kind == by_hand.Q2_0 and shape[0] * shape[1] // 64 * 18 > room:
            return 128
    return 64


class Format(NamedTuple):
    """options: of open_checkpoint."""

    write: Callable[[Path], Path]
    expected: Values
    options: dict[str, Any]


FORMATS = {
    "tfmbs": Format(write_own, expected_own, {}),
    "bitnet": Format(write_bitnet, expected_bitnet, {}),
    "tq1_0": Format(write_gguf("tq1_0"), expected_gguf, {}),
    "tq2_0": Format(write_gguf("tq2_0"), expected_gguf, {}),
    "q2_0": Format(write_gguf("q2_0"), expected_gguf, {}),
    "i2_s": Format(write_gguf("i2_s"), expected_gguf, {"i2s_block": 128}),
}


def read(path: Path, form: Format) -> CheckpointError | None:
    """The error, or None where the whole file could be read; what was read is compared."""
    try:
        reader: Checkpoint = open_checkpoint(path, **form.options)
        layers = list(reader.layers())
        with np.errstate(all="ignore"):  # of the gguf package, which dequantizes other tensors
            for name in reader.tensor_names:
                reader.tensor(name)
    except CheckpointError as raised:
        error = raised
    else:
        return _compared(path, form, layers)
    assert error.file.startswith(str(path if path.is_dir() else path.parent)), error
    assert error.reason, error
    assert error.remedy, error
    return error


def _compared(path: Path, form: Format, layers: list[TernaryTensor]) -> None:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for found in layers:
            assert found.trits.dtype == torch.int8
            assert int(found.trits.abs().max()) <= 1
            expected = form.expected(path, found.name)
            assert np.array_equal(found.values().numpy(), expected, equal_nan=True), found.name


# --- damage ---------------------------------------------------------------------------------------

ABSURD = [0, 1, 3, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]
VALUES: list[Any] = [None, True, 0, -1, 1.5, "x", [], {}, [[]], 1 << 70, "lm_head", ["(("],
                     float("nan"), float("inf"), "\ud800", "x" * 5000]  # fmt: skip


def damaged(content: bytes, header: int, draw: random.Random) -> bytes:
    """One or several changes, half of them in the header."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(header if draw.random() < 0.5 else len(data))
        kind = draw.randrange(6)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            data[at : at + 8] = struct.pack("<Q", draw.choice(ABSURD))[: len(data) - at]
        elif kind == 3:
            size = draw.randrange(1, 40)
            data[at : at + size] = data[draw.randrange(len(data)) :][:size]
        elif kind == 4:
            del data[at : at + draw.randrange(1, 20)]
        elif draw.random() < 0.2:
            del data[at:]
        if not data:
            return b""
        header = min(header, len(data))
    return bytes(data)


def header_bytes(content: bytes) -> int:
    if content[:4] == b"GGUF":
        return max(parse(content)[1] - 32, 100)
    return 8 + int(struct.unpack("<Q", content[:8])[0])


class Names(list[tuple[str, Any]]):
    """A JSON object whose names may be there twice."""


def json_text(value: Any) -> str:
    if isinstance(value, Names):
        return "{" + ",".join(f"{json.dumps(n)}:{json_text(v)}" for n, v in value) + "}"
    if isinstance(value, dict):
        return json_text(Names(value.items()))
    if isinstance(value, list):
        return "[" + ",".join(map(json_text, value)) + "]"
    return json.dumps(value)


def changed_safetensors(content: bytes, draw: random.Random) -> bytes:
    """Another header for the same data: dtypes, shapes, offsets, names, metadata."""
    size = header_bytes(content)
    entries = Names(json.loads(content[8:size]).items())
    for _ in range(draw.choice([1, 1, 2])):
        if not entries:
            break
        at = draw.randrange(len(entries))
        name, entry = entries[at]
        kind = draw.randrange(9)
        if kind == 0:
            del entries[at]
            continue
        if kind == 1:
            entries.append((name, draw.choice(entries)[1]))
            continue
        if kind == 2:
            entries[at] = (draw.choice([draw.choice(entries)[0], "a.weight_scale", "", "x"]), entry)
            continue
        if kind == 3:
            nested: Any = "x"
            for _ in range(draw.choice([1, 100, 5000])):
                nested = [nested] if draw.random() < 0.5 else {"x": nested}
            metadata = [nested, "x" * 100_000, {str(i): str(i) for i in range(2000)}, 3]
            entries.append(("__metadata__", draw.choice(metadata)))
            continue
        if not isinstance(entry, dict) or "shape" not in entry:
            continue
        entry = {**entry}
        if kind == 4:
            dtypes = ["F64", "F32", "F16", "BF16", "U8", "I8", "I64", "BOOL", "F8_E4M3", "X", 3]
            entry["dtype"] = draw.choice(dtypes)
        elif kind == 5:
            shape = entry["shape"] if isinstance(entry["shape"], list) else [1]
            shape = [*shape]
            if shape and draw.random() < 0.5:
                shape[draw.randrange(len(shape))] = draw.choice([*ABSURD, -1, 2, 4, 8, 1.5, "x"])
            else:
                shape = draw.choice([shape[::-1], [], [1, *shape], shape[:1], [0, 1 << 40], None])
            entry["shape"] = shape
        elif kind == 6:
            offsets = [*entry.get("data_offsets", [0]), 0][:2]
            offsets[draw.randrange(2)] = draw.choice([*ABSURD, -1, 4, 8, offsets[0], "x", None])
            entry["data_offsets"] = draw.choice([offsets, offsets[::-1], offsets[:1]])
        elif kind == 7:
            other = draw.choice(entries)[1]
            entry["data_offsets"] = (
                other.get("data_offsets", [0, 0]) if isinstance(other, dict) else 3
            )
        else:
            entry.pop(draw.choice([*entry]))
        entries[at] = (name, entry)
    try:
        header = json_text(entries).encode()
    except (RecursionError, UnicodeEncodeError):
        header = b"[" * 20_000
    return struct.pack("<Q", len(header)) + header + content[size:]


def changed_gguf(content: bytes, draw: random.Random) -> bytes:
    """Another header for the same data: types, shapes, offsets, names, metadata."""
    places, start = parse(content)
    entries = [[name, [*shape], kind, offset] for name, (shape, kind, offset) in places.items()]
    metadata: list[tuple[bytes, bytes]] = [
        (by_hand.string("general.architecture"), by_hand.value("llama"))
    ]
    for _ in range(draw.choice([1, 1, 2])):
        if not entries:
            break
        entry = draw.choice(entries)
        kind = draw.randrange(8)
        if kind == 0:
            entries.remove(entry)
        elif kind == 1:
            entries.append([*entry])
        elif kind == 2:
            entry[0] = draw.choice(
                [draw.choice(entries)[0], "b.scale", "a.scale", "", "x", "y" * 5000]
            )
        elif kind == 3:
            entry[2] = draw.choice([*range(45), 142, 143, 1 << 31])
        elif kind == 4:
            shape = entry[1] = entry[1] or [1]
            shape[draw.randrange(len(shape))] = draw.choice([*ABSURD, 2, 64, 128, 256, 512, 1024])
        elif kind == 5:
            entry[1] = draw.choice([entry[1][::-1], [1, *entry[1]], [*entry[1], 256], [1] * 5, []])
        elif kind == 6:
            entry[3] = draw.choice([*ABSURD, 32, 64, draw.choice(entries)[3], entry[3] + 32])
        else:
            metadata.append(odd_metadata(draw))
    header = b"GGUF" + struct.pack("<IQQ", draw.choice([3, 3, 3, 2]), len(entries), len(metadata))
    header += b"".join(key + item for key, item in metadata)
    for name, shape, number, offset in entries:
        header += by_hand.string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        header += struct.pack("<IQ", number, offset % (1 << 64))
    return header + b"\0" * (-len(header) % 32) + content[start:]


def odd_metadata(draw: random.Random) -> tuple[bytes, bytes]:
    array, text = struct.pack("<I", 9), struct.pack("<I", 8)
    huge = draw.choice(ABSURD)
    return draw.choice([
        (by_hand.string("general.alignment"), struct.pack("<II", 4, draw.choice([0, 1, 3, 8, 64, 1 << 31]))),
        (by_hand.string("general.alignment"), text + by_hand.string("32")),
        (by_hand.string("prism.hadamard.x"), struct.pack("<II", 4, 1)),
        (by_hand.string("x"), array + (array + struct.pack("<Q", 1)) * draw.choice([1, 50, 3000])),
        (by_hand.string("x"), array + struct.pack("<IQ", draw.choice([0, 8, 9, 12, 77]), huge)),
        (by_hand.string("x"), text + struct.pack("<Q", huge)),
        (by_hand.string("x"), array + struct.pack("<IQ", 8, 5000) + by_hand.string("t") * 5000),
        (by_hand.string("x" * 70_000), struct.pack("<II", 4, 1)),
        (struct.pack("<Q", 2) + b"\xff\xfe", struct.pack("<II", 4, 1)),
        (by_hand.string("general.architecture"), text + by_hand.string("x")),
        (by_hand.string("x"), struct.pack("<IB", 13, 0)),
    ])  # fmt: skip


def changed_config(content: bytes, draw: random.Random) -> bytes:
    """Bytes of a config.json changed, or its values."""
    if draw.random() < 0.5:
        return damaged(content, len(content), draw)
    whole = json.loads(content)
    options = whole["quantization_config"]
    places: list[tuple[dict[str, Any], str]] = [(options, key) for key in [*options, "rms_norm_eps",
        "use_rms_norm", "quantization_mode", "modules_to_not_convert"]]  # fmt: skip
    for entry in options.get("layers", {}).values():
        places += [(entry, key) for key in [*entry, "rms_norm_eps", "group_size"]]
    places += [(whole, "quantization_config"), (options.get("layers", options), "b")]
    for _ in range(draw.choice([1, 1, 2])):
        place, key = draw.choice(places)
        values = [*VALUES, 32, 64, 7, 40, "online", "offline", "autobitlinear", "ternary", [".*"]]
        place[key] = draw.choice(values)
        if draw.random() < 0.1:
            place.pop(key)
    try:
        return json.dumps(whole).encode()
    except ValueError:  # a value of its own
        return b"[" * 100_000


def campaign(
    name: str,
    folder: Path,
    cases: int,
    seed: int = 0,
    told: Callable[[int, Counter[str]], None] | None = None,
) -> Counter[str]:
    """How often each thing came of it. Raises AssertionError with the case that went wrong, whose
    file is left in the folder. told: of the progress."""
    form = FORMATS[name]
    path = form.write(folder / "whole")
    assert read(path, form) is None
    file = path if path.is_file() else path / "model.safetensors"
    config = path / "config.json"
    content, settings = file.read_bytes(), config.read_bytes() if path.is_dir() else b""
    header = header_bytes(content)
    draw = random.Random(f"{name} {seed}")
    outcomes: Counter[str] = Counter()
    for case in range(cases):
        choice = draw.random()
        change, options = content, settings
        if choice < 0.1:
            change = content[: case % len(content)]
        elif choice < 0.45:
            change = damaged(content, header, draw)
        elif choice < 0.6 and settings:
            options = changed_config(settings, draw)
        elif settings:
            change = changed_safetensors(content, draw)
        else:
            change = changed_gguf(content, draw)
        file.unlink()  # an earlier one may be mapped still
        file.write_bytes(change)
        if options != settings:
            config.write_bytes(options)
        _watch(SECONDS)
        try:
            error = read(path, form)
        except BaseException as raised:
            kept = folder / f"failed-{name}-{case}"
            shutil.copytree(path, kept) if path.is_dir() else shutil.copy(path, kept)
            raise AssertionError(f"case {case} of {name}: {raised!r}, file {kept}") from raised
        finally:
            _watch(0)
        if options != settings:
            config.write_bytes(settings)
        outcomes["read, right numbers" if error is None else kind_of(error)] += 1
        if told is not None and case % 500 == 0:
            told(case, outcomes)
    return outcomes


_rings = 0


def _ring(number: int, frame: object) -> None:
    global _rings
    _rings += 1
    if number == signal.SIGPROF or _rings == 2:
        raise TimeoutError("the case takes too long")


def _watch(seconds: float) -> None:
    """Raises TimeoutError, in Python code, when a case takes too long; 0: it is done."""
    global _rings
    _rings = 0
    signal.signal(signal.SIGPROF, _ring)
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    clock = CLOCK_SECONDS if seconds else 0
    signal.setitimer(signal.ITIMER_REAL, clock, clock)


def kind_of(error: CheckpointError) -> str:
    """A reason without its numbers and names."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", error.reason)
    text = re.sub(r"\(.*\)|\[.*\]|\{.*\}", "(…)", text)
    text = re.sub(r"-?\d[\d.e+-]*|nan|inf|0x\w+", "N", text)
    return ("tensor: " if error.tensor else "file: ") + text[:90]


def limit_memory(beyond: int = LIMIT) -> tuple[int, int]:
    """Limits the process's addresses to so many bytes more than it has. The limits before."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + beyond
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    return before


# --- the command ----------------------------------------------------------------------------------


def _run(name: str, cases: int, seed: int, connection: Any) -> None:
    torch.set_num_threads(1)
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None, prefix="fuzz-"))
    try:
        campaign(name, folder / "warm", min(cases, 200))  # caches and libraries
        limit_memory()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcomes = campaign(name, folder, cases, seed, lambda case, so_far: connection.send(case))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        connection.send((outcomes, before, after))
        shutil.rmtree(folder)
    except AssertionError as error:
        connection.send(str(error))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=100_000, help="of each format (100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=[*FORMATS])
    parser.add_argument("--kinds", type=int, default=12, help="kinds of errors to print (12)")
    args = parser.parse_args()
    context, failures = multiprocessing.get_context("spawn"), 0
    for name in args.formats:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(name, args.cases, args.seed, theirs))
        start, result = time.monotonic(), None
        process.start()
        theirs.close()
        while True:
            try:
                result = mine.recv()
            except EOFError:
                break
            if isinstance(result, int):
                seconds = time.monotonic() - start
                done = f"{name}: {result:,} of {args.cases:,} cases, {seconds:.0f} s"
                if sys.stderr.isatty():
                    print(f"\r{done}", end="", file=sys.stderr, flush=True)
                elif result % 20_000 == 0:
                    print(done, file=sys.stderr, flush=True)
                continue
            break
        process.join()
        if sys.stderr.isatty():
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
        if not isinstance(result, tuple):
            failures += 1
            died = f"the process ended with {process.exitcode} after case {result}"
            print(f"{name}: FAILED, {result if isinstance(result, str) else died}")
            continue
        outcomes, before, after = result
        print(
            f"{name}: {outcomes.total():,} cases in {time.monotonic() - start:.0f} s, 0 crashes; resident "
            f"memory {before // 1024} MB before, {after // 1024} MB at most"
        )
        for kind, count in outcomes.most_common(args.kinds):
            print(f"  {count:>8,}  {kind}")
        rest = len(outcomes) - args.kinds
        if rest > 0:
            print(f"  {'…':>8}  {rest} other kinds of errors")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
