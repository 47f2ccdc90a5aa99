"""convert_checkpoint: every format to every other, without a model, bit for bit."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_models import LLAMA3, llama, packed
from pytfmbs import ArgumentError, CheckpointError, TFMBSPackedLinear
from pytfmbs.checkpoints import (
    Checkpoint,
    TernaryTensor,
    add_gguf_tensor,
    convert_checkpoint,
    load_into,
    open_checkpoint,
    save,
)
from pytfmbs.checkpoints import saving as saving_module
from safetensors.torch import save_file
from torch import nn

gguf = pytest.importorskip("gguf")
pytest.importorskip("transformers")

FORMATS = ["tfmbs", "bitnet", "gguf-tq2_0", "gguf-tq1_0"]
PROMPT = torch.arange(1, 9).unsqueeze(0)


def layers_of(reader: Checkpoint) -> dict[str, TernaryTensor]:
    return {layer.name: layer for layer in reader.layers()}


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize("target", FORMATS)
def test_every_format_to_every_other(tmp_path: Path, source: str, target: str) -> None:
    model = packed(tie_word_embeddings=True)
    save(model, tmp_path / "in", format=source)
    seen = []
    convert_checkpoint(
        tmp_path / "in", tmp_path / "out", format=target,
        progress=lambda name, done, total: seen.append((done, total)),
    )  # fmt: skip
    again = load_into(llama(tie_word_embeddings=True), tmp_path / "out")
    assert torch.equal(again(PROMPT).logits, model(PROMPT).logits)
    assert seen == [(number, 14) for number in range(1, 15)]
    # The same file as a model in memory would give.
    save(model, tmp_path / "direct", format=target)
    one, two = (open_checkpoint(tmp_path / name) for name in ("out", "direct"))
    wanted = layers_of(two)
    assert sorted(one.layer_names) == sorted(two.layer_names)
    assert sorted(one.tensor_names) == sorted(two.tensor_names)
    for name, layer in layers_of(one).items():
        assert torch.equal(layer.trits, wanted[name].trits)
        assert torch.equal(layer.scale, wanted[name].scale)
    if "gguf" not in target:
        configs = [
            json.loads((tmp_path / n / "config.json").read_text()) for n in ("out", "direct")
        ]
        assert configs[0]["model_type"] == "llama"
        kept = [c["quantization_config"].get("modules_to_not_convert") for c in configs]
        assert kept[1] is None or set(kept[0]) >= set(kept[1])


def test_transformers_loads_what_came_from_a_gguf(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = packed(attention_bias=True, rms_norm_eps=3e-5)
    save(model, tmp_path / "m.gguf", format="gguf-tq1_0")
    convert_checkpoint(tmp_path / "m.gguf", tmp_path / "out", format="bitnet", round_scales=True)
    with torch.compiler.set_stance("force_eager"):
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
        assert theirs.config.rms_norm_eps == 3e-5
        got, expected = theirs(PROMPT).logits, model(PROMPT).logits
    assert float((got - expected).abs().max()) <= 2e-2 * float(expected.abs().max())


def test_what_belongs_to_a_model_goes_along(tmp_path: Path) -> None:
    save(packed(), tmp_path / "in", format="bitnet")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "merges.txt"):
        (tmp_path / "in" / name).write_text("{}")
    (tmp_path / "in" / "pytorch_model.bin").write_text("no")
    convert_checkpoint(tmp_path / "in", tmp_path / "out", format="tfmbs", max_shard_bytes=50_000)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "merges.txt", "generation_config.json"} <= names
    assert "pytorch_model.bin" not in names
    assert len([name for name in names if name.endswith(".safetensors")]) > 1


def test_gguf_of_any_architecture_to_gguf(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "in.gguf", "gptx")
    writer.add_string("gptx.words", "größer")
    writer.add_array("gptx.numbers", [1, 2, 3])
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_float32("gptx.eps", 1e-5)
    trits = torch.randint(-1, 2, (3, 512), dtype=torch.int8)
    trits[1, :256] = 0
    scale = torch.rand(3, 2).half().float()
    add_gguf_tensor(writer, TernaryTensor("w.0", trits, scale, torch.randn(3), 256), kind="tq2_0")
    other = torch.randn(4, 32)
    writer.add_tensor("e", other.numpy(), raw_dtype=gguf.GGMLQuantizationType.F32)
    blocks = gguf.quants.quantize(other.numpy(), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("q", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    convert_checkpoint(tmp_path / "in.gguf", tmp_path / "out.gguf", format="gguf-tq1_0")
    before, after = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("in", "out"))
    kept = {n: f.contents() for n, f in before.fields.items() if not n.startswith("GGUF")}
    found = {n: f.contents() for n, f in after.fields.items() if not n.startswith("GGUF")}
    assert found.pop("general.file_type") == 36
    assert found == kept
    by_name = {t.name: t for t in after.tensors}
    assert [t.name for t in after.tensors] == [t.name for t in before.tensors]
    assert by_name["q"].data.tobytes() == blocks.tobytes()
    assert by_name["w.0.weight"].tensor_type.name == "TQ1_0"
    one, two = (open_checkpoint(tmp_path / f"{n}.gguf").layer("w.0") for n in ("in", "out"))
    assert torch.equal(one.trits, two.trits)
    assert torch.equal(one.scale, two.scale)
    with pytest.raises(CheckpointError, match="'gptx'"):
        convert_checkpoint(tmp_path / "in.gguf", tmp_path / "out", format="tfmbs")


def test_online_weights_are_quantized_without_a_model(tmp_path: Path) -> None:
    model = llama(intermediate_size=258)
    folder = tmp_path / "in"
    folder.mkdir()
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    config = {**json.loads(model.config.to_json_string(use_diff=False)), "quantization_config": {
        "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
        "modules_to_not_convert": ["lm_head"]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    convert_checkpoint(folder, tmp_path / "out", format="tfmbs")
    want, have = load_into(llama(intermediate_size=258), folder), open_checkpoint(tmp_path / "out")
    assert len(have.layer_names) == 14
    again = load_into(llama(intermediate_size=258), tmp_path / "out")
    assert torch.equal(again(PROMPT).logits, want(PROMPT).logits)
    with pytest.raises(CheckpointError, match="258 outputs"):
        convert_checkpoint(folder, tmp_path / "bitnet", format="bitnet")
    tensors = dict(model.state_dict())
    save_file({**tensors, "model.extra.weight": torch.ones(2, 2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not known") as caught:
        convert_checkpoint(folder, tmp_path / "again", format="tfmbs")
    assert caught.value.tensor == "model.extra.weight"


def test_outputs_that_packed_rows_do_not_say(tmp_path: Path) -> None:
    """Of 258 outputs, the last two rows of codes are padding."""
    model = packed(intermediate_size=260)
    save(model, tmp_path / "in", format="bitnet")
    config = json.loads((tmp_path / "in" / "config.json").read_text())
    config["intermediate_size"] = 258
    (tmp_path / "in" / "config.json").write_text(json.dumps(config))
    convert_checkpoint(tmp_path / "in", tmp_path / "out", format="tfmbs")
    layer = open_checkpoint(tmp_path / "out").layer("model.layers.0.mlp.up_proj")
    assert layer.out_features == 258


# --- nothing half-written -------------------------------------------------------------------------


def fail_at(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(saving_module.codes, "pack_strided", fail)


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    save(packed(), tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    (tmp_path / "out" / "config.json").write_text("{}")
    fail_at(monkeypatch, kind("No space left on device"))
    with pytest.raises((CheckpointError, KeyboardInterrupt)):
        convert_checkpoint(tmp_path / "in", tmp_path / "out", format="bitnet", overwrite=True)
    with pytest.raises((CheckpointError, KeyboardInterrupt)):
        convert_checkpoint(tmp_path / "in", tmp_path / "new", format="bitnet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "mine"]


def test_targets_that_exist(tmp_path: Path) -> None:
    save(packed(), tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    (tmp_path / "out" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="it exists"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out", format="bitnet")
    convert_checkpoint(tmp_path / "in", tmp_path / "out", format="bitnet", overwrite=True)
    assert not (tmp_path / "out" / "old").exists()
    with pytest.raises(CheckpointError, match="is the source"):
        convert_checkpoint(tmp_path / "in", tmp_path / "in", format="bitnet", overwrite=True)
    with pytest.raises(ArgumentError, match="'gguf-q4'"):
        convert_checkpoint(tmp_path / "in", tmp_path / "x", format="gguf-q4")


def test_an_empty_array_in_a_gguf_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(file, "odd")
    writer.add_string("empty", "x" * 8)
    trits = torch.ones(3, 256, dtype=torch.int8)
    add_gguf_tensor(writer, TernaryTensor("b", trits, torch.ones(1)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data, start = file.read_bytes(), gguf.GGUFReader(file).data_offset
    text, array = struct.pack("<IQ", 8, 8) + b"x" * 8, struct.pack("<IIQ", 9, 8, 0)
    header = data[:start].replace(text, array).rstrip(b"\0").ljust(start, b"\0")
    file.write_bytes(header + data[start:])
    with pytest.raises(CheckpointError, match="'empty' is an array of nothing"):
        convert_checkpoint(file, tmp_path / "b.gguf", format="gguf-tq1_0")


def test_a_target_that_holds_the_source_stays(tmp_path: Path) -> None:
    save(nn.Sequential(TFMBSPackedLinear.from_trits(torch.ones(8, 8))), tmp_path / "all" / "in")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="the source lies in it"):
        convert_checkpoint(
            tmp_path / "all" / "in", tmp_path / "all", format="tfmbs", overwrite=True
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_llama_gguf_does_not_say(tmp_path: Path) -> None:
    save(packed(rope_parameters=LLAMA3), tmp_path / "m.gguf", format="gguf-tq2_0")
    with pytest.raises(CheckpointError, match="rope_freqs"):
        convert_checkpoint(tmp_path / "m.gguf", tmp_path / "out", format="tfmbs")
    assert not (tmp_path / "out").exists()


def test_overwriting_replaces_no_more_than_a_checkpoint(tmp_path: Path) -> None:
    models, other = tmp_path / "models", tmp_path / "other"
    save(packed(), models / "in")
    save(packed(), models)  # a checkpoint, and the source lies in it
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    for place, words in ((models, "the source lies in it"), (other, r"without config\.json")):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(CheckpointError, match=words):
            convert_checkpoint(models / "in", place, format="bitnet", overwrite=True)
        assert sorted(tmp_path.rglob("*")) == before


def test_what_is_there_stays_where_a_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(packed(), tmp_path / "in")
    save(packed(half=True), tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    rename = Path.replace

    def fails(self: Path, to: Path) -> Path:
        if self.name == "out" and to == tmp_path / "out":
            raise OSError("disk gone")
        return rename(self, to)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(CheckpointError, match="disk gone"):
        convert_checkpoint(tmp_path / "in", tmp_path / "out", format="bitnet", overwrite=True)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
