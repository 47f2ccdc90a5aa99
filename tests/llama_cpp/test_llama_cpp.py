"""llama.cpp runs the GGUF files that we write (``make test-llama``).

llama.cpp quantizes activations otherwise than we do. Per token of a layer with K inputs x:

- ours (int8): one step a/127, with a = max|x|, for all K inputs;
- llama.cpp (q8_K): for each block b of 256 inputs a step a_b/127, with a_b = max|x_b|.

Both round to the nearest step, so an input differs by at most (a + a_b)/254 ≤ a/127 between the two, and
an output with scale s and n weights that are not zero by at most s·n·a/127. Through several layers that
bound grows beyond use. So the tests compute llama.cpp's own formula instead (``Q8K``), in our model:

1. llama.cpp's logits equal those of the formula in float32, until an activation at the edge of two steps
   rounds the other way (its input differs in float32's last bits). After one they are within TOLERANCE.
2. Our logits then differ from llama.cpp's by at most M + TOLERANCE, where M is the distance of our logits
   from the formula's at that position, for the same tokens.
3. Our greedy tokens are llama.cpp's wherever our two largest logits are more than 2 (M + TOLERANCE) apart.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_models import LLAMA3, TEXTS, byte_tokenizer, grouped, packed, sentencepiece_tokenizer
from pytfmbs import TFMBSPackedLinear
from pytfmbs.checkpoints import convert_checkpoint, save, ternary_tensor
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-llama" / "bin" / "python"
Model = Any
pytestmark = pytest.mark.skipif(
    not (PYTHON.parents[1] / ".created").exists(), reason="make test-llama makes .venv-llama first"
)
#: Of the largest logit. An activation at the edge of two steps may round either way.
TOLERANCE = 1e-2
PROMPTS = [[1, 5, 9, 3, 2, 30, 17, 4], [7, 7, 12], [25], [1, 2, 3, 4, 5]]
NEW = 24


class Q8K(nn.Module):
    """A ternary layer with activations as llama.cpp quantizes them, in blocks of 256."""

    def __init__(self, layer: TFMBSPackedLinear) -> None:
        super().__init__()
        tensor = ternary_tensor("layer", layer)
        self.values, self.bias = tensor.values(), tensor.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        blocks = x.to(torch.float32).unflatten(-1, (-1, 256))
        largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
        inverse = torch.where(largest == 0, 0, -127 / largest)
        step = torch.where(largest == 0, 0, 1 / inverse)
        rounded = (inverse * blocks).round().clamp(max=127)
        return nn.functional.linear((rounded * step).flatten(-2), self.values, self.bias)


def as_llama_computes(model: Model) -> Model:
    made = copy.deepcopy(model)
    for path, layer in list(made.named_modules()):
        if isinstance(layer, TFMBSPackedLinear):
            made.set_submodule(path, Q8K(layer))
    return made


def run(path: Path, texts: list[str] | None = None) -> dict[str, Any]:
    request, answer = path.with_suffix(".request"), path.with_suffix(".answer")
    request.write_text(json.dumps({"prompts": PROMPTS, "new": NEW, "texts": texts or []}))
    command = [str(PYTHON), str(Path(__file__).parent / "run_llama.py"), path, request, answer]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


@torch.no_grad()
def check_same(model: Model, answer: dict[str, Any]) -> None:
    checked = [check_run(model, run) for run in answer["runs"]]
    assert sum(free for free, _ in checked) >= NEW // 3  # or generate() was hardly compared
    # Positions that no rounding reaches have the formula's logits in float32.
    assert float(torch.cat([rounding for _, rounding in checked]).quantile(0.25)) <= 1e-5


def check_run(model: Model, run: dict[str, Any]) -> tuple[int, torch.Tensor]:
    """How many tokens of generate() were compared; by how much llama.cpp is from its formula."""
    tokens, theirs = torch.tensor([run["tokens"]]), torch.tensor(run["logits"])
    ours, formula = model(tokens).logits[0], as_llama_computes(model)(tokens).logits[0]
    assert theirs.shape == ours.shape
    size = float(theirs.abs().max())
    rounding = (theirs - formula).abs().amax(dim=1) / size
    distance = (ours - formula).abs().amax(dim=1) / size
    print(f"logits to {size:.3g}; of that, llama.cpp from its formula {float(rounding.max()):.2g} "
          f"(median {float(rounding.median()):.2g}), we {float(distance.max()):.2g}")  # fmt: skip
    assert float(rounding.max()) <= TOLERANCE
    assert float(distance.max()) < 0.1  # or the margin says nothing
    margin = (distance + TOLERANCE) * size
    assert bool(((ours - theirs).abs().amax(dim=1) <= margin).all())
    top = ours.topk(2).values
    sure = (top[:, 0] - top[:, 1]) > 2 * margin
    assert torch.equal(ours.argmax(-1)[sure], theirs.argmax(-1)[sure])
    assert sure.float().mean() >= 0.3
    # Free running: our generate() goes the same way up to the first token that rounding may decide.
    prompt = tokens[:, : tokens.shape[1] - NEW]
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=NEW, do_sample=False
    )[0].tolist()
    steps = sure[prompt.shape[1] - 1 : -1].tolist()
    free = steps.index(False) if False in steps else NEW
    same = prompt.shape[1] + free
    assert made[:same] == run["tokens"][:same]
    return int(free), rounding


OPTIONS: list[dict[str, Any]] = [
    {"half": True},
    {"attention_bias": True, "tie_word_embeddings": True},
    {"attention_bias": True, "mlp_bias": True, "half": True},
    {"rope_parameters": LLAMA3, "num_hidden_layers": 3},
    {"rope_parameters": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.0}},
    {"head_dim": 64, "num_attention_heads": 8, "rms_norm_eps": 3e-5},
]


@pytest.mark.parametrize("kind", ["tq2_0", "tq1_0"])
@pytest.mark.parametrize(
    "options", OPTIONS, ids=["half", "attention-biases", "biases", "llama3", "linear", "heads"]
)
def test_llama_cpp_has_our_logits_and_tokens(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    model = packed(vocab_size=32, **options)
    save(model, tmp_path / "m.gguf", format=f"gguf-{kind}")
    check_same(model, run(tmp_path / "m.gguf"))


def test_scales_of_outputs_and_blocks(tmp_path: Path) -> None:
    model = packed(vocab_size=32)
    for layer in model.model.layers:
        scale = float(layer.mlp.down_proj.scale)
        down, queries = (torch.rand(256, n) * scale + scale / 2 for n in (2, 1))
        grouped(layer, "mlp.down_proj", down.half().float(), 256)
        grouped(layer, "self_attn.q_proj", queries[:, 0].half().float(), None)
    save(model, tmp_path / "m.gguf", format="gguf-tq2_0")
    check_same(model, run(tmp_path / "m.gguf"))


def test_a_converted_checkpoint(tmp_path: Path) -> None:
    model = packed(vocab_size=32)
    save(model, tmp_path / "bitnet", format="bitnet")
    convert_checkpoint(tmp_path / "bitnet", tmp_path / "1.gguf", format="gguf-tq1_0")
    convert_checkpoint(tmp_path / "1.gguf", tmp_path / "2.gguf", format="gguf-tq2_0")
    check_same(model, run(tmp_path / "2.gguf"))


def test_a_wrong_order_of_rows_is_seen(tmp_path: Path) -> None:
    """The check itself: a model whose queries are in another order has other logits."""
    model = packed(vocab_size=32)
    save(model, tmp_path / "m.gguf", format="gguf-tq2_0")
    query = ternary_tensor("q", model.model.layers[0].self_attn.q_proj)
    order = torch.arange(256).view(4, 2, 32).transpose(1, 2).reshape(-1)
    model.model.layers[0].self_attn.q_proj = query.rows(order).packed_layer()
    with pytest.raises(AssertionError):
        check_same(model, run(tmp_path / "m.gguf"))


@pytest.mark.parametrize("kind", ["gpt-2", "llama-bpe", "qwen2", "sentencepiece"])
def test_the_vocabulary_splits_text_alike(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    if kind == "sentencepiece":
        sentencepiece_tokenizer(tmp_path)
    else:
        byte_tokenizer(tmp_path, kind)
    model = packed(vocab_size=400)
    save(model, tmp_path / "m.gguf", format="gguf-tq2_0", tokenizer=tmp_path)
    answer = run(tmp_path / "m.gguf", TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    bos = kind in ("sentencepiece", "llama-bpe")  # llama.cpp's defaults for these
    assert [
        [t for t in text if not (bos and t == tokenizer.bos_token_id)] for text in answer["texts"]
    ] == expected
    assert [text.lstrip() for text in answer["pieces"]] == [text.lstrip() for text in TEXTS]


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-s"]))
