"""Makes a float Llama ternary while it loads, saves it, and loads what was saved.

python examples/quantize_llama.py [PATH [SAVED]]

PATH: a folder or a name on the hub of a float model. Without one, a small random model is made.
SAVED: the folder that is written.

A model that was trained in floats loses most of its quality this way. Train it on as a ternary model:
TFMBSConfig(trainable=True) loads layers that train.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from pytfmbs.integrations.transformers import TFMBSConfig
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def random_model(folder: Path) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=172, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def size(folder: str | Path) -> int:
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))


def main(path: str | None, saved: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = path or str(random_model(Path(folder) / "float"))
        target = saved or str(Path(folder) / "ternary")
        # One weight at a time: no float model is ever in memory as a whole.
        config = TFMBSConfig(weight_quantizer="absmean", activation="int8")
        model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config)
        model.save_pretrained(target, max_shard_size="2GB")

        again = AutoModelForCausalLM.from_pretrained(target)  # where pytfmbs is imported
        prompt = torch.tensor([[1, 5, 9]])
        with torch.no_grad():
            assert torch.equal(again(prompt).logits, model(prompt).logits)
        if Path(source).is_dir():
            print(f"{size(source):,} bytes of float weights")
        print(f"{size(target):,} bytes as saved")


if __name__ == "__main__":
    main(*[*sys.argv[1:3], None, None][:2])
