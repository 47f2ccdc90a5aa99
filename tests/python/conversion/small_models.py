"""Small models of many architectures, each with inputs: what convert meets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Inputs = dict[str, Any]
Built = tuple[nn.Module, Inputs]
_TOKENS = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _ids(count: int = 7) -> Tensor:
    return torch.randint(3, 48, (2, count), generator=torch.Generator().manual_seed(5))


def _decoder(name: str, **options: Any) -> Built:
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**_TOKENS, "use_cache": False, **options})
    return getattr(transformers, f"{name}ForCausalLM")(config), {"input_ids": _ids()}


def llama() -> Built:
    return _decoder("Llama", num_key_value_heads=1)


def qwen() -> Built:
    return _decoder("Qwen2", num_key_value_heads=1)


def mixtral() -> Built:
    return _decoder("Mixtral", num_key_value_heads=1, num_local_experts=2)


def bitnet() -> Built:
    return _decoder("BitNet", num_key_value_heads=1)


def falcon() -> Built:
    return _decoder("Falcon", multi_query=True)


def gpt2() -> Built:
    import transformers

    config = transformers.GPT2Config(
        vocab_size=48, n_embd=32, n_layer=2, n_head=2, n_positions=32, use_cache=False
    )
    return transformers.GPT2LMHeadModel(config), {"input_ids": _ids()}


def bert() -> Built:
    import transformers

    return transformers.BertForMaskedLM(transformers.BertConfig(**_TOKENS)), {"input_ids": _ids()}


def vit() -> Built:
    import transformers

    config = transformers.ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config), {
        "pixel_values": torch.randn(2, 3, 16, 16)
    }


def whisper() -> Built:
    import transformers

    config = transformers.WhisperConfig(
        vocab_size=48,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_mel_bins=8,
        max_source_positions=8,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        use_cache=False,
    )
    inputs = {"input_features": torch.randn(2, 8, 16), "decoder_input_ids": _ids(5)}
    return transformers.WhisperForConditionalGeneration(config), inputs


def t5() -> Built:
    import transformers

    config = transformers.T5Config(
        vocab_size=48,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        use_cache=False,
    )
    inputs = {"input_ids": _ids(), "decoder_input_ids": _ids(5)}
    return transformers.T5ForConditionalGeneration(config), inputs


def encoder() -> Built:
    layer = nn.TransformerEncoderLayer(32, 2, 48, batch_first=True)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 5:] = True
    inputs = {"src": torch.randn(2, 7, 32), "src_key_padding_mask": padding}
    return nn.TransformerEncoder(layer, 2), inputs


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(16, 32)
        self.attention = nn.MultiheadAttention(32, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.attention(x, x, x, need_weights=False)[0]


def attention() -> Built:
    return _Attention(), {"x": torch.randn(2, 7, 16)}


def mlp() -> Built:
    layers = [nn.Linear(24, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 5)]
    return nn.Sequential(*layers), {"input": torch.randn(6, 24)}


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(48, 16)
        self.lstm = nn.LSTM(16, 24, batch_first=True)
        self.out = nn.Linear(24, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.lstm(self.embedding(ids))[0])


def lstm() -> Built:
    return _Recurrent(), {"ids": _ids()}


class _Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def resnet() -> Built:
    layers = [nn.Conv2d(3, 8, 3, padding=1), _Block(8), _Block(8)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 5)]
    return nn.Sequential(*layers, *head), {"input": torch.randn(2, 3, 8, 8)}


#: How many layers of each convert makes ternary; 0 where it has no nn.Linear but for its head.
TRANSFORMERS: dict[Callable[[], Built], int] = {
    llama: 14,
    qwen: 14,
    mixtral: 8,
    bitnet: 14,
    falcon: 8,
    gpt2: 0,
    bert: 13,
    vit: 12,
    whisper: 16,
    t5: 36,
}
TORCH: dict[Callable[[], Built], int] = {encoder: 4, attention: 1, mlp: 2, lstm: 1, resnet: 2}
