"""What we write, transformers and the gguf package read; what they write, load_into loads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch
from pytfmbs import CheckpointError, TFMBSLinear, TFMBSPackedLinear
from pytfmbs.checkpoints import (
    TernaryTensor,
    add_gguf_tensor,
    load_into,
    open_checkpoint,
    save,
    ternary_tensor,
)
from pytfmbs.checkpoints.saving import _divisor
from torch import nn

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from transformers import AutoModelForCausalLM, BitNetQuantConfig  # noqa: E402
from transformers.integrations.bitnet import (  # noqa: E402
    AutoBitLinear,
    replace_with_bitnet_linear,
)

Model = Any


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):  # transformers compiles its unpacking
        yield


def small(kind: str = "Llama", hidden: int = 32, **options: Any) -> Model:
    """A random model of a transformers architecture, in fp32."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=67, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=None, **options,
    )  # fmt: skip
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def tokens_of(model: Model, prompt: torch.Tensor) -> list[int]:
    made = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )
    return list(made[0].tolist())


@torch.no_grad()
def check_same(mine: Model, theirs: Model) -> None:
    """Logits within float32's rounding through the layers, and the same greedy tokens."""
    prompt = torch.arange(1, 9).unsqueeze(0)
    ours, expected = mine(prompt).logits, theirs(prompt).logits
    # Rounding of an activation may go another way where its last bit differs: one step of 127.
    assert float((ours - expected).abs().max()) <= 2e-2 * float(expected.abs().max())
    assert float((ours - expected).abs().median()) <= 1e-4 * float(expected.abs().max())
    assert tokens_of(mine, prompt) == tokens_of(theirs, prompt)


def packed_names(model: nn.Module) -> set[str]:
    return {n for n, module in model.named_modules() if isinstance(module, TFMBSPackedLinear)}


# --- from transformers ----------------------------------------------------------------------------


def save_folder(
    folder: Path, model: Model, tensors: dict[str, Any], config: dict[str, Any]
) -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whole = json.loads(model.config.to_json_string(use_diff=False))
    whole["architectures"] = [type(model).__name__]
    whole["quantization_config"] = json.loads(json.dumps(config, default=str))
    whole["quantization_config"]["quant_method"] = "bitnet"
    (folder / "config.json").write_text(json.dumps(whole))


def test_online_layers_are_those_of_transformers(tmp_path: Path) -> None:
    model = small("Llama", tie_word_embeddings=False)
    config = BitNetQuantConfig(linear_class="autobitlinear", quantization_mode="online")
    save_folder(tmp_path, model, dict(model.state_dict()), config.to_dict())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    theirs_names = {n for n, m in theirs.named_modules() if isinstance(m, AutoBitLinear)}
    assert (
        packed_names(load_into(small("Llama", tie_word_embeddings=False), tmp_path)) == theirs_names
    )
    again = load_into(replace_with_bitnet_linear(small("Llama"), ["lm_head"], config), tmp_path)
    assert packed_names(again) == theirs_names  # on the meta device, from their layers


# --- written for transformers and for ourselves ---------------------------------------------------


def frozen(**options: Any) -> Model:
    model = pytfmbs.convert(small(**options), weight_quantizer="absmean", activation="int8")
    return pytfmbs.freeze(model)


@pytest.mark.parametrize("linear_class", ["bitlinear", "autobitlinear", None])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_loads_what_we_write(
    tmp_path: Path, linear_class: str | None, tied: bool
) -> None:
    model = frozen(tie_word_embeddings=tied)
    save(
        model, tmp_path, format="bitnet", linear_class=linear_class,
        round_scales=linear_class == "bitlinear", max_shard_bytes=6_000,
    )  # fmt: skip
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    check_same(model, theirs)
    again = load_into(small(tie_word_embeddings=tied), tmp_path)
    check_same(again, theirs)
    if linear_class != "bitlinear":  # scales that were not rounded
        prompt = torch.arange(9).unsqueeze(0)
        assert torch.equal(again(prompt).logits, model(prompt).logits)


