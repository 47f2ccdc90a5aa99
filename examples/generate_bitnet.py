"""Loads a BitNet checkpoint into ternary layers and generates text.

python examples/generate_bitnet.py [PATH]

PATH: a folder or a name on the hub, such as microsoft/bitnet-b1.58-2B-4T. Without one, a small random
checkpoint is made, and tokens are printed by their numbers.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import pytfmbs
import torch
from pytfmbs.integrations.transformers import from_pretrained
from transformers import AutoModelForCausalLM, AutoTokenizer, BitNetConfig, BitNetForCausalLM


def random_checkpoint(folder: str) -> str:
    """A small model in the format of microsoft/bitnet-b1.58-2B-4T-bf16: float weights that are
    quantized as they are loaded."""
    torch.manual_seed(0)
    config = BitNetConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    config.quantization_config = {
        "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
    }  # fmt: skip
    BitNetForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def main(path: str | None) -> list[int]:
    with tempfile.TemporaryDirectory() as folder:
        source = path or random_checkpoint(folder)
        # bfloat16 or float32: BitNet's activations are too large for float16.
        model: Any = from_pretrained(AutoModelForCausalLM, source, dtype=torch.bfloat16)
    print(pytfmbs.summary(model))

    tokenizer = None
    prompt: dict[str, Any] = {"input_ids": torch.tensor([[1, 5, 9]])}
    if path is not None:
        tokenizer = AutoTokenizer.from_pretrained(path)
        prompt = dict(tokenizer("The capital of France is", return_tensors="pt"))
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    tokens: list[int] = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0].tolist()
    print(tokens if tokenizer is None else tokenizer.decode(tokens))

    if path is None:
        return tokens
    saved = Path("bitnet-tfmbs")
    model.save_pretrained(saved)  # packed weights: AutoModelForCausalLM.from_pretrained loads them
    print(f"Saved in {saved}")
    return tokens


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
