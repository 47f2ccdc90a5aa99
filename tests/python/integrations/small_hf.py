"""Small random models of transformers' architectures, and BitNet checkpoints as others write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import nn
from transformers.integrations.bitnet import AutoBitLinear, BitLinear, pack_weights

Model = Any
PROMPT = torch.arange(1, 9).unsqueeze(0)


def small(kind: str = "Llama", hidden: int = 36, seed: int = 0, **options: Any) -> Model:
    """In fp32. 36 inputs are no multiple of a PT-5 byte's 5, 70 none of 4."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(**{
        "vocab_size": 67, "hidden_size": hidden, "intermediate_size": 2 * hidden - 2,
        "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 12,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None,
        **options,
    })  # fmt: skip
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def tokens_of(model: Model, **options: Any) -> list[int]:
    made = model.generate(
        PROMPT, attention_mask=torch.ones_like(PROMPT), max_new_tokens=8, do_sample=False, **options
    )
    return list(made[0].tolist())


@torch.no_grad()
def logits_of(model: Model) -> torch.Tensor:
    found: torch.Tensor = model(PROMPT).logits
    return found


def bitnet_checkpoint(
    folder: Path, model: Model, linear_class: str, mode: str, norm: bool = False, seed: int = 0
) -> Path:
    """A checkpoint of the model's architecture, its linear layers but the head ternary."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {
        "quant_method": "bitnet", "linear_class": linear_class, "quantization_mode": mode,
        "modules_to_not_convert": ["lm_head"], "use_rms_norm": norm, "rms_norm_eps": 1e-3,
    }  # fmt: skip
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or name == "lm_head":
            continue
        if norm:
            tensors[f"{name}.rms_norm.weight"] = torch.rand(module.in_features) + 0.5
        if mode == "online":
            continue
        trits = torch.randint(-1, 2, module.weight.shape, dtype=torch.int8)
        tensors[f"{name}.weight"] = pack_weights(trits)
        scale = torch.rand(1) * 0.1 + 0.05
        tensors[f"{name}.weight_scale"] = 1 / scale if linear_class == "bitlinear" else scale
        if module.bias is not None:
            tensors[f"{name}.bias"] = torch.randn(module.out_features)
    if model.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": options}))
    return folder


@contextmanager
def inputs_of(model: nn.Module, kinds: tuple[type, ...]) -> Iterator[dict[str, torch.Tensor]]:
    """What the layers of these classes got, by name: the rows, after their norm."""
    found: dict[str, torch.Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, kinds):

            def hook(module: Any, args: Any, output: Any, name: str = name) -> None:
                norm = getattr(module, "rms_norm", None)
                rows = args[0] if norm is None else norm(args[0])
                found[name] = rows.detach().reshape(-1, rows.shape[-1])

            handles.append(module.register_forward_hook(hook))
    yield found
    for handle in handles:
        handle.remove()


def quantized(rows: torch.Tensor) -> torch.Tensor:
    wide = rows.to(torch.float64)
    return (wide * 127 / wide.abs().amax(1, keepdim=True).clamp(min=1e-5)).round()


THEIRS = (BitLinear, AutoBitLinear)