@pytest.mark.parametrize("shard", [5 << 30, 20_000])
@pytest.mark.parametrize("trainable", [False, True])
def test_our_own_round_trip_is_bit_equal(tmp_path: Path, shard: int, trainable: bool) -> None:
    model = frozen(tie_word_embeddings=True)
    save(model, tmp_path, max_shard_bytes=shard)
    again = load_into(small(tie_word_embeddings=True), tmp_path, trainable=trainable)
    kind = TFMBSLinear if trainable else TFMBSPackedLinear
    assert type(again.model.layers[0].mlp.up_proj) is kind
    prompt = torch.arange(9).unsqueeze(0)
    assert torch.equal(again(prompt).logits, model(prompt).logits)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    save(again, tmp_path / "again", max_shard_bytes=shard)
    for name in open_checkpoint(tmp_path).layer_names:
        one, two = (open_checkpoint(p).layer(name) for p in (tmp_path, tmp_path / "again"))
        assert torch.equal(one.trits, two.trits)
        assert torch.equal(one.scale, two.scale)


class Net(nn.Module):
    """Layers of every kind of scale, one of them behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(70, 9), nn.Linear(9, 7, bias=False), nn.Linear(7, 3)
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.b(self.a(x)))


def layers_of_every_kind() -> Net:
    net = Net()
    trits = torch.randint(-1, 2, (9, 70))
    net.a = TFMBSPackedLinear.from_trits(trits, torch.rand(9, 3), torch.randn(9), group_size=32)
    norm = {"rms_norm": torch.rand(9), "rms_norm_eps": 1e-5}
    ternary = TernaryTensor("b", torch.randint(-1, 2, (7, 9)).to(torch.int8), torch.rand(7), **norm)
    net.b = ternary.packed_layer(activation="ternary")
    return net


def test_every_kind_of_layer_comes_back_on_the_meta_device_too(tmp_path: Path) -> None:
    net = layers_of_every_kind()
    save(net, tmp_path)
    x = torch.randn(3, 70)
    for device in ("cpu", "meta"):
        with torch.device(device):
            fresh = Net()
        again = load_into(fresh, tmp_path)
        assert torch.equal(again(x), net(x))
        assert again.count == 3
        assert again.b.activation == "ternary"


class Shared(nn.Module):
    """One layer under two names, beside a float one."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.first = self.second = layer
        self.last = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.second(self.first(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_layer_with_two_names_is_written_once(
    tmp_path: Path, trained: bool, trainable: bool, device: str
) -> None:
    kind: Any = TFMBSLinear if trained else TFMBSPackedLinear
    trits = torch.randint(-1, 2, (8, 8))
    model = Shared(kind.from_trits(trits, 0.5, torch.randn(8), activation="int8"))
    save(model, tmp_path)
    assert set(open_checkpoint(tmp_path).tensor_names) == {"last.weight", "last.bias"}
    with torch.device(device):
        found: Any = Shared(nn.Linear(8, 8))
    load_into(found, tmp_path, trainable=trainable)
    assert found.first is found.second
    x = torch.randn(3, 8)
    assert torch.equal(found(x), model(x))


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    flat = torch.randn(128)
    model = nn.Sequential(
        TFMBSPackedLinear.from_trits(torch.randint(-1, 2, (8, 8)), 0.5),
        nn.Linear(8, 8, bias=False),
        nn.Linear(8, 8, bias=False),
        nn.Linear(8, 8, bias=False),
    )
    model[1].weight = nn.Parameter(flat[:64].view(8, 8))
    model[2].weight = nn.Parameter(flat[:64].view(8, 8))  # the same values
    model[3].weight = nn.Parameter(flat[32:96].view(8, 8))  # some of them
    save(model, tmp_path)
    found = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)))
    load_into(found, tmp_path)
    x = torch.randn(3, 8)
    assert torch.equal(found(x), model(x))


