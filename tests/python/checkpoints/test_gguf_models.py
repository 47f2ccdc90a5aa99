"""Whole GGUF files: the gguf package and transformers read them, and our own reader bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch
from llama_models import LLAMA3, byte_tokenizer, grouped, llama, packed, sentencepiece_tokenizer
from pytfmbs import CheckpointError, TFMBSPackedLinear
from pytfmbs.checkpoints import load_into, open_checkpoint, save, ternary_tensor
from torch import nn

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
Model = Any


def fields(path: Path) -> dict[str, Any]:
    return {f.name: f.contents() for f in gguf.GGUFReader(path).fields.values()}


def layers(model: Model) -> dict[str, nn.Module]:
    kinds = (TFMBSPackedLinear, pytfmbs.TFMBSLinear)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


OPTIONS: list[dict[str, Any]] = [
    {"tie_word_embeddings": True, "half": True},
    {"attention_bias": True, "rope_parameters": LLAMA3},
    {"attention_bias": True, "mlp_bias": True, "half": True},
    {"head_dim": 64, "num_attention_heads": 8, "rms_norm_eps": 3e-5},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.0}},
]


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0"])
@pytest.mark.parametrize("options", OPTIONS, ids=["tied", "attention", "biases", "heads", "linear"])
def test_our_reader_reads_it_back(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    model = packed(**options)
    path = tmp_path / "m.gguf"
    save(model, path, format=f"gguf-{kind}")
    options = dict(options)
    half = options.pop("half", False)
    again = load_into(llama(**options), path)
    for name, layer in layers(model).items():
        one, two = ternary_tensor(name, layer), ternary_tensor(name, again.get_submodule(name))
        assert torch.equal(one.trits, two.trits)
        assert torch.equal(one.scale, two.scale)
    prompt = torch.arange(1, 20).unsqueeze(0)
    assert torch.equal(again(prompt).logits, model(prompt).logits)
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert ("output.weight" in stored) == (not options.get("tie_word_embeddings"))
    assert ("blk.0.attn_q.scale" in stored) == (not half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_transformers_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    model = packed(half=True).to(dtype)
    save(model, tmp_path / "m.gguf", format="gguf-tq2_0")
    kind = next(
        t.tensor_type.name
        for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors
        if t.name == "token_embd.weight"
    )
    assert kind == {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32, config=model.config
    )
    for name, layer in layers(model).items():
        values = ternary_tensor(name, layer).values()
        assert torch.equal(theirs.get_submodule(name).weight, values)
    for name in ("lm_head", "model.embed_tokens", "model.norm", "model.layers.1.input_layernorm"):
        assert torch.equal(
            theirs.get_submodule(name).weight, model.get_submodule(name).weight.float()
        )


def test_trainable_layers_and_the_head_are_written(tmp_path: Path) -> None:
    model = llama()
    pytfmbs.convert(model, weight_quantizer="absmean", activation="int8", output_heads=True)
    assert isinstance(model.lm_head, pytfmbs.TFMBSLinear)
    save(model, tmp_path / "m.gguf", format="gguf-tq1_0")
    again = load_into(llama(), tmp_path / "m.gguf")
    prompt = torch.arange(1, 9).unsqueeze(0)
    assert torch.equal(again(prompt).logits, model(prompt).logits)


def test_scales_that_fp16_holds_are_in_the_blocks(tmp_path: Path) -> None:
    model = packed()
    grouped(model, "model.layers.0.mlp.down_proj", torch.rand(256, 2).half().float(), 256)
    grouped(model, "model.layers.0.self_attn.q_proj", torch.rand(256).half().float(), None)
    path = tmp_path / "m.gguf"
    save(model, path, format="gguf-tq2_0")
    found = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert {"blk.0.attn_q.scale", "blk.0.ffn_down.scale"}.isdisjoint(found)
    assert found["blk.0.ffn_up.scale"].data == model.model.layers[0].mlp.up_proj.scale.numpy()
    number = gguf.GGMLQuantizationType.TQ2_0
    ones = gguf.quants.dequantize(found["blk.0.ffn_up.weight"].data, number)
    assert set(np.unique(ones)) == {-1, 0, 1}
    # Rows of a head in pairs: row 2i is row i of the first half, row 2i+1 row i of the second.
    rows = gguf.quants.dequantize(found["blk.0.attn_q.weight"].data, number)
    mine = ternary_tensor("q", model.model.layers[0].self_attn.q_proj).values().numpy()
    for head in range(4):
        for i in range(32):
            for half in range(2):
                expected = mine[head * 64 + half * 32 + i]
                assert np.array_equal(rows[head * 64 + 2 * i + half], expected)
    save(packed(), path, format="gguf-tq2_0", round_scales=True)
    assert not [t for t in gguf.GGUFReader(path).tensors if t.name.endswith(".scale")]
    wanted = packed().model.layers[1].mlp.up_proj.scale.half().float()
    assert torch.equal(open_checkpoint(path).layer("blk.1.ffn_up").scale, wanted)


def test_metadata_is_that_of_the_configuration(tmp_path: Path) -> None:
    save(
        packed(head_dim=64, num_attention_heads=8, rms_norm_eps=3e-5, half=True),
        tmp_path / "m.gguf",
        format="gguf-tq1_0",
    )
    found = fields(tmp_path / "m.gguf")
    expected = {
        "general.architecture": "llama", "general.file_type": 36, "llama.vocab_size": 67,
        "llama.context_length": 64, "llama.embedding_length": 256,
        "llama.feed_forward_length": 512, "llama.block_count": 2,
        "llama.attention.head_count": 8, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 64, "llama.attention.value_length": 64,
        "llama.rope.dimension_count": 64, "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.model": "no_vocab",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected
    assert found["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(3e-5)


def _with_norm(model: Model) -> None:
    tensor = ternary_tensor("o", model.model.layers[0].self_attn.o_proj)
    normed = type(tensor)(
        "o", tensor.trits, tensor.scale, rms_norm=torch.ones(256), rms_norm_eps=1e-6
    )
    model.model.layers[0].self_attn.o_proj = normed.packed_layer()


CHANGES: list[tuple[Callable[[Model], Any], str]] = [
    (lambda m: grouped(m, "model.layers.0.mlp.up_proj", torch.rand(512, 4), 64), "of 64 inputs"),
    (lambda m: grouped(m, "model.layers.0.mlp.up_proj", torch.full((512,), 0.3), None), "fp16"),
    (lambda m: grouped(m, "model.layers.0.mlp.up_proj", torch.full((512, 1), 1e6), 256), "fp16"),
    (_with_norm, "norm"),
    (lambda m: setattr(m.config, "hidden_act", "gelu"), "'gelu'"),
    (lambda m: setattr(m.config, "rope_parameters", {"rope_type": "yarn"}), "'yarn'"),
    (lambda m: m.model.norm.register_parameter("bias", nn.Parameter(torch.ones(256))), "reads no such"),
    (lambda m: delattr(m, "lm_head"), "missing"),
    (lambda m: m.model.embed_tokens.double(), "float64"),
    (lambda m: setattr(m.config, "vocab_size", 0), "vocab_size 0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[words for _, words in CHANGES])
def test_what_a_llama_file_does_not_hold(
    tmp_path: Path, change: Callable[[Model], Any], words: str
) -> None:
    model = packed()
    change(model)
    with pytest.raises(CheckpointError, match=words) as caught:
        save(model, tmp_path / "m.gguf", format="gguf-tq2_0")
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden_size": 192, "intermediate_size": 256}, "192 inputs"),
        ({"activation": "ternary"}, "ternary activations"),
        ({"mlp_bias": True}, "multiply its bias"),
    ],
)
def test_models_that_blocks_do_not_hold(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        save(packed(**options), tmp_path / "m.gguf", format="gguf-tq2_0")
    assert str(caught.value.tensor).startswith("model.layers.0.")


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(256, 256))
    pytfmbs.freeze(pytfmbs.convert(model, activation="int8", output_heads=True))
    with pytest.raises(CheckpointError, match="architecture is None"):
        save(model, tmp_path / "m.gguf", format="gguf-tq2_0")


# --- vocabulary -----------------------------------------------------------------------------------


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_byte_bpe(tmp_path: Path, pre: str) -> None:
    byte_tokenizer(tmp_path, pre)
    save(packed(vocab_size=410), tmp_path / "m.gguf", format="gguf-tq2_0", tokenizer=tmp_path)
    found, own = fields(tmp_path / "m.gguf"), json.loads((tmp_path / "tokenizer.json").read_text())
    assert (found["tokenizer.ggml.model"], found["tokenizer.ggml.pre"]) == ("gpt2", pre)
    tokens = found["tokenizer.ggml.tokens"]
    count = len(own["model"]["vocab"])
    assert len(tokens) == 410
    assert all(tokens[number] == text for text, number in own["model"]["vocab"].items())
    assert found["tokenizer.ggml.merges"] == [" ".join(merge) for merge in own["model"]["merges"]]
    types = found["tokenizer.ggml.token_type"]
    assert types == [3, 3] + [1] * (count - 2) + [5] * (410 - count)
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (0, 1)


def test_sentencepiece_bpe(tmp_path: Path) -> None:
    sentencepiece_tokenizer(tmp_path)
    save(packed(vocab_size=400), tmp_path / "m.gguf", format="gguf-tq2_0", tokenizer=tmp_path)
    found = fields(tmp_path / "m.gguf")
    assert found["tokenizer.ggml.model"] == "llama"
    assert found["tokenizer.ggml.add_space_prefix"] is True
    scores = dict(zip(found["tokenizer.ggml.tokens"], found["tokenizer.ggml.scores"], strict=True))
    assert scores["th"] > scores["the"] > scores["a"] or scores["▁t"] > scores["▁th"] > scores["a"]
    assert found["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    file = tmp_path / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    merge = next(m for m in tokenizer["model"]["merges"] if m[0] + m[1] == "▁the")
    tokenizer["model"]["merges"].remove(merge)
    tokenizer["model"]["merges"].append(["▁", "the"])
    if merge != ["▁", "the"]:
        file.write_text(json.dumps(tokenizer))
        with pytest.raises(CheckpointError, match=r"llama\.cpp would"):
            save(
                packed(vocab_size=400), tmp_path / "n.gguf", format="gguf-tq2_0", tokenizer=tmp_path
            )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["model"].update(type="Unigram"), "'Unigram'"),
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "Pass pre_tokenizer"),
        (lambda t: t["model"]["vocab"].update(x=1000), "token number 1000"),
    ],
)
def test_tokenizers_that_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    byte_tokenizer(tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    change(tokenizer)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = packed(vocab_size=410)
    with pytest.raises(CheckpointError, match=words):
        save(model, tmp_path / "m.gguf", format="gguf-tq2_0", tokenizer=tmp_path)
    assert not (tmp_path / "m.gguf").exists()
    if "pre_tokenizer" in words:
        options = {"tokenizer": tmp_path, "pre_tokenizer": "falcon3"}
        save(model, tmp_path / "m.gguf", format="gguf-tq2_0", **options)
        assert fields(tmp_path / "m.gguf")["tokenizer.ggml.pre"] == "falcon3"


def test_a_lone_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model alone"):
        save(packed(), tmp_path / "m.gguf", format="gguf-tq2_0", tokenizer=tmp_path)
