"""vLLM serves ternary checkpoints with our numbers (``make test-vllm``).

The reference is transformers with our packed layers, in one process and in fp32. Attention, norms and
rotary embeddings of vLLM add in another order, so float32's last bits differ, and an activation at the
edge of two quantization steps may round the other way. Until one does, logits must agree to SAME times
the largest, and afterwards to ROUNDED. Tokens must agree wherever the reference's two best logits are
further apart than that.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs.integrations.transformers import from_pretrained
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

sys.path[:0] = [
    str(Path(__file__).parent), str(Path(__file__).parents[1] / "python" / "integrations")
]  # fmt: skip
from llama_models import byte_tokenizer  # noqa: E402
from serving import PYTHON, post, run, server  # noqa: E402
from small_hf import bitnet_checkpoint, small  # noqa: E402

Model = Any
pytestmark = [
    pytest.mark.skipif(
        not (PYTHON.parents[1] / ".created").exists(),
        reason="make test-vllm makes .venv-vllm first",
    ),
    pytest.mark.timeout(3600),
]
SAME, ROUNDED = 1e-4, 3e-2
PROMPTS = [[1, 5, 9, 3, 2, 30, 17, 4], [7, 7, 12], [25], [1, 2, 3, 4, 5]]
NEW = 24
#: 100 inputs of down_proj on each of two ranks, and 50 of o_proj's: not cut between bytes of PT-5.
SHAPE = {"hidden": 128, "intermediate_size": 204, "num_attention_heads": 4, "head_dim": 32,
         "num_key_value_heads": 2}  # fmt: skip


def model_of(kind: str, **options: Any) -> Model:
    """Random, in floats, with norms that matter."""
    model = small(kind, **{**SHAPE, **options})
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(".bias"):
                value.normal_(std=0.1)
            elif value.dim() == 1:
                value.uniform_(0.5, 1.5)
    return model


def own(folder: Path, kind: str = "Llama", *, activation: str = "int8", **options: Any) -> Path:
    """A checkpoint of our own."""
    model = pytfmbs.convert(
        model_of(kind, **options), weight_quantizer="absmean", activation=activation
    )
    pytfmbs.freeze(model).save_pretrained(folder)
    return folder


@torch.no_grad()
def check_tokens(folder: Path, answer: dict[str, Any]) -> None:
    """Of vLLM, against the reference."""
    assert "error" not in answer, answer["error"]
    model = from_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)
    exact = free = 0
    for prompt, new, found in zip(PROMPTS, answer["tokens"], answer["top"], strict=True):
        # The logits that vLLM had before each of its tokens.
        logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)
        distance = torch.tensor([
            max(abs(float(expected[step, int(token)]) - value) for token, value in entries.items())
            for step, entries in enumerate(found)
        ])  # fmt: skip
        size = float(logits.abs().max())
        rounded = distance.cummax(0).values > SAME * size  # keys and values keep what was rounded
        margin = torch.where(rounded, ROUNDED, SAME) * size
        assert bool((distance <= margin).all()), distance / size
        best = logits.topk(2).values
        sure = (best[:, 0] - best[:, 1]) > 2 * margin
        assert torch.equal(logits.argmax(-1)[sure], torch.tensor(new)[sure])
        made = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=NEW,
        )[0, len(prompt) :].tolist()
        same = sure.tolist().index(False) if not bool(sure.all()) else NEW
        assert made[:same] == new[:same]
        exact, free = exact + int((~rounded).sum()), free + same
    print(f"of {NEW * len(PROMPTS)} tokens {free} generated alike, {exact} before any rounding")
    assert min(exact, free) >= NEW * len(PROMPTS) // 2


CHECKPOINTS = {
    "own": lambda folder: own(folder),
    "own-biases": lambda folder: own(folder, attention_bias=True, mlp_bias=True),
    "own-ternary": lambda folder: own(folder, activation="ternary"),
    "own-bitnet": lambda folder: own(folder, "BitNet"),
    "bitlinear": lambda folder: bitnet_checkpoint(
        folder, model_of("BitNet"), "bitlinear", "offline"
    ),
    "autobitlinear": lambda folder: bitnet_checkpoint(
        folder, model_of("Llama", attention_bias=True), "autobitlinear", "offline"
    ),
    "online": lambda folder: bitnet_checkpoint(
        folder, model_of("BitNet"), "autobitlinear", "online"
    ),
}


def serve(work: Path, folders: dict[str, Path], **options: Any) -> dict[str, dict[str, Any]]:
    requests = [
        {"model": str(folder), "prompts": PROMPTS, "new": NEW, "options": options}
        for folder in folders.values()
    ]
    return dict(zip(folders, run(work, requests), strict=True))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {kind: make(base / kind) for kind, make in CHECKPOINTS.items()}


@pytest.fixture(scope="module")
def one_rank(
    folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    return serve(tmp_path_factory.mktemp("one"), folders)


@pytest.mark.parametrize("kind", [*CHECKPOINTS])
def test_one_rank_has_the_tokens_of_transformers(
    one_rank: dict[str, dict[str, Any]], folders: dict[str, Path], kind: str
) -> None:
    check_tokens(folders[kind], one_rank[kind])


def test_compiled(folders: dict[str, Path], tmp_path: Path) -> None:
    kinds = ("own", "own-bitnet")
    found = serve(tmp_path, {kind: folders[kind] for kind in kinds}, enforce_eager=False)
    for kind in kinds:
        check_tokens(folders[kind], found[kind])


def test_two_ranks_have_the_numbers_of_one(
    one_rank: dict[str, dict[str, Any]], folders: dict[str, Path], tmp_path: Path
) -> None:
    kinds = ("own", "own-biases", "own-bitnet", "bitlinear", "autobitlinear")
    found = serve(tmp_path, {kind: folders[kind] for kind in kinds}, tensor_parallel_size=2)
    for kind in kinds:
        assert "error" not in found[kind], found[kind]
        check_tokens(folders[kind], found[kind])
        assert found[kind]["logprobs"] == one_rank[kind]["logprobs"]


def test_what_is_refused_says_so(folders: dict[str, Path], tmp_path: Path) -> None:
    norm = bitnet_checkpoint(
        tmp_path / "norm", model_of("Llama"), "bitlinear", "offline", norm=True
    )
    damaged = tmp_path / "damaged"
    shutil.copytree(folders["own"], damaged)
    tensors = load_file(damaged / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.packed"
    tensors[name][3, 2] = 250
    save_file(tensors, damaged / "model.safetensors", metadata={"format": "pt"})
    mixed = tmp_path / "mixed"
    shutil.copytree(folders["bitlinear"], mixed)
    config = json.loads((mixed / "config.json").read_text())
    config["quantization_config"]["modules_to_not_convert"] = ["lm_head", "k_proj"]
    (mixed / "config.json").write_text(json.dumps(config))
    found = serve(tmp_path, {"norm": norm, "damaged": damaged, "mixed": mixed})
    assert "use_rms_norm" in found["norm"]["error"]
    assert "gate_up_proj.packed" in found["damaged"]["error"]
    assert "k_proj" in found["mixed"]["error"]


def test_the_server_on_loopback(tmp_path: Path) -> None:
    folder = own(tmp_path / "model", vocab_size=400)
    byte_tokenizer(folder)
    with server(tmp_path, folder) as address:
        answers = [
            post(f"{address}/v1/completions", {
                "model": str(folder), "prompt": prompt, "max_tokens": NEW, "temperature": 0,
                "ignore_eos": True, "return_token_ids": True,
            })["choices"][0]["token_ids"]
            for prompt in PROMPTS
        ]  # fmt: skip
    model = from_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)
    for prompt, new in zip(PROMPTS, answers, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1]
        best = logits.topk(2).values
        sure = (best[:, 0] - best[:, 1]) > 2 * ROUNDED * float(logits.abs().max())
        assert torch.equal(logits.argmax(-1)[sure], torch.tensor(new)[sure])
        assert (logits.argmax(-1) == torch.tensor(new)).float().mean() > 0.9
