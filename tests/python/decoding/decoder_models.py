"""Decoder models of each known family, small and random, with packed ternary layers."""

from __future__ import annotations

from typing import Any

import pytfmbs
import torch
import transformers

FAMILIES = ("Llama", "BitNet", "Mistral", "Qwen2")
LAYERS = 2


def small_model(
    family: str,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    frozen: bool = True,
    fabric: pytfmbs.Fabric | None = None,
    **options: Any,
) -> Any:
    torch.manual_seed(0)
    own = {"BitNet": {"hidden_act": "relu2"}, "Mistral": {"sliding_window": None}}.get(family, {})
    config = getattr(transformers, f"{family}Config")(
        **{
            "hidden_size": 64,
            "intermediate_size": 88,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 150,
            "max_position_embeddings": 512,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": None,
            # Logits far apart: tokens hang on no rounding.
            "initializer_range": 0.5,
            **own,
            **options,
        }
    )
    config._attn_implementation = attention
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    place = {} if fabric is None else {"fabric": fabric}
    pytfmbs.convert(model, weight_quantizer="absmean", activation="int8", **place)
    if frozen:
        pytfmbs.freeze(model)
    return model.to(dtype)


def prompt(length: int = 7, sequences: int = 1) -> torch.Tensor:
    return torch.randint(
        3, 150, (sequences, length), generator=torch.Generator().manual_seed(length)
    )
