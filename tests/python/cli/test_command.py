"""The command pytfmbs: what it prints, its exit codes, and that errors are one line."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from llama_models import byte_tokenizer, llama, packed
from pytfmbs.checkpoints import TernaryTensor, add_gguf_tensor, load_into, open_checkpoint, save
from torch import nn

pytest.importorskip("typer")
gguf = pytest.importorskip("gguf")
pytest.importorskip("transformers")
from pytfmbs.cli.app import app  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

FORMATS = ["tfmbs", "bitnet", "gguf-tq2_0", "gguf-tq1_0"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model in every format."""
    folder = tmp_path_factory.mktemp("files")
    model = packed()
    for format in FORMATS:
        save(model, folder / format, format=format)
    return {format: folder / format for format in FORMATS}


def call(*arguments: Any, code: int = 0) -> tuple[str, str]:
    """What it prints, and what it says of errors."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="pytfmbs")
    assert result.exit_code == code, result.output
    if result.exception is not None:
        assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    return result.stdout, result.stderr


def data_of(*arguments: Any, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(*arguments, "--json", code=code)[0])
    return found


def check_error(text: str, *words: str) -> None:
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert all(word in text for word in words), text


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_json_has_no_numbers_that_json_lacks(tmp_path: Path, scale: float) -> None:
    save(nn.Sequential(pytfmbs.TFMBSPackedLinear.from_trits(torch.ones(8, 8), scale)), tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    found = json.loads(call("inspect", tmp_path, "--json")[0], parse_constant=refuse)
    assert found["ternary_layers"][0]["scale_max"] == str(scale)


# --- inspect --------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
def test_inspect_lists_layers_and_tensors(files: dict[str, Path], format: str) -> None:
    found = data_of("inspect", files[format])
    reader = open_checkpoint(files[format])
    assert found["format"] == reader.format
    assert [layer["name"] for layer in found["ternary_layers"]] == reader.layer_names
    assert [tensor["name"] for tensor in found["other_tensors"]] == reader.tensor_names
    assert found["errors"] == []
    assert found["converts_to"] == dict.fromkeys(FORMATS)
    weights = 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256)
    assert found["ternary_weights"] == weights
    bits = {"tfmbs": 1.6, "bitnet": 2.0, "gguf-tq2_0": 66 / 32, "gguf-tq1_0": 54 / 32}[format]
    assert bits <= found["bits_per_weight"] <= bits + 0.04
    layer = found["ternary_layers"][0]
    tensor = reader.layer(layer["name"])
    assert layer["shape"] == list(tensor.trits.shape)
    assert layer["scale_min"] == layer["scale_max"] == float(tensor.scale)
    assert layer["zeros"] == pytest.approx(float((tensor.trits == 0).float().mean()), abs=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_the_table_fits_a_terminal(files: dict[str, Path], format: str) -> None:
    text, _ = call("inspect", files[format])
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if str(files[format]) not in line]
    assert max(map(len, lines)) <= 80
    assert "0…1" in text
    assert f"to {format}: yes" in text
    every, _ = call("inspect", files[format], "--all")
    assert "0…1" not in every
    assert every.count("one") >= 14


def test_scales_of_every_kind_are_named(tmp_path: Path) -> None:
    trits = torch.randint(-1, 2, (8, 256), dtype=torch.int8)
    model = nn.ModuleDict({
        "a": TernaryTensor("a", trits, torch.rand(8)).packed_layer(),
        "b": TernaryTensor("b", trits, torch.rand(8, 4), group_size=64).packed_layer(),
        "n": nn.LayerNorm(3),
    })  # fmt: skip
    save(model, tmp_path / "m")
    found = data_of("inspect", tmp_path / "m")
    assert [layer["scales"] for layer in found["ternary_layers"]] == ["per output", "per 64 inputs"]
    assert "BitNet has one" in found["converts_to"]["bitnet"]
    assert "architecture is None" in found["converts_to"]["gguf-tq2_0"]


def test_inspect_says_what_is_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    # A type that is not read, by its name.
    data = bytearray(files["gguf-tq2_0"].read_bytes())
    at = data.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight") + 4 + 16
    assert struct.unpack_from("<I", data, at)[0] == gguf.GGMLQuantizationType.TQ2_0
    struct.pack_into("<I", data, at, 142)
    (tmp_path / "m.gguf").write_bytes(data)
    found = data_of("inspect", tmp_path / "m.gguf", code=1)
    assert found["format"] is None
    assert found["errors"][0]["tensor"] == "blk.0.attn_q.weight"
    assert "PQ2_0" in found["errors"][0]["reason"]
    types = {tensor["name"]: tensor["type"] for tensor in found["other_tensors"]}
    assert types["blk.0.attn_q.weight"] == "PQ2_0"
    assert types["blk.0.attn_k.weight"] == "TQ2_0"
    text, _ = call("inspect", tmp_path / "m.gguf", code=1)
    assert "refused: 'blk.0.attn_q.weight'" in text
    # A code that is no trit, in one layer of a file that is read.
    data = bytearray(files["gguf-tq2_0"].read_bytes())
    tensor = next(
        t for t in gguf.GGUFReader(files["gguf-tq2_0"]).tensors if t.name == "blk.1.ffn_up.weight"
    )
    data[tensor.data_offset + 5] = 0xFF
    (tmp_path / "m.gguf").write_bytes(data)
    found = data_of("inspect", tmp_path / "m.gguf", code=1)
    assert [error["tensor"] for error in found["errors"]] == ["blk.1.ffn_up.weight"]
    assert found["errors"][0]["offset"] == 5
    assert "damaged" in call("inspect", tmp_path / "m.gguf", code=1)[0]
    # Cut short, empty, and floats.
    for size in (0, 3, 100, len(data) - 1):
        (tmp_path / "m.gguf").write_bytes(data[:size])
        assert data_of("inspect", tmp_path / "m.gguf", code=1)["errors"]
    llama().save_pretrained(tmp_path / "floats")
    found = data_of("inspect", tmp_path / "floats", code=1)
    assert "pytfmbs.convert" in found["errors"][0]["remedy"]
    assert found["other_tensors"]


# --- convert --------------------------------------------------------------------------------------


def test_convert_writes_what_save_would(tmp_path: Path, files: dict[str, Path]) -> None:
    text, errors = call("convert", files["bitnet"], tmp_path / "m.gguf", "--to", "gguf-tq2_0")
    assert "m.gguf: gguf-tq2_0" in text
    assert errors == ""
    found = data_of("convert", tmp_path / "m.gguf", tmp_path / "own", "--to", "tfmbs")
    assert found["bytes"] == (tmp_path / "own" / "model.safetensors").stat().st_size
    prompt = torch.arange(1, 9).unsqueeze(0)
    again = load_into(llama(), tmp_path / "own")
    assert torch.equal(again(prompt).logits, packed()(prompt).logits)


def test_convert_refuses_in_one_line(tmp_path: Path, files: dict[str, Path]) -> None:
    narrow, out = tmp_path / "narrow", tmp_path / "out.gguf"
    save(packed(hidden_size=192), narrow)
    _, error = call("convert", narrow, out, "--to", "gguf-tq2_0", code=1)
    check_error(error, "192 inputs", "multiple of 256", "convert to tfmbs")
    out.write_text("mine")
    _, error = call("convert", files["tfmbs"], out, "--to", "gguf-tq2_0", code=1)
    check_error(error, "it exists", "--force")
    assert out.read_text() == "mine"
    call("convert", files["tfmbs"], out, "--to", "gguf-tq2_0", "--force", "-q")
    assert open_checkpoint(out).layer_names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow", "out.gguf"]


def test_convert_takes_the_vocabulary(tmp_path: Path) -> None:
    save(packed(vocab_size=400), tmp_path / "in")
    byte_tokenizer(tmp_path / "in")
    call("convert", tmp_path / "in", tmp_path / "a.gguf", "--to", "gguf-tq1_0")
    call("convert", tmp_path / "in", tmp_path / "b.gguf", "--to", "gguf-tq1_0", "--no-vocabulary")
    models = [
        gguf.GGUFReader(tmp_path / f"{name}.gguf").fields["tokenizer.ggml.model"].contents()
        for name in "ab"
    ]
    assert models == ["gpt2", "no_vocab"]
    file = tmp_path / "in" / "tokenizer.json"
    file.write_text(file.read_text().replace('"type": "ByteLevel"', '"type": "Punctuation"'))
    _, error = call("convert", tmp_path / "in", tmp_path / "c.gguf", "--to", "gguf-tq1_0", code=1)
    check_error(error, "--pre-tokenizer", "Punctuation")
    call("convert", tmp_path / "in", tmp_path / "c.gguf", "--to", "gguf-tq1_0",
         "--pre-tokenizer", "falcon3")  # fmt: skip


def test_round_scales(tmp_path: Path) -> None:
    trits = torch.randint(-1, 2, (2, 256), dtype=torch.int8)
    writer = gguf.GGUFWriter(tmp_path / "in.gguf", "gptx")
    add_gguf_tensor(writer, TernaryTensor("a", trits, torch.tensor([0.5])))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _, error = call("convert", tmp_path / "in.gguf", tmp_path / "out", "--to", "bitnet", code=1)
    check_error(error, "'gptx'")
    model = packed(mlp_bias=True)
    save(model, tmp_path / "in")
    arguments = ["convert", tmp_path / "in", tmp_path / "out.gguf", "--to", "gguf-tq2_0"]
    _, error = call(*arguments, code=1)
    check_error(error, "--round-scales", "mlp.")
    call(*arguments, "--round-scales")


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", ".", "out", "--to", "gguf-q4_0"],
        ["convert", ".", "out"],
        ["inspect", "/no/such/file"],
        ["inspect", ".", "--nonsense"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    call(*arguments, code=2)


# --- summary, help, the processes -----------------------------------------------------------------


def test_summary_is_that_of_the_model(files: dict[str, Path], tmp_path: Path) -> None:
    model = packed()
    for format in ("tfmbs", "gguf-tq2_0"):
        assert data_of("summary", files[format]) == pytfmbs.summary(model).to_dict()
    text, _ = call("summary", files["bitnet"])
    assert "14 of 21 ternary" in text
    save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "m")
    _, error = call("summary", tmp_path / "m", code=1)
    check_error(error, "model_type", "pytfmbs inspect")


@pytest.mark.parametrize("command", [[], ["inspect"], ["convert"], ["summary"]])
def test_help_names_exit_codes(command: list[str]) -> None:
    text, _ = call(*command, "--help")
    assert "Exit codes" in text
    assert max(map(len, text.splitlines())) <= 80


def process(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "pytfmbs", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def test_python_m_pytfmbs_does_the_same(tmp_path: Path, files: dict[str, Path]) -> None:
    done = process("convert", files["tfmbs"], tmp_path / "o", "--to", "bitnet")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    done = process("inspect", tmp_path / "o" / "config.json")
    assert done.returncode == 1
    done = process("convert", tmp_path / "o" / "config.json", tmp_path / "p", "--to", "bitnet")
    assert done.returncode == 1
    check_error(done.stderr, "neither .gguf nor .safetensors")


def test_demo_is_the_demo() -> None:
    done = process("demo", "--help")
    assert done.returncode == 0
    assert "usage: pytfmbs demo" in done.stdout
    done = process("demo", "--seeds", "0")
    assert done.returncode == 2
