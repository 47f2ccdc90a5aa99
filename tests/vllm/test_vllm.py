"""vLLM serves ternary checkpoints with our numbers (``make test-vllm``).

The reference is transformers with our packed layers, in one process and in fp32. Attention, norms and
rotary embeddings of vLLM add in another order, so float32's last bits differ, and an activation at the
edge of two quantization steps may round the other way. So tokens must agree wherever the reference's
two best logits are further apart than TOLERANCE times the largest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs.checkpoints import save
from pytfmbs.integrations.transformers import from_pretrained
from small_hf import bitnet_checkpoint, small
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from serving import PYTHON, run

Model = Any
pytestmark = [
    pytest.mark.skipif(
        not (PYTHON.parents[1] / ".created").exists(), reason="make test-vllm makes .venv-vllm first"
    ),
    pytest.mark.timeout(900),
]
#: Of the largest logit.
TOLERANCE = 1e-2
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
    model = from_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)
    sure_steps = 0
    distances = []
    for prompt, new, found in zip(PROMPTS, answer["tokens"], answer["top"], strict=True):
        # The logits that vLLM had before each of its tokens.
        logits = model(torch.tensor([prompt + new])).logits[0, len(prompt) - 1 : -1]
        best = logits.topk(2).values
        margin = TOLERANCE * float(logits.abs().max())
        sure = (best[:, 0] - best[:, 1]) > margin
        assert torch.equal(logits.argmax(-1)[sure], torch.tensor(new)[sure])
        made = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False,
            max_new_tokens=NEW,
        )[0, len(prompt) :].tolist()  # fmt: skip
        same = sure.tolist().index(False) if not bool(sure.all()) else NEW
        assert made[:same] == new[:same]
        sure_steps += same
        expected = logits.log_softmax(-1)
        for step, entries in enumerate(found):
            for token, logprob in entries.items():
                distances.append(abs(float(expected[step, int(token)]) - logprob))
                assert distances[-1] <= margin
    middle = sorted(distances)[len(distances) // 2]
    print(f"{sure_steps} of {NEW * len(PROMPTS)} tokens generated alike; logprobs differ by "
          f"{middle:.2g} (median), {max(distances):.2g} (most)")  # fmt: skip
    assert sure_steps >= NEW * len(PROMPTS) // 2
    assert middle <= 1e-5


def serve(work: Path, folder: Path, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = run(
        work, {"model": str(folder), "prompts": PROMPTS, "new": NEW, "options": options}
    )
    return answer


CHECKPOINTS = {
    "own": lambda folder: own(folder),
    "own-biases": lambda folder: own(folder, attention_bias=True, mlp_bias=True),
    "own-ternary": lambda folder: own(folder, activation="ternary"),
    "own-bitnet": lambda folder: own(folder, "BitNet"),
    "bitlinear": lambda folder: bitnet_checkpoint(folder, model_of("BitNet"), "bitlinear", "offline"),
    "autobitlinear": lambda folder: bitnet_checkpoint(
        folder, model_of("Llama", attention_bias=True), "autobitlinear", "offline"
    ),
    "online": lambda folder: bitnet_checkpoint(folder, model_of("BitNet"), "autobitlinear", "online"),
}


@pytest.mark.parametrize("kind", [*CHECKPOINTS])
def test_one_rank_has_the_tokens_of_transformers(tmp_path: Path, kind: str) -> None:
    folder = CHECKPOINTS[kind](tmp_path / "model")
    check_tokens(folder, serve(tmp_path, folder))