def test_a_nan_weight_stays_nan(tmp_path: Path) -> None:
    model = nn.Sequential(TFMBSLinear(8, 5, weight_quantizer="absmean", activation="int8"))
    with torch.no_grad():
        model[0].weight[2, 3] = torch.nan
    save(model, tmp_path)
    x = torch.randn(3, 8)
    found = load_into(nn.Sequential(nn.Linear(8, 5)), tmp_path)(x)
    assert bool(found[:, 2].isnan().all())
    assert torch.equal(found.isnan(), model(x).isnan())
    assert torch.equal(found.nan_to_num(), model(x).nan_to_num())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.Sequential(nn.Linear(70, 9)), "no linear layer of that name"),
        (
            nn.ModuleDict({"a": nn.Linear(70, 9), "b": nn.Linear(9, 7, bias=False)}),
            "no such tensor",
        ),
    ],
)
def test_models_of_another_architecture(tmp_path: Path, model: nn.Module, words: str) -> None:
    save(layers_of_every_kind(), tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_into(model, tmp_path)
    assert caught.value.tensor is not None


@pytest.mark.parametrize(
    ("name", "module", "words"),
    [
        ("a", nn.Linear(71, 9), "70 inputs"),
        ("a", nn.Linear(70, 10), "9 outputs"),
        ("a", nn.Linear(70, 9, bias=False), "has a bias"),
        ("b", nn.Linear(9, 7), "has no bias"),
        ("a", nn.ReLU(), "is a ReLU"),
        ("c", nn.Linear(7, 4), r"shape \(3, 7\)"),
        ("d", nn.Linear(7, 4), "the file lacks it"),
    ],
)
def test_layers_that_do_not_fit(tmp_path: Path, name: str, module: nn.Module, words: str) -> None:
    save(layers_of_every_kind(), tmp_path)
    net = Net()
    setattr(net, name, module)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_into(net, tmp_path)
    assert str(caught.value.tensor).startswith(name)


def one_layer(outputs: int = 8, inputs: int = 16, bias: bool = False, **options: Any) -> nn.Module:
    trits = torch.randint(-1, 2, (outputs, inputs))
    scale = options.pop("scale", torch.tensor([0.5]))
    layer = TFMBSPackedLinear.from_trits(
        trits, scale, torch.randn(outputs) if bias else None, **options
    )
    return nn.ModuleDict({"a": layer})


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (one_layer(scale=torch.rand(8)), {}, "BitNet has one"),
        (one_layer(32, 64, scale=torch.rand(32, 1), group_size=64), {}, "BitNet has one"),
        (one_layer(scale=torch.zeros(1)), {}, "above 0"),
        (one_layer(activation="ternary"), {}, "'ternary'"),
        (one_layer(outputs=6), {}, "no multiple of 4"),
        (one_layer(scale=torch.tensor([0.99999994])), {"linear_class": "bitlinear"}, "reciprocal"),
        (one_layer(2048, bias=True, scale=torch.tensor([0.9004321])), {}, "multiplies its bias"),
        (nn.ModuleDict({"a": nn.Linear(2, 2), "x": one_layer()}), {}, "stays float"),
    ],
)
def test_what_bitnet_does_not_hold(
    tmp_path: Path, model: nn.Module, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words):
        save(model, tmp_path / "x", format="bitnet", **options)
    assert not (tmp_path / "x").exists()
    save(model, tmp_path / "own")  # ours does


def test_divisors_are_exact() -> None:
    for scale in 1 / (torch.rand(2000, 1) + 1e-3):  # reciprocals, so there is a divisor
        divisor = _divisor(scale)
        assert divisor is not None
        assert torch.equal(1 / divisor, scale)


# --- GGUF -----------------------------------------------------------------------------------------


