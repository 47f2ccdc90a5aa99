"""Loads a ternary GGUF file into packed layers, changes its format, and writes one for llama.cpp.

With a file of your own (architecture llama, TQ1_0 or TQ2_0 weights), change MODEL:

    MODEL = "Falcon3-1B-Instruct-1.58bit-TQ2_0.gguf"

Without one, a small random model is made. Needs pytfmbs[checkpoints] and transformers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytfmbs
import torch
from pytfmbs.checkpoints import convert_checkpoint, open_checkpoint, save
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

MODEL = None


def random_gguf(path: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    pytfmbs.convert(model, weight_quantizer="absmean", activation="int8")
    save(model, path, format="gguf-tq2_0")
    return path


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    source = Path(MODEL) if MODEL else random_gguf(folder / "model.gguf")

    # What it holds, a layer at a time.
    reader = open_checkpoint(source)
    first = next(reader.layers())
    print(f"{source}: {len(reader.layer_names)} ternary layers; {first.name} is "
          f"{first.in_features}→{first.out_features}, scale {first.scale.flatten()[0]:.4g}")  # fmt: skip

    # To transformers' BitNet layout. The same in a shell:
    #   pytfmbs convert model.gguf model-bitnet --to bitnet
    convert_checkpoint(source, folder / "model-bitnet", format="bitnet")
    model = AutoModelForCausalLM.from_pretrained(folder / "model-bitnet", dtype=torch.float32)
    pytfmbs.convert(model, activation="int8")  # BitLinear to ternary layers that keep the numbers
    pytfmbs.freeze(model)
    print(pytfmbs.summary(model))
    prompt = torch.tensor([[1, 5, 9]])
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False
    )
    print("tokens:", made[0].tolist())

    # And back, in llama.cpp's smallest ternary type.
    save(model, folder / "model-tq1_0.gguf", format="gguf-tq1_0")
    again = open_checkpoint(folder / "model-tq1_0.gguf").layer(first.name)
    assert torch.equal(again.trits, first.trits)
    assert torch.equal(again.scale, first.scale)
    print(f"wrote {folder / 'model-tq1_0.gguf'}, with the same trits and scales")


if __name__ == "__main__":
    main()
