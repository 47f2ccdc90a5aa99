"""GGUF's architecture "llama" and transformers' Llama: names, order of rows, hyper-parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

#: Called with what is not held and what to do; raises.
Refuse = Callable[[str, str], Any]

_PARTS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip
_WHOLE = ("model.embed_tokens", "model.norm", "lm_head")
ROPE_FREQS = "rope_freqs.weight"
_FLOAT_MODEL = "Load the original safetensors instead"


class LlamaNames:
    """Names of a model with so many blocks, and the rows of queries and keys.

    GGUF has the two halves of a head's rows in pairs: values that are rotated together are
    neighbours.
    """

    def __init__(self, blocks: int, heads: int, key_heads: int) -> None:
        import gguf

        self._map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, blocks)
        self._heads = {"attn_q": heads, "attn_k": key_heads}
        self._blocks = blocks

    @cached_property
    def _of_model(self) -> dict[str, str]:
        """The tensors that llama.cpp reads of this architecture, and transformers' names of them."""
        blocks = range(self._blocks)
        found = {}
        for module in [*_WHOLE, *(f"model.layers.{i}.{part}" for i in blocks for part in _PARTS)]:
            name = self._map.get_name(module)
            found[f"{name}.weight"] = f"{module}.weight"
            if ".self_attn." in module or ".mlp." in module:
                found[f"{name}.bias"] = f"{module}.bias"
        return found

    @cached_property
    def _of_file(self) -> dict[str, str]:
        return {model: file for file, model in self._of_model.items()}

    def name(self, key: str) -> str | None:
        """GGUF's name of a tensor, by any name that the gguf package knows it by."""
        found: str | None = self._map.get_name(key, try_suffixes=(".weight", ".bias"))
        return found

    def in_file(self, key: str) -> str | None:
        """GGUF's name of a tensor of transformers' Llama; None for one that llama.cpp ignores."""
        return self._of_file.get(key)

    def in_model(self, name: str) -> str | None:
        """And back."""
        return self._of_model.get(name)

    def order(self, name: str, rows: int) -> Tensor | None:
        """Which row of the file each row of the model's is, or None where they are the same. name: the
        file's, without ".weight"."""
        heads = self._pairs(name, rows)
        return None if heads is None else _swapped(rows, (heads, -1, 2))

    def file_order(self, name: str, rows: int) -> Tensor | None:
        """Which row of the model each row of the file is."""
        heads = self._pairs(name, rows)
        return None if heads is None else _swapped(rows, (heads, 2, -1))

    def heads_of(self, name: str) -> int | None:
        """How many heads a tensor's rows are of, where their order is another."""
        return self._heads.get(
            name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
        )

    def needed(self) -> list[str]:
        """The file's names of all tensors but biases."""
        return [name for name in self._of_model if name.endswith(".weight")]

    def _pairs(self, name: str, rows: int) -> int | None:
        heads = self.heads_of(name)
        return None if heads is None or rows % (2 * heads) else heads


def _swapped(rows: int, shape: tuple[int, ...]) -> Tensor:
    return torch.arange(rows).view(shape).transpose(1, 2).reshape(-1)


