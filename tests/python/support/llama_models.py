"""Random ternary models of transformers' Llama, of a size that GGUF's blocks hold, and tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytfmbs
import torch
from pytfmbs import TFMBSPackedLinear

Model = Any

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip
#: Texts that tokenizers learn from and are compared on.
TEXTS = [
    "The quick brown fox jumps over the lazy dog.", "ternary weights are -1, 0 and +1!",
    "It's 2026; we've 1234567 tokens\n\n  and  spaces.", "naïve café, größer, 東京",
]  # fmt: skip


def llama(**options: Any) -> Model:
    """In floats. options: of LlamaConfig."""
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(**{
        "vocab_size": 67, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None, **options,
    })  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".bias"):
                value.normal_(std=0.1)
            elif value.dim() == 1:  # norms
                value.uniform_(0.5, 1.5)
    return model


def packed(*, half: bool = False, activation: str = "int8", **options: Any) -> Model:
    """Packed. half: with scales that fp16 holds."""
    model = pytfmbs.convert(llama(**options), weight_quantizer="absmean", activation=activation)
    pytfmbs.freeze(model)
    if half:
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, TFMBSPackedLinear):
                    module._scales.copy_(module._scales.half())
    return model


def grouped(model: Model, path: str, scale: torch.Tensor, group: int | None) -> None:
    """Gives a layer other scales."""
    old = model.get_submodule(path)
    trits = old.quantized_weight()[0]
    new = TFMBSPackedLinear.from_trits(trits, scale, group_size=group, activation="int8")
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, new)


def byte_tokenizer(folder: Path, pre: str = "gpt-2", size: int = 400) -> None:
    """tokenizer.json of BPE over bytes, as GPT-2 and Llama 3 have it."""
    from pytfmbs.checkpoints.gguf_vocabulary import _SPLITS
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre != "gpt-2":
        expression = next(text for text, name in _SPLITS.items() if name == pre)
        split = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])  # fmt: skip
    made.pre_tokenizer, made.decoder = split, decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(TEXTS * 4, trainer)
    _save(made, folder)


def sentencepiece_tokenizer(folder: Path) -> None:
    """tokenizer.json of BPE with byte_fallback, as Llama 2 has it."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    tokens += sorted(set("".join(TEXTS[:2]).replace(" ", "")))
    merges = []
    for word in ("▁the", "▁quick", "▁are", "▁weights", "the", "▁fox", "▁over"):
        pieces = list(word)
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in tokens:
                tokens.append(joined)
            pieces[:2] = [joined]
    for token in tokens[260:]:
        merges += [
            (token[:at], token[at:])
            for at in range(1, len(token))
            if token[:at] in tokens and token[at:] in tokens
        ]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    _save(made, folder)


def _save(tokenizer: Any, folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
