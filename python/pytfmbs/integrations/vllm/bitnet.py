"""BitNet b1.58: a Llama with norms in front of ``o_proj`` and ``down_proj``, and ReLU² in its MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from vllm.config import VllmConfig
from vllm.distributed import (
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
)
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import MergedColumnParallelLinear, RowParallelLinear
from vllm.model_executor.models.llama import LlamaAttention, LlamaDecoderLayer, LlamaForCausalLM

#: Ranks that a norm's chunks may be shared by.
_RANKS = 16
_CHUNK = 32


def chunk_of(features: int) -> int:
    """Features whose squares are added first, on one rank: a power of two that divides every rank's."""
    power = features & -features
    return max(1, min(_CHUNK, power // _RANKS))


class SplitRMSNorm(nn.Module):
    """An RMS norm of features that are split over ranks: the same numbers as on one rank.

    Squares are added in chunks, whose sums are gathered and added in one order, in fp32.
    """

    def __init__(self, features: int, eps: float) -> None:
        super().__init__()
        self.features, self.eps, self.chunk = features, eps, chunk_of(features)
        self.ranks = get_tensor_model_parallel_world_size()
        size = features // self.ranks
        if size % self.chunk:
            raise ValueError(
                f"a norm of {features} features is not split over {self.ranks} ranks: use a power of "
                f"two up to {_RANKS}"
            )
        self.weight = Parameter(torch.ones(size), requires_grad=False)
        self.weight.weight_loader = self._load  # type: ignore[attr-defined]

    def _load(self, parameter: Parameter, loaded: Tensor) -> None:
        first = get_tensor_model_parallel_rank() * parameter.shape[0]
        parameter.data.copy_(loaded[first : first + parameter.shape[0]])

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, features of this rank] to the same."""
        wide = x.to(torch.float32)
        sums = wide.pow(2).unflatten(-1, (-1, self.chunk)).sum(-1)
        if self.ranks > 1:
            sums = tensor_model_parallel_all_gather(sums)
        mean = sums.sum(-1, keepdim=True) / self.features
        return self.weight * (wide * torch.rsqrt(mean + self.eps)).to(x.dtype)


class BitNetAttention(LlamaAttention):
    def __init__(self, *arguments: Any, config: Any, **options: Any) -> None:
        super().__init__(*arguments, config=config, **options)
        features = self.total_num_heads * self.head_dim
        self.attn_sub_norm = SplitRMSNorm(features, config.rms_norm_eps)

    def forward(self, positions: Tensor, hidden_states: Tensor) -> Tensor:
        joined, _ = self.qkv_proj(hidden_states)
        q, k, v = joined.split([self.q_size, self.kv_size, self.kv_size], dim=-1)
        q, k = self.rotary_emb(positions, q, k)
        output, _ = self.o_proj(self.attn_sub_norm(self.attn(q, k, v)))
        return output  # type: ignore[no-any-return]


class BitNetMLP(nn.Module):
    def __init__(self, config: Any, quant_config: Any, prefix: str) -> None:
        super().__init__()
        if config.hidden_act != "relu2":
            raise ValueError(f"hidden_act is {config.hidden_act!r}; BitNet's is 'relu2'")
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = MergedColumnParallelLinear(
            hidden, [inner] * 2, bias=False, quant_config=quant_config,
            prefix=f"{prefix}.gate_up_proj",
        )  # fmt: skip
        self.down_proj = RowParallelLinear(
            inner, hidden, bias=False, quant_config=quant_config, prefix=f"{prefix}.down_proj"
        )
        self.ffn_sub_norm = SplitRMSNorm(inner, config.rms_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, features] to the same."""
        joined, _ = self.gate_up_proj(x)
        gate, up = joined.chunk(2, dim=-1)
        output, _ = self.down_proj(self.ffn_sub_norm(torch.relu(gate).square() * up))
        return output  # type: ignore[no-any-return]


class BitNetDecoderLayer(LlamaDecoderLayer):
    def __init__(self, vllm_config: VllmConfig, prefix: str = "") -> None:
        nn.Module.__init__(self)  # not a Llama's MLP
        config = vllm_config.model_config.hf_config
        quant_config = vllm_config.quant_config
        self.hidden_size = config.hidden_size
        bias = bool(getattr(config, "attention_bias", False))
        self.self_attn = BitNetAttention(
            config=config,
            hidden_size=config.hidden_size,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads or config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            quant_config=quant_config,
            bias=bias,
            bias_o_proj=bias,
            cache_config=vllm_config.cache_config,
            prefix=f"{prefix}.self_attn",
        )
        self.mlp = BitNetMLP(config, quant_config, f"{prefix}.mlp")
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class BitNetForCausalLM(LlamaForCausalLM):
    """BitNet b1.58, on any number of ranks that is a power of two."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix, layer_type=BitNetDecoderLayer)
