"""GGUF Q2_0 and I2_S, against files written by hand (tests/python/support/gguf_by_hand.py)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_by_hand import F32, Tensor, bf16, f32, i2_s, q2_0, write
from pytfmbs import ArgumentError, CheckpointError, TFMBSPackedLinear
from pytfmbs.checkpoints import load_into, open_checkpoint
from safetensors.torch import save_file
from torch import nn

pytest.importorskip("gguf")

SHAPES = [(5, 128), (1, 384), (67, 256), (66, 640)]


def random_trits(outputs: int, inputs: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(inputs).integers(-1, 2, (outputs, inputs))


# --- Q2_0 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [64, 128])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("scales", ["tensor", "output", "block", "zeros"])
def test_q2_0_blocks(tmp_path: Path, group: int, outputs: int, inputs: int, scales: str) -> None:
    blocks = inputs // group
    shape = {"tensor": (1, 1), "output": (outputs, 1), "block": (outputs, blocks), "zeros": (1, 1)}
    scale = np.random.default_rng(1).uniform(0.1, 1, shape[scales]).astype(np.float16)
    scale = np.broadcast_to(scale, (outputs, blocks))
    trits = random_trits(outputs, inputs)
    if scales == "zeros":
        trits[:] = 0
    bias = np.arange(outputs, dtype=np.float32)
    path = write(
        tmp_path / "m.gguf",
        [
            q2_0("a.weight", trits, scale, group),
            f32("a.bias", bias),
            bf16("n.weight", [1, 2.5]),
            q2_0("z.weight", np.zeros((16, 256), int), np.ones((16, 256 // group)), group),
        ],
    )
    reader = open_checkpoint(path)
    assert (reader.layer_names, reader.tensor_names) == (["a", "z"], ["n.weight"])
    assert torch.equal(reader.tensor("n.weight"), torch.tensor([1, 2.5], dtype=torch.bfloat16))
    layer = reader.layer("a")
    assert np.array_equal(layer.trits.numpy(), trits)
    assert layer.bias is not None
    assert np.array_equal(layer.bias.numpy(), bias)
    expected = trits * np.repeat(scale.astype(np.float32), group, axis=1)
    assert np.array_equal(layer.values().numpy(), expected)
    assert np.array_equal(reader.tensor("a.weight").numpy(), expected)
    several = scales == "block" and blocks > 1
    assert layer.group_size == (group if several else None)
    assert layer.scale.shape == ((outputs, blocks) if several else layer.scale.shape)
    if scales in ("tensor", "zeros"):
        assert layer.scale.shape == (1,)
    packed = layer.packed_layer()
    assert torch.equal(packed.dequantized_weight(), layer.values())


@pytest.mark.parametrize("group", [64, 128])
def test_plus_two_is_refused_with_its_place(tmp_path: Path, group: int) -> None:
    levels = random_trits(7, 384)
    levels[5, 130] = 2
    scales = np.ones((7, 384 // group))
    path = write(tmp_path / "m.gguf", [q2_0("a.weight", levels, scales, group)])  # 2688 weights
    reader = open_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"holds \+2, which is no trit; output 5, inputs 128"):
        reader.layer("a")
    with pytest.raises(CheckpointError) as caught:
        reader.layer("a")
    error = caught.value
    block = (5 * 384 + 130) // group
    assert (error.file, error.tensor) == (str(path), "a.weight")
    assert error.offset == block * (group // 4 + 2) + 2 + (5 * 384 + 130) % group // 4
    assert np.array_equal(reader.tensor("a.weight").numpy(), levels)  # as floats it is well


def test_infinite_scales_of_q2_0_are_refused(tmp_path: Path) -> None:
    scales = np.ones((3, 2))
    scales[1, 1] = np.inf
    made = q2_0("a.weight", random_trits(3, 128), scales)
    path = write(tmp_path / "m.gguf", [made], pads_last=False)
    with pytest.raises(CheckpointError, match=r"not finite; output 1, inputs 64 to 127") as caught:
        open_checkpoint(path).layer("a")
    assert caught.value.offset == 3 * 18


@pytest.mark.parametrize("pads_last", [True, False])
@pytest.mark.parametrize("group", [64, 128])
def test_groups_are_told_apart_by_size(tmp_path: Path, group: int, pads_last: bool) -> None:
    # 2048 weights in groups of 64 and 128: 576 and 544 bytes, a whole alignment apart.
    tensors = [
        q2_0(f"{name}.weight", random_trits(8, 256), np.ones((8, 256 // group)), group)
        for name in "ab"
    ]
    path = write(tmp_path / "m.gguf", tensors, pads_last=pads_last)
    assert [layer.trits.shape for layer in open_checkpoint(path).layers()] == [(8, 256)] * 2


def test_q2_0_of_undecided_size_is_refused(tmp_path: Path) -> None:
    # 128 weights: 36 or 34 bytes, both 64 with padding.
    path = write(tmp_path / "m.gguf", [q2_0("a.weight", random_trits(1, 128), np.ones((1, 2)))])
    with pytest.raises(CheckpointError, match="groups of 64 and of 128") as caught:
        open_checkpoint(path)
    assert caught.value.tensor == "a.weight"
    unpadded = [q2_0("a.weight", random_trits(1, 128), np.ones((1, 2)))]
    path = write(tmp_path / "m.gguf", unpadded, pads_last=False)  # 36 bytes, exactly
    assert np.array_equal(open_checkpoint(path).layer("a").trits.numpy(), random_trits(1, 128))


@pytest.mark.parametrize("case", ["short", "long", "mixed", "rows"])
def test_q2_0_of_another_size_is_refused(tmp_path: Path, case: str) -> None:
    one = q2_0("a.weight", random_trits(8, 256), np.ones((8, 4)))
    two = q2_0("b.weight", random_trits(8, 256), np.ones((8, 2)), group=128)
    tensors = {
        "short": [one._replace(data=one.data[:-80])],
        "long": [one._replace(data=one.data + bytes(80))],
        "mixed": [one, two],
        "rows": [one._replace(shape=(64, 32))],
    }[case]
    path = write(tmp_path / "m.gguf", tensors)
    with pytest.raises(CheckpointError, match="fit neither") as caught:
        open_checkpoint(path)
    assert caught.value.tensor == "a.weight"


def test_ternary_embeddings_become_floats(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.up = nn.Embedding(9, 128), nn.Linear(128, 6, bias=False)

    table, trits = random_trits(9, 128) + (random_trits(9, 128) == 1), random_trits(6, 128)
    path = write(
        tmp_path / "m.gguf",
        [
            q2_0("embed.weight", table, np.full((9, 2), 0.5)),
            q2_0("up.weight", trits, np.ones((6, 2))),
        ],
    )
    model = load_into(Model(), path, names=lambda name: name)
    assert np.array_equal(model.embed.weight.detach().numpy(), table * 0.5)
    assert isinstance(model.up, TFMBSPackedLinear)
    assert np.array_equal(model.up.quantized_weight()[0].numpy(), trits)


# --- I2_S -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_i2_s_is_read_where_its_block_is_told(
    tmp_path: Path, block: int, outputs: int, inputs: int
) -> None:
    trits, bias = random_trits(outputs, inputs), np.arange(outputs, dtype=np.float32)
    floats = bf16 if outputs == 5 else f32
    path = write(
        tmp_path / "m.gguf",
        [i2_s("a.weight", trits, 0.37, block, tail=b"\xaa" * 28), floats("a.bias", bias)],
    )
    layer = open_checkpoint(path, i2s_block=block).layer("a")
    assert np.array_equal(layer.trits.numpy(), trits)
    assert torch.equal(layer.scale, torch.tensor([0.37]))
    assert layer.group_size is None
    assert layer.bias is not None
    assert np.array_equal(layer.bias.float().numpy(), bias)
    model = nn.ModuleDict({"a": nn.Linear(inputs, outputs)})
    load_into(model, path, names=lambda name: name, i2s_block=block)
    assert np.array_equal(model["a"].quantized_weight()[0].numpy(), trits)
    with pytest.raises(CheckpointError, match=r"128 weights .* or 64") as caught:
        open_checkpoint(path)
    assert caught.value.tensor == "a.weight"
    assert "i2s_block=128" in caught.value.remedy


def test_i2s_block_is_found_where_the_file_is_certain(tmp_path: Path) -> None:
    # 3 · 192 weights end in 64, which blocks of 128 leave out.
    odd = random_trits(3, 192)
    path = write(tmp_path / "m.gguf", [i2_s("a.weight", odd, 2, 64)])
    assert np.array_equal(open_checkpoint(path).layer("a").trits.numpy(), odd)
    path = write(tmp_path / "n.gguf", [i2_s("a.weight", odd, 2, 128)])
    with pytest.raises(CheckpointError, match="I2_S"):
        open_checkpoint(path)
    with pytest.raises(CheckpointError, match="rows of 192 are no blocks of 128"):
        open_checkpoint(path, i2s_block=128)
    # The order makes no difference to weights that are equal.
    for value in (-1, 0, 1):
        equal = np.full((5, 256), value)
        path = write(tmp_path / "o.gguf", [i2_s("a.weight", equal, 2, 64)])
        assert np.array_equal(open_checkpoint(path).layer("a").trits.numpy(), equal)
    mixed = [i2_s("a.weight", equal, 2, 64), i2_s("b.weight", random_trits(1, 128), 2, 64)]
    path = write(tmp_path / "p.gguf", mixed)
    with pytest.raises(CheckpointError, match="I2_S") as caught:
        open_checkpoint(path)
    assert caught.value.tensor == "b.weight"


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_scales_of_i2_s(tmp_path: Path, scale: float) -> None:
    path = write(tmp_path / "m.gguf", [i2_s("a.weight", random_trits(3, 128), scale, 128)])
    with pytest.raises(CheckpointError, match="above 0 and finite") as caught:
        open_checkpoint(path, i2s_block=128).layer("a")
    assert caught.value.offset == 96
    path = write(tmp_path / "m.gguf", [i2_s("a.weight", np.zeros((3, 128), int), scale, 128)])
    assert open_checkpoint(path, i2s_block=128).layer("a").scale.tolist() == [1]


def test_code_three_of_i2_s_is_refused(tmp_path: Path) -> None:
    tensor = i2_s("a.weight", random_trits(3, 128), 1, 128)
    data = bytearray(tensor.data)
    data[70] |= 0xC0
    path = write(tmp_path / "m.gguf", [tensor._replace(data=bytes(data))])
    with pytest.raises(CheckpointError, match="code 3") as caught:
        open_checkpoint(path, i2s_block=128).layer("a")
    assert caught.value.offset == 70


def test_other_blocks_do_not_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", [i2_s("a.weight", random_trits(3, 128), 1, 128)])
    with pytest.raises(ArgumentError, match="i2s_block is 32"):
        open_checkpoint(path, i2s_block=32)
    with pytest.raises(ArgumentError, match="i2s_block is 32"):
        load_into(nn.Linear(2, 2), path, i2s_block=32)


@pytest.mark.parametrize("tensor", [i2_s, q2_0])
def test_weights_of_no_linear_layer(tmp_path: Path, tensor: Any) -> None:
    made = tensor(
        "a.weight", random_trits(16, 128), *((1, 128) if tensor is i2_s else (np.ones((16, 2)),))
    )
    for other in (made._replace(name="a.other"), made._replace(shape=(4, 4, 128))):
        path = write(tmp_path / "m.gguf", [other, Tensor("b", (1,), F32, bytes(4))])
        with pytest.raises(CheckpointError, match="no matrix") as caught:
            open_checkpoint(path, i2s_block=128)
        assert caught.value.tensor == other.name


@pytest.mark.parametrize("kind", ["gguf", "bitnet"])
def test_forgotten_pages_are_read_again(tmp_path: Path, kind: str) -> None:
    values = np.arange(1 << 20, dtype=np.float32).reshape(1024, 1024)
    if kind == "gguf":
        path = write(tmp_path / "m.gguf", [f32("n.weight", values)])
    else:
        path = tmp_path
        save_file({"n.weight": torch.from_numpy(values)}, path / "model.safetensors")
        (path / "config.json").write_text('{"quantization_config": {"quant_method": "bitnet"}}')
    reader = open_checkpoint(path)
    held = reader.tensor("n.weight")
    assert np.array_equal(held.numpy(), values)
    before = mapped_bytes()
    reader.forget()
    if sys.platform == "linux":
        assert before - mapped_bytes() > 3 << 20
    assert np.array_equal(held.numpy(), values)


def mapped_bytes() -> int:
    """Resident pages of mapped files."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssFile:")[2].split()[0]) << 10
