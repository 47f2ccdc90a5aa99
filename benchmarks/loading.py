"""How long a ternary model takes to load from each format, and how much memory.

    python benchmarks/loading.py [--folder SCRATCH] [--formats tfmbs bitnet …] [--rounds 3]

Makes BitNet-b1.58-2B-4T's shape with random weights in each format (about 1.2 GB each, one at a time),
and a tiny model as the baseline. Each is loaded in a fresh process from a warm page cache, and
generates 8 tokens. Peak memory is the process's VmHWM, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "tiny": {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1024},
    "2B": {"hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
           "num_attention_heads": 20, "num_key_value_heads": 5, "vocab_size": 128_256},
}  # fmt: skip
TYPES = {"tq1_0": 34, "tq2_0": 35, "i2_s": 36, "q2_0": 42}
FORMATS = ["tfmbs", "bitnet", *TYPES]
#: Our target times of loading the 2B shape, in seconds.
TARGETS = {"tfmbs": 5.0}
TARGET_OTHERS, TARGET_MEMORY = 10.0, 1.1
TOKENS = 8


def config_of(size: str) -> Any:
    from transformers import BitNetConfig

    options: dict[str, Any] = dict(SIZES[size])
    return BitNetConfig(
        **options, tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=None
    )


def empty_model(size: str) -> Any:
    """Without weights: parameters on the meta device, buffers on the CPU."""
    import torch
    from transformers import BitNetForCausalLM

    config = config_of(size)
    with torch.device("meta"):
        model: Any = BitNetForCausalLM(config)
        model.to(torch.bfloat16).eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model


# --- files ----------------------------------------------------------------------------------------


def linears(model: Any) -> dict[str, tuple[int, int]]:
    from torch import nn

    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }


@lru_cache
def trits_of(shape: tuple[int, int]) -> Any:
    """Random ones, the same for each layer of a shape."""
    import torch

    return torch.randint(-1, 2, shape, dtype=torch.int8)


def scale_of(index: int) -> float:
    """One that fp16 holds, and whose reciprocal a float32 is."""
    return (8 + index % 8) / 512


def rest(model: Any) -> Iterator[tuple[str, Any]]:
    """Embeddings and norms, with random values."""
    import torch

    layers = linears(model)
    for name, value in model.named_parameters():
        if name.rpartition(".")[0] not in layers and name != "lm_head.weight":
            shape = tuple(value.shape)
            some = torch.ones(shape[:1])
            if len(shape) == 2:  # rows that are repeated
                some = (torch.randn(512, shape[1]) * 0.02).repeat(-(-shape[0] // 512), 1)[
                    : shape[0]
                ]
            yield name, some.to(torch.bfloat16)


def write(kind: str, size: str, path: Path) -> None:
    import torch

    torch.manual_seed(0)
    model = empty_model(size)
    if kind in TYPES:
        write_gguf(kind, model, path)
        return
    from pytfmbs import TFMBSPackedLinear
    from pytfmbs.checkpoints import save
    from torch import nn

    for index, (name, shape) in enumerate(linears(model).items()):
        trits = trits_of(shape)
        packed = TFMBSPackedLinear.from_trits(trits, scale_of(index), name=name)
        model.set_submodule(name, packed)
    for name, value in rest(model):
        owner, _, key = name.rpartition(".")
        setattr(model.get_submodule(owner), key, nn.Parameter(value, requires_grad=False))
    model.tie_weights()
    save(model, path, format=kind)


def write_gguf(kind: str, model: Any, path: Path) -> None:
    """Tensors under transformers' names."""
    import torch
    from pytfmbs.checkpoints import codes

    draw = np.random.default_rng(0)

    def ternary(shape: tuple[int, int], scale: float) -> bytes:
        if kind == "i2_s":
            parts = [
                draw.integers(0, 3, math.prod(shape) // 4, np.uint8) << i for i in (0, 2, 4, 6)
            ]
            packed: np.ndarray[Any, Any] = parts[0] | parts[1] | parts[2] | parts[3]
            return packed.tobytes() + struct.pack("<f28x", scale)
        trits = trits_of(shape)
        blocks = shape[1] // codes.block_trits(kind)
        return (
            codes.pack_blocks(kind, trits, torch.full((shape[0], blocks), scale)).numpy().tobytes()
        )

    def plain(value: Any) -> bytes:
        raw: bytes = value.view(torch.int16).numpy().tobytes()
        return raw

    tensors: list[tuple[str, tuple[int, ...], int, int, Callable[[], bytes]]] = []
    for index, (name, shape) in enumerate(linears(model).items()):
        weights = math.prod(shape)
        nbytes = weights // 4 + 32
        if kind != "i2_s":
            nbytes = weights // codes.block_trits(kind) * codes.block_bytes(kind)
        made = partial(ternary, shape, scale_of(index))
        tensors.append((f"{name}.weight", shape, TYPES[kind], nbytes, made))
    for name, value in rest(model):
        tensors.append((name, tuple(value.shape), 30, value.nbytes, partial(plain, value)))

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 1)
    header += text("general.architecture") + struct.pack("<I", 8) + text("transformers-names")
    offset = 0
    for name, dims, number, nbytes, _ in tensors:
        header += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims[::-1])
        header += struct.pack("<IQ", number, offset)
        offset += -(-nbytes // 32) * 32
    with path.open("wb") as file:
        file.write(header + b"\0" * (-len(header) % 32))
        for *_, nbytes, data in tensors:
            content = data()
            assert len(content) == nbytes
            file.write(content + b"\0" * (-nbytes % 32))


# --- a fresh process ------------------------------------------------------------------------------


def peak() -> int:
    """The most resident memory that this process has had, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def load(kind: str, size: str, path: Path) -> dict[str, Any]:
    import torch
    import transformers
    from pytfmbs import TFMBSPackedLinear
    from pytfmbs.checkpoints import load_into

    empty_model("tiny")  # imports the model's module before the clock starts
    transformers.logging.set_verbosity_error()
    torch.compiler.set_stance("force_eager")
    start, busy = time.perf_counter(), time.process_time()
    if kind == "transformers":
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    else:
        options: dict[str, Any] = {"i2s_block": 128} if kind == "i2_s" else {}
        if kind in TYPES:
            options["names"] = lambda name: name
        model = load_into(empty_model(size), path, **options)
    seconds, loaded = time.perf_counter() - start, peak()
    busy = time.process_time() - busy
    prompt = torch.arange(1, 5).unsqueeze(0)
    start = time.perf_counter()
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=TOKENS, do_sample=False
    )
    assert made.shape[1] == 4 + TOKENS
    generating = time.perf_counter() - start
    packed = [m for m in model.modules() if isinstance(m, TFMBSPackedLinear)]
    floats = sum(p.nbytes for p in model.parameters())
    weights = sum(m.in_features * m.out_features for m in packed)
    return {
        "seconds": seconds, "busy": busy, "loaded": loaded, "generated": peak(), "generating": generating,
        "needed": weights // 4 + floats,
    }  # fmt: skip


# --- the table ------------------------------------------------------------------------------------


def child(kind: str, size: str, path: Path, rounds: int) -> dict[str, Any]:
    """The fastest of some processes, and the most memory of them."""
    command = [sys.executable, __file__, "--child", kind, size, str(path)]
    runs = []
    for _ in range(rounds):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    fastest: dict[str, Any] = min(runs, key=lambda run: run["seconds"])
    return {**fastest, **{key: max(run[key] for run in runs) for key in ("loaded", "generated")}}


def measure(kind: str, scratch: Path, rounds: int) -> list[dict[str, Any]]:
    """Both sizes of a format; transformers' own loading beside bitnet."""
    by = [kind, "transformers"] if kind == "bitnet" else [kind]
    found: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        path = scratch / (f"{size}.gguf" if kind in TYPES else f"{size}-{kind}")
        subprocess.run([sys.executable, __file__, "--write", kind, size, str(path)], check=True)
        files = [path] if path.is_file() else [*path.iterdir()]
        for file in files:
            shutil.copyfile(file, "/dev/null")  # into the page cache
        for loader in by:
            once = 1 if loader == "transformers" else rounds
            found[f"{loader} {size}"] = child(loader, size, path, once)
        stored = sum(file.stat().st_size for file in files)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [
        {"kind": loader, "stored": stored, "tiny": found[f"{loader} tiny"], **found[f"{loader} 2B"]}
        for loader in by
    ]


def line(row: dict[str, Any]) -> str:
    tiny, needed = row["tiny"], row["needed"]
    ours = row["kind"] != "transformers"
    name = row["kind"] if ours else "transformers' own, of bitnet"
    ratio = (row["generated"] - tiny["generated"]) / needed if ours else math.nan
    target = TARGETS.get(row["kind"], TARGET_OTHERS)
    return (
        (
            f"| {name} | {row['stored'] / 1e6:,.0f} | {row['seconds']:.1f} | {target if ours else 0:.0f} "
            f"| {row['busy']:.1f} "
            f"| {row['loaded'] / 1e6:,.0f} | {row['generated'] / 1e6:,.0f} | {tiny['generated'] / 1e6:,.0f} "
            f"| {ratio:.2f} | {row['generating']:.1f} |"
        )
        .replace("nan", "–")
        .replace("| 0 |", "| – |")
    )


HEAD = (
    "| format | file, MB | load, s | target, s | CPU time, s | peak of loading, MB | peak with generating, MB "
    "| tiny model's peak, MB | (peak − tiny) / needed | 8 tokens, s |\n"
    "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where the files are made (a temporary folder)")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--rounds", type=int, default=3, help="processes a format (3)")
    for step in ("--write", "--child"):
        parser.add_argument(step, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        kind, size, place = args.write
        write(kind, size, Path(place))
        return
    if args.child:
        kind, size, place = args.child
        print(json.dumps(load(kind, size, Path(place))))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        print(HEAD, flush=True)
        for kind in args.formats:
            for row in measure(kind, Path(folder), args.rounds):
                print(line(row), flush=True)
                needed = row["needed"]
    print(f"\nneeded: {needed / 1e6:,.0f} MB, packed weights at 2 bits and what stays float")


if __name__ == "__main__":
    main()