def written(path: Path, tensors: list[TernaryTensor], **options: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for tensor in tensors:
        add_gguf_tensor(writer, tensor, **options)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", ["tq1_0", "tq2_0"])
@pytest.mark.parametrize("scales", ["tensor", "output", "block"])
def test_gguf_tensors_are_those_of_the_gguf_package(tmp_path: Path, kind: str, scales: str) -> None:
    shape = {"tensor": (1,), "output": (5,), "block": (5, 2)}[scales]
    scale = (torch.rand(shape) + 0.1).half().float()
    trits = torch.randint(-1, 2, (5, 512), dtype=torch.int8)
    trits[2, 256:] = 0
    group = 256 if scales == "block" else None
    tensor = TernaryTensor("a", trits, scale, torch.randn(5), group)
    path = written(tmp_path / "m.gguf", [tensor], kind=kind)
    found = {t.name: t for t in gguf.GGUFReader(path).tensors}
    number = getattr(gguf.GGMLQuantizationType, kind.upper())
    values = tensor.values().numpy()
    assert found["a.weight"].tensor_type == number
    assert np.array_equal(found["a.weight"].data, gguf.quants.quantize(values, number))
    assert np.array_equal(gguf.quants.dequantize(found["a.weight"].data, number), values)
    again = open_checkpoint(path).layer("a")
    assert torch.equal(again.trits, trits)
    assert torch.equal(again.values(), tensor.values())
    assert again.bias is not None
    assert torch.equal(again.bias, tensor.bias)
    if scales == "tensor":
        assert torch.equal(again.scale, scale)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": torch.tensor([0.3])}, "fp16"),
        ({"trits": torch.ones(2, 300, dtype=torch.int8)}, "no multiple of 256"),
        ({"scale": torch.ones(2, 8), "group_size": 32}, "of 32 inputs"),
        ({"rms_norm": torch.ones(256), "rms_norm_eps": 1e-6}, "norm"),
        ({"activation": "ternary"}, "ternary"),
    ],
)
def test_what_gguf_does_not_hold(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    options = {"trits": torch.ones(2, 256, dtype=torch.int8), "scale": torch.ones(1), **change}
    tensor = TernaryTensor("a", **options)
    with pytest.raises(CheckpointError, match=words) as caught:
        written(tmp_path / "m.gguf", [tensor])
    assert caught.value.tensor == "a.weight"
    if words == "fp16":
        path = written(tmp_path / "n.gguf", [tensor], round_scales=True)
        assert open_checkpoint(path).layer("a").scale == torch.tensor([0.3]).half()


def llama_gguf(path: Path, model: Model) -> Path:
    """As llama.cpp's converter writes it: rows of queries and keys of a head in pairs."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    layers = {n: m for n, m in model.named_modules() if isinstance(m, TFMBSPackedLinear)}

    def permuted(name: str, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        count = heads.get(name.rpartition(".")[2])
        if count is None:
            return rows
        split = rows.reshape(count, 2, rows.shape[0] // count // 2, *rows.shape[1:])
        return split.swapaxes(1, 2).reshape(rows.shape)

    for name, module in layers.items():
        tensor = ternary_tensor(names.get_name(name), module)
        trits = torch.from_numpy(permuted(name, tensor.trits.numpy()).copy())
        bias = tensor.bias
        if bias is not None:
            bias = torch.from_numpy(permuted(name, bias.numpy()).copy())
        moved = TernaryTensor(tensor.name, trits, tensor.scale, bias)
        add_gguf_tensor(writer, moved, round_scales=True)
    for name, value in model.state_dict().items():
        if name.rpartition(".")[0] not in layers and name != "lm_head.weight":
            writer.add_tensor(names.get_name(name, (".weight",)), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("bias", [False, True])
def test_a_llama_gguf_loads_into_transformers_model(tmp_path: Path, bias: bool) -> None:
    options = {"hidden": 256, "tie_word_embeddings": True, "attention_bias": bias}
    model = frozen(**options)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TFMBSPackedLinear):  # scales that fp16 holds
                module._scales.copy_(module._scales.half())
                if module.bias is not None:
                    module.bias.normal_()
    again = load_into(small(**options), llama_gguf(tmp_path / "m.gguf", model))
    prompt = torch.arange(9).unsqueeze(0)
    assert torch.equal(again(prompt).logits, model(prompt).logits)
    assert tokens_of(again, prompt) == tokens_of(model, prompt)
    assert again.lm_head.weight is again.model.embed_tokens.weight


def test_other_architectures_need_names(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "gptx")
    trits = torch.randint(-1, 2, (3, 256), dtype=torch.int8)
    add_gguf_tensor(writer, TernaryTensor("w.0", trits, torch.ones(1)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = nn.Sequential(nn.Linear(256, 3, bias=False))
    with pytest.raises(CheckpointError, match="Pass names"):
        load_into(model, tmp_path / "m.gguf")
    load_into(model, tmp_path / "m.gguf", names=lambda name: "w." + name)
    assert torch.equal(model[0].quantized_weight()[0], trits)


@pytest.mark.parametrize("quantizer", ["sign", "absmean", "twn"])
def test_outputs_that_are_nan_stay_nan(tmp_path: Path, quantizer: str) -> None:
    layer = TFMBSLinear(40, 6, weight_quantizer=quantizer, activation="int8")
    with torch.no_grad():
        layer.weight[2, 3] = torch.nan
    model, x = nn.Sequential(layer), torch.randn(3, 40)
    save(model, tmp_path / "m")
    again = load_into(nn.Sequential(nn.Linear(40, 6)), tmp_path / "m")
    with torch.no_grad():
        wanted = model(x)
        assert wanted[:, 2].isnan().all()
        assert torch.equal(again(x).nan_to_num(7.0), wanted.nan_to_num(7.0))
