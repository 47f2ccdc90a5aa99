"""Damaged checkpoints: an error that names the file, or the numbers that an independent reader finds.
PYTFMBS_FUZZ_CASES sets the number of cases a format."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pytfmbs import CheckpointError, TFMBSPackedLinear
from pytfmbs.checkpoints import TernaryTensor, add_gguf_tensor, open_checkpoint, save
from pytfmbs.checkpoints.reader import Checkpoint
from safetensors.torch import load_file, save_file
from torch import nn

gguf = pytest.importorskip("gguf")

CASES = int(os.environ.get("PYTFMBS_FUZZ_CASES", "1500"))
#: Memory that a case may take beyond what the process has, in bytes; the files take kilobytes.
LIMIT = 1 << 30


def trits(outputs: int, inputs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(outputs)
    return torch.randint(-1, 2, (outputs, inputs), generator=generator, dtype=torch.int8)


def layer(name: str, outputs: int, inputs: int) -> TernaryTensor:
    scale = torch.tensor([0.5])
    return TernaryTensor(name, trits(outputs, inputs), scale, torch.ones(outputs))


def write_own(folder: Path) -> Path:
    model = nn.Module()
    model.a = layer("a", 8, 33).packed_layer()
    model.b = TFMBSPackedLinear.from_trits(trits(5, 40), torch.rand(5, 2), group_size=32)
    model.c = nn.Linear(3, 2)
    save(model, folder)
    return folder


def write_bitnet(folder: Path) -> Path:
    model = nn.Module()
    model.a, model.b = layer("a", 8, 33).packed_layer(), layer("b", 12, 7).packed_layer()
    model.c = nn.Linear(3, 2)
    save(model, folder, format="bitnet")
    return folder


def write_gguf(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_array("tokens", ["a", "bc", "def"])
    writer.add_array("scores", [1, 2, 3])
    add_gguf_tensor(writer, layer("a", 3, 512), kind="tq2_0")
    add_gguf_tensor(writer, layer("b", 2, 256), kind="tq1_0")
    writer.add_tensor("c", np.ones((2, 3), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "m.gguf"


def expected_own(path: Path, name: str) -> np.ndarray:
    tensors = load_file(path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    entry = config["quantization_config"]["layers"][name]
    digits = tensors[f"{name}.packed"].numpy()[:, :, None] // 3 ** np.arange(5) % 3
    values = np.float32([0, 1, -1])[digits].reshape(len(digits), -1)[:, : entry["in_features"]]
    scale = tensors[f"{name}.scale"].numpy()
    if entry.get("group_size"):
        scale = np.repeat(scale, entry["group_size"], axis=1)[:, : values.shape[1]]
    elif scale.size > 1:
        scale = scale[:, None]
    return values * scale


def expected_bitnet(path: Path, name: str) -> np.ndarray:
    tensors = load_file(path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())["quantization_config"]
    packed, bias = tensors[f"{name}.weight"].numpy(), tensors.get(f"{name}.bias")
    outputs = 4 * len(packed) if bias is None else bias.numel()
    rows = np.concatenate([(packed >> 2 * i) & 3 for i in range(4)])[:outputs]
    scale = np.float32(tensors[f"{name}.weight_scale"].float().numpy().reshape(1))
    divides = config.get("linear_class", "bitlinear") == "bitlinear"
    return (rows.astype(np.float32) - 1) * (1 / scale if divides else scale)


def expected_gguf(path: Path, name: str) -> np.ndarray:
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    found = tensors[f"{name}.weight"]
    values = gguf.quants.dequantize(found.data, found.tensor_type)
    return values * tensors[f"{name}.scale"].data if f"{name}.scale" in tensors else values


FORMATS: dict[str, tuple[Callable[[Path], Path], Callable[[Path, str], np.ndarray]]] = {
    "tfmbs": (write_own, expected_own),
    "bitnet": (write_bitnet, expected_bitnet),
    "gguf": (write_gguf, expected_gguf),
}


def read(path: Path, wanted: Callable[[Path, str], np.ndarray]) -> bool:
    """Whether the whole file could be read; what was read is compared."""
    place = path if path.is_dir() else path.parent
    try:
        reader: Checkpoint = open_checkpoint(path)
        layers = list(reader.layers())
        for name in reader.tensor_names:
            reader.tensor(name)
    except CheckpointError as raised:
        error = raised
    else:
        error = None
    if error is not None:
        assert error.file.startswith(str(place)), error
        assert error.reason
        assert error.remedy
        return False
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for found in layers:
            assert found.trits.dtype == torch.int8
            assert int(found.trits.abs().max()) <= 1
            expected = wanted(path, found.name)
            assert np.array_equal(found.values().numpy(), expected, equal_nan=True), found.name
    return True


@pytest.fixture
def _limited() -> Iterator[None]:
    """The process's memory is limited to LIMIT more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def damaged(content: bytes, header: int, draw: random.Random) -> bytes:
    """One or several changes, half of them in the header."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(header if draw.random() < 0.5 else len(data))
        kind = draw.randrange(6)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.choice([0, 1, 2, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            value = draw.choice(
                [0, 1, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]
            )
            data[at : at + 8] = struct.pack("<Q", value)[: len(data) - at]
        elif kind == 3:
            size = draw.randrange(1, 40)
            data[at : at + size] = data[draw.randrange(len(data)) :][:size]
        elif kind == 4:
            del data[at : at + draw.randrange(1, 20)]
        elif draw.random() < 0.2:
            del data[at:]
        if not data:
            return b""
        header = min(header, len(data))
    return bytes(data)


def header_bytes(content: bytes, name: str) -> int:
    if name == "gguf":
        return max(content.rindex(b"c\x02"), 100)
    return 8 + int(struct.unpack("<Q", content[:8])[0])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("_limited")
def test_damage_is_an_error_or_has_no_effect(tmp_path: Path, name: str) -> None:
    write, wanted = FORMATS[name]
    path = write(tmp_path)
    assert read(path, wanted)
    file = path if path.is_file() else path / "model.safetensors"
    content = file.read_bytes()
    draw = random.Random(name)
    outcomes = {True: 0, False: 0}
    for case in range(CASES):
        # A new file each time: an earlier one may be mapped still.
        file.unlink()
        change = damaged(content, header_bytes(content, name), draw)
        file.write_bytes(change)
        try:
            outcomes[read(path, wanted)] += 1
        except BaseException as error:
            (tmp_path / "failed").write_bytes(change)
            raise AssertionError(f"case {case}: {error!r}, file {tmp_path / 'failed'}") from error
    assert min(outcomes.values()) > CASES // 50, outcomes


@pytest.mark.parametrize("name", FORMATS)
def test_truncation_anywhere_is_an_error(tmp_path: Path, name: str) -> None:
    write, wanted = FORMATS[name]
    path = write(tmp_path)
    file = path if path.is_file() else path / "model.safetensors"
    content = file.read_bytes()
    end = len(content.rstrip(b"\0")) if name == "gguf" else len(content)  # it ends in padding
    for size in range(0, end, max(1, 1500 * end // max(CASES, 1500) // 600)):
        file.unlink()
        file.write_bytes(content[:size])
        assert not read(path, wanted), size


@pytest.mark.parametrize("name", ["tfmbs", "bitnet"])
@pytest.mark.usefixtures("_limited")
def test_damaged_configurations(tmp_path: Path, name: str) -> None:
    write, wanted = FORMATS[name]
    path = write(tmp_path)
    file = path / "config.json"
    content = file.read_bytes()
    draw = random.Random(name + "json")
    for _ in range(CASES // 2):
        file.write_bytes(damaged(content, len(content), draw))
        read(path, wanted)


VALUES = [None, True, 0, -1, 1.5, "x", [], {}, [[]], 1 << 70, "lm_head", ["(("], float("nan")]


@pytest.mark.parametrize("name", ["tfmbs", "bitnet"])
def test_configurations_with_other_values(tmp_path: Path, name: str) -> None:
    write, wanted = FORMATS[name]
    path = write(tmp_path)
    file = path / "config.json"
    whole = json.loads(file.read_text())
    options = whole["quantization_config"]
    extra = {"use_rms_norm": True} if name == "bitnet" else {}
    for key in [*options, "rms_norm_eps"]:
        for value in VALUES:
            changed = {**whole, "quantization_config": {**options, **extra, key: value}}
            file.write_text(json.dumps(changed))
            read(path, wanted)
    for entry in options.get("layers", {}):
        for key in [*options["layers"][entry], "rms_norm_eps", "group_size"]:
            for value in VALUES:
                layers = json.loads(json.dumps(options["layers"]))
                layers[entry][key] = value
                changed = {"quantization_config": {**options, "layers": layers}}
                file.write_text(json.dumps(changed))
                read(path, wanted)


@pytest.mark.parametrize("name", ["tfmbs", "bitnet"])
def test_other_dtypes_and_shapes(tmp_path: Path, name: str) -> None:
    write, wanted = FORMATS[name]
    path = write(tmp_path)
    file = path / "model.safetensors"
    tensors = load_file(file)
    tensors = {key: value.clone() for key, value in tensors.items()}
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8,
              torch.int64, torch.bool]  # fmt: skip
    for key, value in tensors.items():
        others = [value.to(dtype) for dtype in dtypes]
        others += [value[None], value.reshape(-1), value[:0], value[:1], value[..., :1]]
        others += [torch.cat([value, value])]
        others += [torch.zeros(0, 1 << 40, dtype=value.dtype), torch.zeros((), dtype=value.dtype)]
        for other in others:
            if value.dim() == 2 and other.dim() == 1 and key.startswith("c."):
                continue
            file.unlink()
            save_file({**tensors, key: other.contiguous()}, file)
            read(path, wanted)
        file.unlink()
        save_file({k: v for k, v in tensors.items() if k != key}, file)
        needed = not key.startswith("c.") and not key.endswith("bias")
        assert not (needed and read(path, wanted)), key
