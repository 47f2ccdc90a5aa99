"""How fast a ternary model decodes with transformers' generate(), beside what the memory allows.

    python benchmarks/decoding.py [--shapes BitNet-2B …] [--threads 1 2] [--json FILE]   (make bench-decoding)

Models of random weights, each in a fresh process. A round decodes with the model as it is, with fused
blocks, and with an int8 head too, and measures how fast memory is read; the median round counts. The
share is bytes a token must read (packed weights and the head) over that speed, over the time it took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "BitNet-2B": ("BitNet", {
        "hidden_size": 2560, "intermediate_size": 6912, "num_hidden_layers": 30,
        "num_attention_heads": 20, "num_key_value_heads": 5, "vocab_size": 128_256,
        "hidden_act": "relu2", "tie_word_embeddings": True,
    }),
    "Falcon3-1B": ("Llama", {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 18, "head_dim": 256,
        "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 131_072,
        "tie_word_embeddings": False,
    }),
    "Falcon-E-3B": ("Llama", {
        "hidden_size": 2048, "intermediate_size": 13_312, "num_hidden_layers": 32, "head_dim": 128,
        "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 32_768,
        "tie_word_embeddings": False,
    }),
}  # fmt: skip
VARIANTS: dict[str, dict[str, bool] | None] = {
    "as loaded": None,
    "fused blocks": {},
    "fused blocks, int8 head": {"int8_head": True},
}
CONTEXT, TOKENS = 128, 16


def random_model(shape: str) -> Any:
    """Packed layers of random trits, everything else in bfloat16; logits of no use."""
    import torch
    import transformers
    from pytfmbs import TFMBSPackedLinear
    from torch import nn

    family, sizes = SHAPES[shape]
    config = getattr(transformers, f"{family}Config")(
        **sizes, max_position_embeddings=4096, pad_token_id=0, bos_token_id=1, eos_token_id=None
    )
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.bfloat16).eval()
    trits: dict[tuple[int, int], torch.Tensor] = {}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            size = (module.out_features, module.in_features)
            if size not in trits:
                trits[size] = torch.randint(-1, 2, size, dtype=torch.int8)
            layer = TFMBSPackedLinear.from_trits(trits[size], size[1] ** -0.5)
            model.set_submodule(name, layer)
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            fill = torch.ones if "norm" in name else torch.rand
            made = nn.Parameter(fill(parameter.shape).to(torch.bfloat16), requires_grad=False)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, made)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model


def measure(shape: str, threads: int, rounds: int) -> dict[str, Any]:
    import pytfmbs
    import torch

    torch.set_num_threads(threads)
    model = random_model(shape)
    prompt = torch.randint(3, 1000, (1, CONTEXT))
    packed = sum(
        module.packed_bytes
        for module in model.modules()
        if isinstance(module, pytfmbs.TFMBSPackedLinear)
    )
    values = model.lm_head.weight.numel()
    memory = torch.ones(1 << 27)  # 512 MiB, beyond any cache

    def seconds(work: Any) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    def generate(tokens: int) -> float:
        options = {"max_new_tokens": tokens, "do_sample": False}
        return seconds(lambda: model.generate(prompt, **options))

    found: dict[str, list[float]] = {name: [] for name in (*VARIANTS, "read", "prefill")}
    for _ in range(rounds):
        found["read"].append(memory.nbytes / min(seconds(memory.sum) for _ in range(3)))
        for name, options in VARIANTS.items():
            if options is not None:
                pytfmbs.prepare_for_decode(model, **options)
            first = min(generate(1) for _ in range(2))
            tokens = TOKENS if options is not None else TOKENS // 2
            found[name].append((generate(tokens + 1) - first) / tokens)
            pytfmbs.restore_after_decode(model)
            if options is None:
                found["prefill"].append(first)
    middle = {name: median(values_of) for name, values_of in found.items()}
    rows = []
    for name, options in VARIANTS.items():
        bytes_a_token = packed + values * (1 if options and options.get("int8_head") else 2)
        rows.append({
            "shape": shape, "threads": threads, "variant": name,
            "tokens_a_second": 1 / middle[name],
            "least": 1 / max(found[name]), "most": 1 / min(found[name]),
            "megabytes_a_token": bytes_a_token / 1e6,
            "share": bytes_a_token / middle["read"] / middle[name],
        })  # fmt: skip
    return {
        "rows": rows,
        "read": middle["read"],
        "prefill": CONTEXT / middle["prefill"],
        "kernels": pytfmbs.active_kernels(),
    }


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Decoding at a context of {CONTEXT}, kernels {results[0]['kernels']}")
    for heading in ("shape", "threads", "model", "tokens/s", "(range)", "MB/token", "of the limit"):
        table.add_column(heading, justify="left" if heading in ("shape", "model") else "right")
    for result in results:
        for row in result["rows"]:
            table.add_row(
                row["shape"], str(row["threads"]), row["variant"], f"{row['tokens_a_second']:.1f}",
                f"{row['least']:.1f} to {row['most']:.1f}", f"{row['megabytes_a_token']:,.0f}",
                f"{row['share']:.0%}",
            )  # fmt: skip
        first = result["rows"][0]
        table.add_row(
            first["shape"], str(first["threads"]), "prefill", f"{result['prefill']:.0f}", "", "",
            f"{result['read'] / 1e9:.1f} GB/s", end_section=True,
        )  # fmt: skip
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--shapes", nargs="+", choices=[*SHAPES], default=[*SHAPES])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file for the results")
    parser.add_argument("--worker", nargs=2, metavar=("SHAPE", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        shape, threads = arguments.worker
        print(json.dumps(measure(shape, int(threads), arguments.rounds)))
        return
    results = []
    for shape in arguments.shapes:
        for threads in arguments.threads:
            print(f"{shape}, {threads} threads ...", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--rounds", str(arguments.rounds),
                       "--worker", shape, str(threads)]  # fmt: skip
            made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results.append(json.loads(made.splitlines()[-1]))
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
