"""Readers of checkpoints against decoders of other hands: gguf.quants, transformers, NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytfmbs import AbsMeanQuantizer, CheckpointError, TFMBSPackedLinear
from pytfmbs.checkpoints import open_checkpoint
from safetensors.torch import save_file

gguf = pytest.importorskip("gguf")

SHAPES = [(5, 7), (8, 129), (66, 200), (1, 1), (3, 320)]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def random_trits(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (outputs, inputs), generator=generator, dtype=torch.int8)


def numpy_pack(trits: torch.Tensor) -> torch.Tensor:
    """Strided codes, output by output."""
    outputs, inputs = trits.shape
    rows = -(-outputs // 4)
    packed = np.zeros((rows, inputs), dtype=np.uint8)
    for output, row in enumerate(trits.numpy().astype(np.int64)):
        packed[output % rows] += ((row + 1) << 2 * (output // rows)).astype(np.uint8)
    return torch.from_numpy(packed)


def write(folder: Path, tensors: dict[str, torch.Tensor], **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    config = {"quantization_config": {"quant_method": "bitnet", **options}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# --- transformers' BitNet -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_bitlinear_divides(tmp_path: Path, outputs: int, inputs: int, dtype: torch.dtype) -> None:
    trits = random_trits(outputs, inputs)
    scale = torch.tensor([2.7], dtype=dtype)
    bias = torch.randn(outputs).to(dtype)
    tensors = {"a.weight": numpy_pack(trits), "a.weight_scale": scale, "a.bias": bias}
    norm = torch.rand(inputs).to(dtype)
    path = write(
        tmp_path, {**tensors, "a.rms_norm.weight": norm, "n.weight": norm.clone()},
        use_rms_norm=True, rms_norm_eps=1e-4,
    )  # fmt: skip
    reader = open_checkpoint(path)
    assert (reader.layer_names, reader.tensor_names) == (["a"], ["n.weight"])
    assert torch.equal(reader.tensor("n.weight"), norm)
    layer = reader.layer("a")
    assert torch.equal(layer.trits, trits)
    assert torch.equal(layer.scale, 1 / scale.float())
    assert layer.bias is not None
    assert torch.equal(layer.bias, bias)
    assert layer.rms_norm is not None
    assert torch.equal(layer.rms_norm, norm)
    assert layer.rms_norm_eps == 1e-4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("packed", [True, False])
def test_autobitlinear_multiplies(
    tmp_path: Path, outputs: int, inputs: int, dtype: torch.dtype, packed: bool
) -> None:
    trits = random_trits(outputs, inputs)
    scale = torch.tensor([0.37], dtype=dtype)
    bias = torch.randn(outputs).to(dtype)
    weight = numpy_pack(trits) if packed else trits.to(dtype)
    path = write(
        tmp_path, {"a.b.weight": weight, "a.b.weight_scale": scale, "a.b.bias": bias},
        linear_class="autobitlinear", quantization_mode="offline",
    )  # fmt: skip
    layer = open_checkpoint(path / "model.safetensors").layer("a.b")
    assert torch.equal(layer.trits, trits)
    assert torch.equal(layer.scale, scale.float())
    assert layer.bias is not None
    assert torch.equal(layer.bias, bias.float() * scale.float())  # which the layer scales too


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_online_weights_have_their_absmean(
    tmp_path: Path, outputs: int, inputs: int, dtype: torch.dtype
) -> None:
    weight = torch.randn(outputs, inputs).to(dtype)
    path = write(
        tmp_path, {"a.weight": weight, "e.weight": weight.clone()},
        linear_class="autobitlinear", quantization_mode="online",
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="Pass linears"):
        open_checkpoint(path)
    reader = open_checkpoint(path, linears=["a"])
    assert reader.tensor_names == ["e.weight"]
    layer = reader.layer("a")
    wide = weight.numpy(force=True) if dtype != torch.bfloat16 else weight.float().numpy()
    mean = np.float32(max(np.abs(wide.astype(np.float64)).mean(), 1e-5))
    assert layer.scale.item() == pytest.approx(mean, rel=1e-7)
    assert np.array_equal(layer.trits.numpy(), np.clip(np.rint(wide / mean), -1, 1))
    trits, scale = AbsMeanQuantizer()(weight)
    assert torch.equal(layer.trits, trits)
    assert torch.equal(layer.scale, scale.float())


@pytest.mark.parametrize("outputs", [4, 5, 7, 64, 66, 68])
def test_packed_weights_are_transformers(tmp_path: Path, outputs: int) -> None:
    bitnet = pytest.importorskip("transformers.integrations.bitnet")
    packed = bitnet.pack_weights(random_trits(outputs, 130))
    bias = torch.zeros(outputs)  # which tells the number of outputs
    path = write(tmp_path, {"a.weight": packed, "a.weight_scale": torch.ones(1), "a.bias": bias})
    with torch.compiler.set_stance("force_eager"):
        theirs = bitnet.unpack_weights(packed, torch.float32)[:outputs]
    assert torch.equal(open_checkpoint(path).layer("a").trits.float(), theirs)
    assert torch.equal(theirs, random_trits(outputs, 130).float())


def test_cropped_tails_are_told_or_refused(tmp_path: Path) -> None:
    trits = random_trits(6, 9)
    path = write(tmp_path, {"a.weight": numpy_pack(trits), "a.weight_scale": torch.ones(1)})
    reader = open_checkpoint(path)
    with pytest.raises(CheckpointError, match="may be padding"):
        reader.layer("a")
    assert torch.equal(reader.layer("a", 6).trits, trits)
    for wrong in (4, 9):
        with pytest.raises(CheckpointError, match=f"do not hold {wrong} outputs"):
            reader.layer("a", wrong)


BITNET = {"a.weight": torch.full((1, 8), 0x55, dtype=torch.uint8), "a.weight_scale": torch.ones(1)}
ONLINE = {"linear_class": "autobitlinear", "quantization_mode": "online"}
OFFLINE = {"linear_class": "autobitlinear"}


@pytest.mark.parametrize(
    ("change", "options", "tensor", "words"),
    [
        ({"a.weight": torch.full((1, 8), 0x5D, dtype=torch.uint8)}, {}, "a.weight", "code 3"),
        ({"a.weight": torch.ones(4, 8)}, {}, "a.weight", "F32"),
        ({"a.weight": torch.ones(8, dtype=torch.uint8)}, {}, "a.weight", "matrix"),
        ({"a.weight": torch.ones(0, 8, dtype=torch.uint8)}, {}, "a.weight", "matrix"),
        ({"a.weight": torch.full((4, 8), 0.5)}, OFFLINE, "a.weight", "0.5 at index 0 is no trit"),
        ({"a.weight": torch.full((4, 8), torch.nan)}, OFFLINE, "a.weight", "is no trit"),
        ({"a.weight": torch.full((4, 8), 2.0)}, OFFLINE, "a.weight", "is no trit"),
        ({"a.weight": torch.full((4, 8), -128.0)}, OFFLINE, "a.weight", "-128.0 at index 0 is no"),
        ({"a.weight": torch.full((4, 8), torch.inf)}, ONLINE, "a.weight", "finite"),
        ({"a.weight": None}, {}, "a.weight", "missing"),
        ({"a.weight_scale": None}, {}, "a.weight", "no weight_scale"),
        ({"a.weight_scale": torch.zeros(1)}, {}, "a.weight_scale", "above 0"),
        ({"a.weight_scale": torch.tensor([torch.nan])}, {}, "a.weight_scale", "above 0"),
        ({"a.weight_scale": -torch.ones(1)}, OFFLINE, "a.weight_scale", "above 0"),
        ({"a.weight_scale": torch.ones(4)}, {}, "a.weight_scale", "one scale"),
        ({"a.weight_scale": torch.ones(1, dtype=torch.int32)}, {}, "a.weight_scale", "I32"),
        ({"a.bias": torch.ones(1, 4)}, {}, "a.bias", "shape"),
        ({"a.rms_norm.weight": torch.ones(8)}, {}, "a.rms_norm.weight", "use_rms_norm"),
        ({}, {"use_rms_norm": True}, "a.rms_norm.weight", "missing"),
        ({"a.rms_norm.weight": torch.ones(7)}, {"use_rms_norm": True}, "a.rms_norm.weight", "shape"),
        ({}, {"linear_class": "other"}, None, "linear_class is 'other'"),
        ({}, {"quantization_mode": 1}, None, "quantization_mode is 1"),
        ({}, {"use_rms_norm": "yes"}, None, "use_rms_norm is 'yes'"),
        ({}, {"use_rms_norm": True, "rms_norm_eps": None}, None, "rms_norm_eps is None"),
        ({}, {"modules_to_not_convert": "lm_head"}, None, "modules_to_not_convert is 'lm_head'"),
        ({}, {"quant_method": "gptq"}, None, "'gptq'"),
        ({}, {"quant_method": None}, None, "None"),
    ],
)  # fmt: skip
def test_bitnet_refusals_name_the_tensor(
    tmp_path: Path, change: dict[str, Any], options: dict[str, Any], tensor: str | None, words: str
) -> None:
    tensors = {name: value for name, value in {**BITNET, **change}.items() if value is not None}
    path = write(tmp_path, tensors, **options)
    online = options.get("quantization_mode") == "online"
    with pytest.raises(CheckpointError, match=words) as caught:
        list(open_checkpoint(path, linears=["a"] if online else None).layers())
    assert caught.value.tensor == tensor
    assert str(path) in caught.value.file
    if words == "code 3":
        assert caught.value.offset == 0


def test_shards_and_their_index(tmp_path: Path) -> None:
    trits = random_trits(8, 9)
    save_file({"a.weight": numpy_pack(trits)}, tmp_path / "x.safetensors")
    save_file({"a.weight_scale": torch.ones(1)}, tmp_path / "y.safetensors")
    config = {"quantization_config": {"quant_method": "bitnet"}}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def index(**places: str) -> None:
        weight_map = {name.replace("__", "."): file for name, file in places.items()}
        text = json.dumps({"weight_map": weight_map})
        (tmp_path / "model.safetensors.index.json").write_text(text)

    with pytest.raises(CheckpointError, match="2 safetensors files"):
        open_checkpoint(tmp_path)
    index(a__weight="x.safetensors", a__weight_scale="y.safetensors")
    assert torch.equal(open_checkpoint(tmp_path).layer("a").trits, trits)
    index(a__weight="x.safetensors", a__weight_scale="x.safetensors")
    with pytest.raises(CheckpointError, match="it is not there") as caught:
        open_checkpoint(tmp_path)
    assert caught.value.tensor == "a.weight_scale"
    index(a__weight="../x.safetensors")
    with pytest.raises(CheckpointError, match="out of the folder"):
        open_checkpoint(tmp_path)
    save_file({"a.weight": numpy_pack(trits)}, tmp_path / "y.safetensors")
    index(a__weight="x.safetensors", other="y.safetensors")
    with pytest.raises(CheckpointError, match=r"is in 'x\.safetensors' too"):
        open_checkpoint(tmp_path)
    for text in ("[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 100_000):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            open_checkpoint(tmp_path)


def test_paths_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x")
    (tmp_path / "a.safetensors").write_bytes(b"x")
    (tmp_path / "a.gguf").write_bytes(b"x")
    (tmp_path / "b.gguf").write_bytes(b"")
    for name in ("none", "a.bin", "a.safetensors", "a.gguf", "b.gguf"):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(tmp_path / name)
        assert caught.value.file == str(tmp_path / name)


# --- our own --------------------------------------------------------------------------------------


def write_own(folder: Path, layers: dict[str, TFMBSPackedLinear], **entries: Any) -> Path:
    tensors, named = {}, {}
    for name, layer in layers.items():
        tensors.update({f"{name}.{key}": value for key, value in layer.state_dict().items()})
        named[name] = {"in_features": layer.in_features, "group_size": layer.group_size,
                       "activation": layer.activation, **entries}  # fmt: skip
    save_file(tensors, folder / "model.safetensors")
    config = {"quant_method": "tfmbs", "version": 1, "layers": named}
    (folder / "config.json").write_text(json.dumps({"quantization_config": config}))
    return folder


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("scales", ["tensor", "output", "group"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_own_state_dicts(
    tmp_path: Path, outputs: int, inputs: int, scales: str, dtype: torch.dtype
) -> None:
    trits = random_trits(outputs, inputs)
    shape = {"tensor": (1,), "output": (outputs,), "group": (outputs, -(-inputs // 64))}[scales]
    scale, bias = torch.rand(shape), torch.randn(outputs, dtype=dtype)
    group = 64 if scales == "group" else None
    layer = TFMBSPackedLinear.from_trits(trits, scale, bias, group_size=group, activation="int8")
    path = write_own(tmp_path, {"x.y": layer})
    found = open_checkpoint(path).layer("x.y")
    digits = layer.packed.numpy()[:, :, None] // 3 ** np.arange(5) % 3
    by_hand = np.array([0, 1, -1])[digits].reshape(outputs, -1)[:, :inputs]
    assert np.array_equal(found.trits.numpy(), by_hand)
    assert torch.equal(found.trits, trits)
    assert torch.equal(found.scale, scale)
    assert found.group_size == group
    assert found.bias is not None
    assert torch.equal(found.bias, bias)
    assert torch.equal(found.values(), layer.dequantized_weight())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"in_features": 0}, "in_features 0"),
        ({"in_features": 16}, "rows of 4"),
        ({"in_features": 11}, "row 0 has weights beyond input 11"),
        ({"in_features": "12"}, "in_features '12'"),
        ({"group_size": 7}, "group_size 7"),
        ({"group_size": 32}, "F32 of shape"),
        ({"activation": "fp4"}, "activation 'fp4'"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps 'x'"),
        ({"rms_norm_eps": 1e-6}, "missing"),
    ],
)
def test_own_refusals(tmp_path: Path, entry: dict[str, Any], words: str) -> None:
    layer = TFMBSPackedLinear.from_trits(torch.ones(4, 12), torch.rand(4))
    path = write_own(tmp_path, {"a": layer}, **entry)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path).layer("a")


def test_own_bytes_that_are_no_code(tmp_path: Path) -> None:
    layer = TFMBSPackedLinear.from_trits(torch.ones(4, 12), torch.rand(4))
    path = write_own(tmp_path, {"a": layer})
    packed = layer.packed
    packed[2, 1] = 243
    save_file({"a.packed": packed, "a.scale": layer.scale}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match="no PT-5 code") as caught:
        open_checkpoint(path).layer("a")
    assert (caught.value.tensor, caught.value.offset) == ("a.packed", 7)


# --- GGUF -----------------------------------------------------------------------------------------

TQ = {"tq1_0": gguf.GGMLQuantizationType.TQ1_0, "tq2_0": gguf.GGMLQuantizationType.TQ2_0}


def write_gguf(
    path: Path,
    tensors: dict[str, tuple[np.ndarray[Any, Any], int | None]],
    metadata: dict[str, int] | None = None,
) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in (metadata or {}).items():
        writer.add_uint32(key, value)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", TQ)
@pytest.mark.parametrize(("outputs", "inputs"), [(5, 256), (1, 768), (67, 512)])
@pytest.mark.parametrize("scales", ["tensor", "output", "block", "zeros"])
def test_gguf_blocks(tmp_path: Path, kind: str, outputs: int, inputs: int, scales: str) -> None:
    blocks = inputs // 256
    shape = {"tensor": (1, 1), "output": (outputs, 1), "block": (outputs, blocks), "zeros": (1, 1)}
    scale = (torch.rand(shape[scales]) + 0.1).half().float()
    trits = random_trits(outputs, inputs)
    trits[: outputs // 2, :256] = 0  # blocks without weights have no scale of their own
    if scales == "zeros":
        trits.zero_()
    values = trits * scale.expand(outputs, blocks).repeat_interleave(256, dim=1)
    data = gguf.quants.quantize(values.numpy(), TQ[kind])
    bias = np.arange(outputs, dtype=np.float16 if outputs == 5 else np.float32)
    path = write_gguf(
        tmp_path / "m.gguf",
        {
            "a.weight": (data, TQ[kind]),
            "a.bias": (bias, None),
            "n.weight": (np.float16([1, 2]), None),
        },
    )
    reader = open_checkpoint(path)
    assert (reader.layer_names, reader.tensor_names) == (["a"], ["n.weight"])
    assert torch.equal(reader.tensor("n.weight"), torch.tensor([1, 2], dtype=torch.float16))
    layer = reader.layer("a")
    theirs = gguf.quants.dequantize(gguf.GGUFReader(path).tensors[0].data, TQ[kind])
    assert np.array_equal(layer.values().numpy(), theirs)
    assert torch.equal(layer.trits, trits)
    assert layer.bias is not None
    assert torch.equal(layer.bias, torch.from_numpy(bias))
    several = {"block": blocks > 1 and outputs > 0, "output": False}.get(scales, False)
    assert layer.group_size == (256 if several else None)
    if scales in ("tensor", "zeros"):
        assert layer.scale.shape == (1,)
    x = torch.randn(2, inputs)
    exact = torch.nn.functional.linear(x.double(), layer.values().double(), layer.bias.double())
    mine = layer.packed_layer()(x)
    step = x.abs().amax() / 127 * inputs * layer.scale.max()  # of the activations
    assert torch.allclose(mine.double(), exact, atol=float(step))


def test_a_layers_own_scale_multiplies(tmp_path: Path) -> None:
    trits = random_trits(3, 256)
    data = gguf.quants.quantize(trits.float().numpy(), TQ["tq2_0"])
    path = write_gguf(
        tmp_path / "m.gguf",
        {"a.weight": (data, TQ["tq2_0"]), "a.scale": (np.float32([0.3]), None)},
    )
    layer = open_checkpoint(path).layer("a")
    assert torch.equal(layer.scale, torch.tensor([0.3]))


@pytest.mark.parametrize("kind", TQ)
def test_blocks_with_scale_zero_are_zero(tmp_path: Path, kind: str) -> None:
    data = gguf.quants.quantize(random_trits(2, 256).float().numpy(), TQ[kind])
    data[0, -2:] = 0
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": (data, TQ[kind])})
    layer = open_checkpoint(path).layer("a")
    assert np.array_equal(layer.values().numpy(), gguf.quants.dequantize(data, TQ[kind]))
    assert (layer.group_size, layer.scale.tolist()) == (None, [1.0])


@pytest.mark.parametrize(
    ("kind", "at", "byte", "words"),
    [
        ("tq2_0", 66 + 3, 0x0C, "code 3"),
        ("tq2_0", 65, 0x7C, "finite"),
        ("tq1_0", 54 + 3, 1, "no code of TQ1_0"),
        ("tq1_0", 48, 2, "no code of TQ1_0"),
    ],
)
def test_gguf_codes_that_are_no_trit(
    tmp_path: Path, kind: str, at: int, byte: int, words: str
) -> None:
    data = gguf.quants.quantize(random_trits(2, 256).float().numpy(), TQ[kind])
    data.reshape(-1)[at] = byte
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": (data, TQ[kind])})
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(path).layer("a")
    error = caught.value
    assert (error.file, error.tensor) == (str(path), "a.weight")
    assert error.offset == (64 if words == "finite" else at)


@pytest.mark.parametrize(
    ("number", "name"),
    [(142, "PQ2_0"), (143, "PTQ1_0"), (99, "99")],
)
def test_types_that_are_not_read_are_named(tmp_path: Path, number: int, name: str) -> None:
    path = write_gguf(tmp_path / "m.gguf", {"abcdef": (np.zeros(256, np.float32), None)})
    content = bytearray(path.read_bytes())
    at = content.index(b"abcdef") + 6 + 4 + 8
    content[at : at + 4] = number.to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name) as caught:
        open_checkpoint(path)
    assert caught.value.tensor == "abcdef"
    assert "TQ2_0" in caught.value.remedy


def test_rotated_weights_are_refused(tmp_path: Path) -> None:
    data = gguf.quants.quantize(random_trits(2, 256).float().numpy(), TQ["tq2_0"])
    path = write_gguf(
        tmp_path / "m.gguf", {"a.weight": (data, TQ["tq2_0"])}, {"prism.hadamard.block_size": 128}
    )
    with pytest.raises(CheckpointError, match=r"prism\.hadamard\.block_size"):
        open_checkpoint(path)


def test_experts_are_refused(tmp_path: Path) -> None:
    data = gguf.quants.quantize(random_trits(4, 256).float().numpy(), TQ["tq2_0"])
    path = write_gguf(tmp_path / "m.gguf", {"a.weight": (data.reshape(2, 2, -1), TQ["tq2_0"])})
    with pytest.raises(CheckpointError, match="no matrix") as caught:
        open_checkpoint(path)
    assert caught.value.tensor == "a.weight"


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda c: c[:-8], "passes the end"),
        (lambda c: c[:100], "pass the end"),
        (lambda c: c.replace(b"n.weight", b"a.weight"), "is there twice"),
        (lambda c: c.replace(b"prism.keya", b"prism.keyb"), "is there twice"),
        (lambda c: c[:8] + b"\xff" * 8 + c[16:], "pass the end"),
        (lambda c: c[:16] + b"\xff" * 8 + c[24:], "pass the end"),
        (lambda c: c[:4] + b"\0\0\0\3" + c[8:], "big-endian"),
    ],
)
def test_damaged_headers(tmp_path: Path, damage: Damage, words: str) -> None:
    data = gguf.quants.quantize(random_trits(2, 256).float().numpy(), TQ["tq2_0"])
    path = write_gguf(
        tmp_path / "m.gguf",
        {"a.weight": (data, TQ["tq2_0"]), "n.weight": (np.zeros(8, np.float32), None)},
        {"prism.keya": 3, "prism.keyb": 4},
    )
    open_checkpoint(path).layer("a")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=words) as caught:
        open_checkpoint(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("change", ["overlap", "unaligned"])
def test_tensors_share_no_bytes(tmp_path: Path, change: str) -> None:
    one, two = np.zeros(8, np.float32), np.ones(8, np.float32)
    path = write_gguf(tmp_path / "m.gguf", {"first": (one, None), "second": (two, None)})
    content = bytearray(path.read_bytes())
    at = content.index(b"second") + 6 + 4 + 8 + 4
    assert int.from_bytes(content[at : at + 8], "little") == 32
    content[at] = 0 if change == "overlap" else 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"overlaps|no multiple") as caught:
        open_checkpoint(path)
    assert caught.value.tensor in ("first", "second")
