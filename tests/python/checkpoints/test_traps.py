"""What looks alike in ternary checkpoints and is not. Each is told apart, or refused: never guessed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_by_hand import f32, i2_s, q2_0, write
from pytfmbs import CheckpointError
from pytfmbs.checkpoints import TernaryTensor, load_into, open_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn

gguf = pytest.importorskip("gguf")

TRITS = torch.tensor([[-1, 0, 1, 1], [1, 1, 0, -1], [0, 1, -1, 1], [1, -1, 1, 0]], dtype=torch.int8)
RNG = np.random.default_rng(0)
WIDE = RNG.integers(-1, 2, (16, 256))


def bitnet(
    folder: Path, options: dict[str, Any] | None = None, rows: int = 4, **tensors: Tensor
) -> Path:
    """A BitNet checkpoint with a layer a: weights of the first ``rows`` outputs in strided codes."""
    packed = torch.zeros(-(-rows // 4), 4, dtype=torch.uint8)
    for output in range(rows):
        code = (TRITS[output % 4] + 1).to(torch.uint8)
        packed[output % packed.shape[0]] |= code << 2 * (output // packed.shape[0])
    named = {"a.weight": packed, "a.weight_scale": torch.tensor([4.0])}
    named |= {name.replace("__", "."): value for name, value in tensors.items()}
    save_file(named, folder / "model.safetensors")
    quantization = {"quant_method": "bitnet", **(options or {})}
    (folder / "config.json").write_text(json.dumps({"quantization_config": quantization}))
    return folder


def layer(path: Path, outputs: int | None = None, **options: Any) -> TernaryTensor:
    return open_checkpoint(path, **options).layer("a", outputs)


def scale_divides(folder: Path) -> None:
    assert layer(bitnet(folder)).scale.tolist() == [0.25]


def scale_multiplies(folder: Path) -> None:
    path = bitnet(folder, {"linear_class": "autobitlinear"}, a__bias=torch.ones(4))
    assert layer(path).scale.tolist() == [4]
    assert layer(path).bias.tolist() == [4] * 4  # type: ignore[union-attr]


def linear_class_is_bitlinear_by_default(folder: Path) -> None:
    assert layer(bitnet(folder, {"quantization_mode": "offline"})).scale.tolist() == [0.25]


def rows_are_strided(folder: Path) -> None:
    # 8 outputs in 2 packed rows: output i · 2 + r is in bits 2i of row r.
    assert torch.equal(layer(bitnet(folder, rows=8)).trits, torch.cat([TRITS, TRITS]))


def tail_rows_are_cropped(folder: Path) -> None:
    path = bitnet(folder, rows=6)
    assert torch.equal(layer(path, 6).trits, torch.cat([TRITS, TRITS])[:6])
    refused("may be padding", lambda: layer(path))


def online_weights_are_float(folder: Path) -> None:
    options = {"linear_class": "autobitlinear", "quantization_mode": "online"}
    weight = torch.tensor([[0.3, -0.1, 0.02, 0.5]])
    path = bitnet(folder, options, a__weight=weight)
    refused("quantizes online", lambda: layer(path))
    found = layer(path, linears=["a"])
    assert found.trits.tolist() == [[1, 0, 0, 1]]
    assert found.scale.item() == pytest.approx(0.23)


def float_weights_under_offline(folder: Path) -> None:
    options = {"linear_class": "autobitlinear", "quantization_mode": "offline"}
    path = bitnet(folder, options, a__weight=torch.full((4, 4), 0.3))
    refused("is no trit", lambda: layer(path))


def configuration_stripped_from_online_weights(folder: Path) -> None:
    bitnet(folder, a__weight=torch.rand(4, 4))
    (folder / "config.json").write_text('{"model_type": "bitnet", "is_bitnet_config": true}')
    refused("no quantization_config", lambda: open_checkpoint(folder))


def norm_belongs_to_the_layer(folder: Path) -> None:
    options = {"use_rms_norm": True, "rms_norm_eps": 0.5}
    path = bitnet(folder, options, a__rms_norm__weight=torch.full((4,), 2.0))
    packed = load_into(nn.ModuleDict({"a": nn.Linear(4, 4, bias=False)}), path)["a"]
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    normed = 2 * x / (x.pow(2).mean() + 0.5).sqrt()
    step = normed.abs().max() / 127
    expected = (normed / step).round() @ TRITS.float().T * step * 0.25
    assert torch.allclose(packed(x), expected, rtol=1e-5)
    refused("use_rms_norm", lambda: layer(bitnet(folder, a__rms_norm__weight=torch.ones(4))))


def head_stays_as_it_is(folder: Path) -> None:
    options = {"modules_to_not_convert": ["lm_head"]}
    path = bitnet(folder, options, lm_head__weight=torch.rand(3, 4))
    model = nn.ModuleDict(
        {"a": nn.Linear(4, 4, bias=False), "lm_head": nn.Linear(4, 3, bias=False)}
    )
    assert type(load_into(model, path)["lm_head"]) is nn.Linear


def packed_layer_that_must_not_be_converted(folder: Path) -> None:
    path = bitnet(folder, {"modules_to_not_convert": ["a"]})
    refused("modules_to_not_convert names it", lambda: layer(path))


def tq_blocks_of_zeros_have_another_scale(folder: Path) -> None:
    values = np.float32(WIDE) * 0.5
    values[0] = 0
    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType.TQ2_0)
    data[0, -2:] = [0, 0x3C]  # 1.0
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    writer.add_tensor("a.weight", data, raw_dtype=gguf.GGMLQuantizationType.TQ2_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = layer(folder / "m.gguf")
    assert (found.scale.tolist(), found.group_size) == ([0.5], None)
    assert np.array_equal(found.values().numpy(), values)


def q2_0_group(group: int) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        scales = RNG.uniform(1, 2, (16, 256 // group)).astype(np.float16)
        found = layer(write(folder / "m.gguf", [q2_0("a.weight", WIDE, scales, group)]))
        assert found.group_size == group
        assert np.array_equal(found.trits.numpy(), WIDE)
        assert np.array_equal(found.scale.numpy(), scales)

    return check


def q2_0_of_either_group(folder: Path) -> None:
    path = write(folder / "m.gguf", [q2_0("a.weight", WIDE[:1], np.ones((1, 4)))])
    refused("fits groups of 64 and of 128", lambda: layer(path))


def q2_0_plus_two(folder: Path) -> None:
    path = write(folder / "m.gguf", [q2_0("a.weight", WIDE + (WIDE == 1), np.ones((16, 4)))])
    refused(r"\+2, which is no trit; output 0, inputs 0 to 63", lambda: layer(path))


def i2_s_block(folder: Path) -> None:
    path = write(folder / "m.gguf", [i2_s("a.weight", WIDE, 2, 64)])
    refused("128 weights .* or 64", lambda: layer(path))
    assert np.array_equal(layer(path, i2s_block=64).trits.numpy(), WIDE)


def rotated_type(number: int, name: str) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        tensor = q2_0("a.weight", WIDE, np.ones((16, 2)), 128)._replace(type=number)
        path = write(folder / "m.gguf", [tensor])
        refused(f"type is {name}: .*rotated", lambda: layer(path))

    return check


def rotation_in_the_metadata(folder: Path) -> None:
    tensors = [q2_0("a.weight", WIDE, np.ones((16, 4)))]
    path = write(folder / "m.gguf", tensors, metadata={"prism.hadamard.block": 128})
    refused(r"prism\.hadamard\.block", lambda: layer(path))


def sub_norms_are_the_models(folder: Path) -> None:
    path = bitnet(folder, attn_sub_norm__weight=torch.ones(4))
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False)})
    refused("the model has no such tensor", lambda: load_into(model, path))


def fp16_overflows_in_relu_squared(folder: Path) -> None:
    # 254 · 254 is beyond fp16, so a BitNet model runs in bf16 or fp32: the layer takes each.
    packed = layer(bitnet(folder)).packed_layer()
    x = torch.tensor([[254.0, -254.0, 254.0, 254.0]])
    for dtype in (torch.float32, torch.bfloat16):
        assert bool(torch.isfinite(packed(x.to(dtype)).relu().square()).all())


def scale_of_a_gguf_layer_of_its_own(folder: Path) -> None:
    tensors = [q2_0("a.weight", WIDE, np.ones((16, 4))), f32("a.scale", [0.3])]
    found = layer(write(folder / "m.gguf", tensors))
    assert torch.equal(found.scale, torch.tensor([0.3]))


def refused(words: str, call: Callable[[], object]) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        call()
    assert caught.value.remedy


TRAPS: dict[str, Callable[[Path], None]] = {
    "bitlinear divides by weight_scale": scale_divides,
    "autobitlinear multiplies by weight_scale, the bias too": scale_multiplies,
    "linear_class is bitlinear where it is not given": linear_class_is_bitlinear_by_default,
    "rows of packed weights are strided": rows_are_strided,
    "tail rows are cropped": tail_rows_are_cropped,
    "online weights have their absmean": online_weights_are_float,
    "float weights in an offline checkpoint": float_weights_under_offline,
    "online weights without their configuration": configuration_stripped_from_online_weights,
    "the norm belongs to the layer": norm_belongs_to_the_layer,
    "lm_head stays as it is": head_stays_as_it_is,
    "a scale in modules_to_not_convert": packed_layer_that_must_not_be_converted,
    "TQ2_0 blocks of zeros have a scale of their own": tq_blocks_of_zeros_have_another_scale,
    "Q2_0 with groups of 64": q2_0_group(64),
    "Q2_0 with groups of 128, under the same type number": q2_0_group(128),
    "Q2_0 of a size that fits both": q2_0_of_either_group,
    "+2 in a Q2_0 layer": q2_0_plus_two,
    "I2_S of an unknown block": i2_s_block,
    "PQ2_0 may be rotated": rotated_type(142, "PQ2_0"),
    "PTQ1_0 may be rotated": rotated_type(143, "PTQ1_0"),
    "a rotation in the metadata": rotation_in_the_metadata,
    "sub-norms of a BitNet model in another model": sub_norms_are_the_models,
    "ReLU² overflows fp16": fp16_overflows_in_relu_squared,
    "a GGUF layer's own scale": scale_of_a_gguf_layer_of_its_own,
}


@pytest.mark.parametrize("trap", TRAPS)
def test_trap(tmp_path: Path, trap: str) -> None:
    TRAPS[trap](tmp_path)