class LlamaConfig:
    """A config.json of transformers' Llama, checked for what llama.cpp computes."""

    def __init__(self, config: dict[str, Any], refuse: Refuse) -> None:
        self.config = config
        kind = config.get("model_type")
        if kind != "llama":
            refuse(
                f"its architecture is {kind!r}; whole GGUF files are written of 'llama' models",
                "Save it as 'tfmbs' or 'bitnet'",
            )
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                 "num_attention_heads")  # fmt: skip
        for name in names:
            value = config.get(name)
            if type(value) is not int or not 0 < value < 1 << 31:
                refuse(f"config.json has {name} {value!r}", "Download or save it again")
        self.vocabulary, self.hidden, self.feed_forward, self.blocks, self.heads = (
            int(config[name]) for name in names
        )
        self.key_heads = int(config.get("num_key_value_heads") or self.heads)
        self.head = int(config.get("head_dim") or self.hidden // self.heads)
        self.context = int(config.get("max_position_embeddings") or 2048)
        self.eps = float(config.get("rms_norm_eps", 1e-6))
        self._check(refuse)
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        self.theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
        self.rope = rope
        self.rope_type = rope.get("rope_type", rope.get("type", "default"))
        if self.rope_type not in ("default", "linear", "llama3"):
            refuse(
                f"its RoPE is {self.rope_type!r}; 'default', 'linear' and 'llama3' are written",
                "Save it as 'tfmbs' or 'bitnet'",
            )

    def _check(self, refuse: Refuse) -> None:
        remedy = "Save it as 'tfmbs' or 'bitnet'"
        act = self.config.get("hidden_act", "silu")
        if act != "silu":
            refuse(f"its hidden_act is {act!r}; llama.cpp computes 'silu'", remedy)
        if (self.config.get("partial_rotary_factor") or 1) != 1:
            refuse("it rotates a part of each head, and llama.cpp all of it", remedy)

    def names(self) -> LlamaNames:
        return LlamaNames(self.blocks, self.heads, self.key_heads)

    def add_to(self, writer: Any) -> None:
        """The metadata that llama.cpp needs. writer: a gguf.GGUFWriter."""
        import gguf

        writer.add_vocab_size(self.vocabulary)
        writer.add_context_length(self.context)
        writer.add_embedding_length(self.hidden)
        writer.add_feed_forward_length(self.feed_forward)
        writer.add_block_count(self.blocks)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.key_heads)
        writer.add_layer_norm_rms_eps(self.eps)
        writer.add_rope_dimension_count(self.head)
        writer.add_key_length(self.head)
        writer.add_value_length(self.head)
        writer.add_rope_freq_base(self.theta)
        if self.rope_type == "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(self.rope["factor"]))

    def rope_factors(self) -> Tensor | None:
        """By what llama.cpp divides each frequency: llama3's smooth step from 1 to ``factor``."""
        if self.rope_type != "llama3":
            return None
        factor, low, high, context = (
            float(self.rope[key])
            for key in ("factor", "low_freq_factor", "high_freq_factor",
                        "original_max_position_embeddings")
        )  # fmt: skip
        exponents = torch.arange(0, self.head, 2, dtype=torch.float64) / self.head
        turns = context * self.theta**-exponents / (2 * math.pi)  # in the original context
        share = ((turns - low) / (high - low)).clamp(0, 1)  # of the unscaled frequency
        return (1 / (share + (1 - share) / factor)).to(torch.float32)


def config_of(value: Callable[[str], Any], tensors: set[str], refuse: Refuse) -> dict[str, Any]:
    """A config.json for transformers. value: metadata by key, None for none. tensors: the file's."""
    architecture = value("general.architecture")
    if architecture != "llama":
        refuse(
            f"its architecture is {architecture!r}; other GGUF files than those of 'llama' are "
            "converted to GGUF only",
            "Convert it to gguf-tq2_0 or gguf-tq1_0",
        )
    scaling = value("llama.rope.scaling.type")
    if scaling not in (None, "none", "linear"):
        refuse(f"its RoPE is scaled by {scaling!r}", _FLOAT_MODEL)
    if ROPE_FREQS in tensors:
        refuse(f"{ROPE_FREQS} scales its RoPE, and config.json has no place for it", _FLOAT_MODEL)

    def whole(key: str, default: int | None = None) -> int:
        found = value(f"llama.{key}")
        found = default if found is None else found
        if not isinstance(found, int) or not 0 < found < 1 << 31:
            refuse(f"llama.{key} is {found!r}", "Convert it again")
        return int(found)

    heads, hidden = whole("attention.head_count"), whole("embedding_length")
    rope = {"rope_type": "default", "rope_theta": _float(value("llama.rope.freq_base"), 10000.0)}
    if scaling == "linear":
        factor = _float(value("llama.rope.scaling.factor"), 1.0)
        rope = {**rope, "rope_type": "linear", "factor": factor}
    tokens = value("tokenizer.ggml.tokens")
    biases = {name.split(".")[2] for name in tensors if name.endswith(".bias")}
    attention, mlp = ({f"{kind}_{part}" for part in parts} for kind, parts in (
        ("attn", ("q", "k", "v", "output")), ("ffn", ("gate", "up", "down"))))  # fmt: skip
    for group in (attention, mlp):
        if biases & group not in (set(), group):
            refuse(f"of {sorted(group)} only {sorted(biases & group)} have a bias; transformers' Llama "
                   "has all or none", "Load it with names into a model that has them")  # fmt: skip
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": whole("vocab_size", len(tokens) if tokens else None),
        "hidden_size": hidden,
        "intermediate_size": whole("feed_forward_length"),
        "num_hidden_layers": whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": whole("attention.head_count_kv", heads),
        "head_dim": whole("attention.key_length", hidden // heads),
        "hidden_act": "silu",
        "max_position_embeddings": whole("context_length", 2048),
        "rms_norm_eps": _float(value("llama.attention.layer_norm_rms_epsilon"), 1e-6),
        "rope_parameters": rope,
        "attention_bias": bool(biases & attention),
        "mlp_bias": bool(biases & mlp),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    for name, key in (
        ("bos", "bos_token_id"),
        ("eos", "eos_token_id"),
        ("pad", "padding_token_id"),
    ):
        config[f"{name}_token_id"] = value(f"tokenizer.ggml.{key}")
    return config


def _float(value: Any, default: float) -> float:
    """As short a number as its float32 has."""
    if value is None:
        return default
    import numpy as np

    return float(str(np.float32(value)))
