"""A tokenizer.json as a GGUF's vocabulary.

| tokenizer.json | GGUF |
| --- | --- |
| BPE of bytes (GPT-2, Llama 3) | ``gpt2``, with merges and llama.cpp's name of how text is split |
| BPE with byte_fallback (SentencePiece, Llama 2) | ``llama``, with scores in the order of the merges |
| none | ``no_vocab``: the model takes and gives token numbers |
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import read_json
from .llama_gguf import Refuse

#: llama.cpp's names by the expression that a tokenizer.json splits text with.
_SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen2",
}
_NO_SCORE = -1e6
_WITHOUT = "Write it without a vocabulary"


def add_vocabulary(
    writer: Any,
    folder: Path | None,
    config: dict[str, Any],
    pre_tokenizer: str | None,
    refuse: Refuse,
) -> None:
    """Adds it to a gguf.GGUFWriter. refuse: raises for a tokenizer that GGUF does not hold."""
    file = None if folder is None else folder / "tokenizer.json"
    if folder is None or file is None or not file.exists():
        if folder is not None and (folder / "tokenizer.model").exists():
            refuse("its tokenizer is a tokenizer.model alone", "Save it as tokenizer.json, with "
                   "transformers' AutoTokenizer, or write it without a vocabulary")  # fmt: skip
        writer.add_tokenizer_model("no_vocab")
        return
    import gguf

    tokenizer = read_json(file)
    model = tokenizer.get("model") or {}
    entries: dict[str, int] = model.get("vocab") or {}
    if model.get("type") != "BPE" or not isinstance(entries, dict):
        refuse(f"its tokenizer is of the type {model.get('type')!r}; 'BPE' is written", _WITHOUT)
    size = int(config["vocab_size"])
    tokens: list[str | None] = [None] * size
    added = {entry["content"]: entry for entry in tokenizer.get("added_tokens", [])}
    for text, number in [*entries.items(), *((text, a["id"]) for text, a in added.items())]:
        if not 0 <= number < size:
            refuse(
                f"its tokenizer has the token number {number}, and its embedding {size}", _WITHOUT
            )
        tokens[number] = text
    merges = _merges(model)
    if model.get("byte_fallback"):
        _check_sentencepiece(entries, merges, refuse)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        ranks: dict[str, int] = {}
        for rank, (left, right) in enumerate(merges):
            ranks.setdefault(left + right, rank)
        writer.add_token_scores([-float(ranks.get(t or "", -_NO_SCORE)) for t in tokens])
        writer.add_add_space_prefix(_has_prefix(tokenizer))
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer or _split(tokenizer, refuse))
    unknown = model.get("unk_token")
    writer.add_token_list([f"[PAD{i}]" if t is None else t for i, t in enumerate(tokens)])
    writer.add_token_types([_type(gguf.TokenType, t, added, unknown) for t in tokens])
    special = gguf.SpecialVocab(folder, load_merges=not model.get("byte_fallback"), n_vocab=size)
    special.add_to_gguf(writer, quiet=True)


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        tuple(merge.split(" ", 1) if isinstance(merge, str) else merge)
        for merge in model.get("merges", [])
    ]


def _check_sentencepiece(
    entries: dict[str, int], merges: list[tuple[str, str]], refuse: Refuse
) -> None:
    """llama.cpp joins any two neighbours whose text is a token, in the order of the token's score.
    These merges must do the same."""
    known = set(merges)
    joined = {left + right for left, right in merges}
    for text in joined:
        for left, right in _splits(text):
            if left in entries and right in entries and (left, right) not in known:
                refuse(
                    f"its tokenizer joins no {left!r} and {right!r}, and llama.cpp would", _WITHOUT
                )


def _splits(text: str) -> Iterator[tuple[str, str]]:
    return ((text[:at], text[at:]) for at in range(1, len(text)))


def _parts(step: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre_tokenizer."""
    if not isinstance(step, dict):
        return []
    return step.get("pretokenizers") or step.get("normalizers") or [step]


def _has_prefix(tokenizer: dict[str, Any]) -> bool:
    """Whether a text begins as if it had a space in front."""
    return any(
        part.get("type") == "Prepend" for part in _parts(tokenizer.get("normalizer"))
    ) or any(
        part.get("type") == "Metaspace" and part.get("prepend_scheme", "always") != "never"
        for part in _parts(tokenizer.get("pre_tokenizer"))
    )


def _split(tokenizer: dict[str, Any], refuse: Refuse) -> str:
    parts = _parts(tokenizer.get("pre_tokenizer"))
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        expression = (parts[0].get("pattern") or {}).get("Regex")
        if expression in _SPLITS:
            return _SPLITS[expression]
    refuse(
        f"how its tokenizer splits text ({', '.join(map(str, kinds)) or 'not at all'}) has no name that "
        "is known here",
        "Pass pre_tokenizer, llama.cpp's name of it, as 'falcon3'",
    )
    raise AssertionError


def _type(types: Any, text: str | None, added: dict[str, Any], unknown: str | None) -> Any:
    if text is None:
        return types.UNUSED
    if text == unknown:
        return types.UNKNOWN
    if text in added:
        return types.CONTROL if added[text].get("special") else types.USER_DEFINED
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return types.BYTE
    return types.NORMAL
