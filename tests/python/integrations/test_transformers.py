"""from_pretrained and save_pretrained of transformers with ternary layers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import (
    ArgumentError,
    CheckpointError,
    ConversionError,
    TFMBSLinear,
    TFMBSLinearReLU,
    TFMBSPackedLinear,
)
from pytfmbs.checkpoints import load_into, open_checkpoint, save
from torch import nn

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from pytfmbs.integrations.transformers import (
    TFMBSConfig,
    attach,
    enable_lora,
    from_pretrained,
)
from pytfmbs.integrations.transformers.arriving import Arrivals
from safetensors.torch import load_file, save_file
from small_hf import (
    PROMPT,
    THEIRS,
    bitnet_checkpoint,
    inputs_of,
    logits_of,
    quantized,
    small,
    tokens_of,
)
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)

Model = Any
CLASSES = [("bitlinear", "offline"), ("autobitlinear", "offline"), ("autobitlinear", "online")]


@pytest.fixture(autouse=True)
def _eager() -> Iterator[None]:
    with torch.compiler.set_stance("force_eager"):  # transformers compiles its BitNet layers
        yield


def layers_of(model: nn.Module, kind: type = TFMBSPackedLinear) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if isinstance(m, kind)}


def load(path: Path, **options: Any) -> Model:
    return AutoModelForCausalLM.from_pretrained(path, **options)


# --- float checkpoints ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Llama", {"attention_bias": True}),
        ("Qwen3", {"tie_word_embeddings": True}),
        ("Mixtral", {"num_local_experts": 3, "intermediate_size": 72}),
    ],
)
@pytest.mark.parametrize(
    ("quantizer", "activation"), [("absmean", "int8"), ("twn", "int8"), ("sign", "ternary")]
)
def test_float_checkpoints_become_what_convert_makes(
    tmp_path: Path, kind: str, options: dict[str, Any], quantizer: str, activation: str
) -> None:
    small(kind, **options).save_pretrained(tmp_path / "float")
    wanted = pytfmbs.convert(
        load(tmp_path / "float"), weight_quantizer=quantizer, activation=activation
    )
    config = {"weight_quantizer": quantizer, "activation": activation}
    model = load(tmp_path / "float", quantization_config=TFMBSConfig(**config))
    assert set(layers_of(model)) == set(layers_of(wanted, TFMBSLinear))
    assert not layers_of(model, TFMBSLinear)
    assert torch.equal(logits_of(model), logits_of(wanted))
    if kind == "Qwen3":
        assert model.lm_head.weight is model.model.embed_tokens.weight
    model.save_pretrained(tmp_path / "packed", max_shard_size="8KB")
    assert len(list((tmp_path / "packed").glob("*.safetensors"))) > 1
    assert torch.equal(logits_of(load(tmp_path / "packed")), logits_of(wanted))
    training = TFMBSConfig(**config, trainable=True)
    trained = load(tmp_path / "float", quantization_config=training)
    assert set(layers_of(trained, TFMBSLinear)) == set(layers_of(wanted, TFMBSLinear))
    assert torch.equal(logits_of(trained), logits_of(wanted))
    assert all(p.requires_grad for p in trained.parameters())


def test_float_weights_are_there_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small().save_pretrained(tmp_path)
    seen: list[weakref.ref[Any]] = []
    quantize = Arrivals.quantize

    def watched(self: Arrivals, path: str, weight: torch.Tensor) -> None:
        assert all(earlier() is None for earlier in seen)
        seen.append(weakref.ref(weight.untyped_storage()))
        quantize(self, path, weight)

    monkeypatch.setattr(Arrivals, "quantize", watched)
    model = load(tmp_path, quantization_config=TFMBSConfig())
    assert len(seen) == len(layers_of(model)) == 14
    del model
    assert all(earlier() is None for earlier in seen)


def test_which_layers_stay_float(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    config = TFMBSConfig(modules_to_not_convert=["model.layers.0", "down_proj"], output_heads=True)
    names = set(layers_of(load(tmp_path, quantization_config=config)))
    parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
             "mlp.gate_proj", "mlp.up_proj"]  # fmt: skip
    assert names == {"lm_head", *(f"model.layers.1.{part}" for part in parts)}
    with pytest.raises(ArgumentError, match="no linear layer"):
        load(tmp_path, quantization_config=TFMBSConfig(modules_to_not_convert=["model"]))
    for wrong in ({"activation": "int4"}, {"modules_to_not_convert": "lm_head"}):
        with pytest.raises(ArgumentError):
            TFMBSConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight_quantizer"):
        TFMBSConfig("nf4")


def test_weights_that_are_ternary_already_keep_their_scale(tmp_path: Path) -> None:
    model = small()
    weight = torch.randint(-1, 2, (36, 36)) * 0.25
    model.model.layers[0].self_attn.o_proj.weight.data = weight
    model.save_pretrained(tmp_path)
    layer = load(tmp_path, quantization_config=TFMBSConfig()).model.layers[0].self_attn.o_proj
    assert torch.equal(layer.dequantized_weight(), weight)
    grouped = torch.randint(-1, 2, (36, 70)).float()
    grouped[:, 32:] *= 2
    model = small(intermediate_size=64)
    model.model.layers[1].mlp.down_proj.weight.data = grouped[:, :64].contiguous()
    model.save_pretrained(tmp_path)
    for trainable in (False, True):
        with pytest.raises(ConversionError, match=r"layers\.1\.mlp\.down_proj.*32 inputs"):
            load(tmp_path, quantization_config=TFMBSConfig(trainable=trainable))


# --- where, of which dtype, as which class --------------------------------------------------------


def test_devices_and_dtypes(tmp_path: Path) -> None:
    model = small(attention_bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "float")
    pytfmbs.freeze(pytfmbs.convert(model, weight_quantizer="absmean", activation="int8"))
    model.save_pretrained(tmp_path / "packed")
    wanted = logits_of(model)
    for options in ({"device_map": "cpu"}, {"device_map": "auto"}, {"low_cpu_mem_usage": True},
                    {"device_map": {"": "cpu"}}):  # fmt: skip
        assert torch.equal(logits_of(load(tmp_path / "packed", **options)), wanted)
        made = load(tmp_path / "float", quantization_config=TFMBSConfig(), **options)
        assert torch.equal(logits_of(made), wanted)
    for device_map in ("cuda:0", {"model": "cpu", "lm_head": "disk"}):
        with pytest.raises(ArgumentError, match="run on the CPU"):
            load(tmp_path / "packed", device_map=device_map, offload_folder=tmp_path / "off")
    half = load(tmp_path / "packed", dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert half.model.layers[0].mlp.up_proj.scale.dtype == torch.float32
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    assert torch.equal(logits_of(half), logits_of(model))
    with pytest.raises(NotImplementedError, match="thaw"):
        half.dequantize()


def test_other_classes_load_the_same_layers(tmp_path: Path) -> None:
    model = pytfmbs.freeze(pytfmbs.convert(small(), weight_quantizer="absmean", activation="int8"))
    model.save_pretrained(tmp_path / "whole")
    model.model.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        wanted = model.model(PROMPT).last_hidden_state
        for path in ("whole", "base"):
            base = AutoModel.from_pretrained(tmp_path / path)
            assert torch.equal(base(PROMPT).last_hidden_state, wanted)
            classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / path)
            assert type(classifier.score) is nn.Linear
            assert torch.equal(classifier.model(PROMPT).last_hidden_state, wanted)
            head = load(tmp_path / path)
            assert torch.equal(head.model(PROMPT).last_hidden_state, wanted)


# --- save_pretrained ------------------------------------------------------------------------------


def test_trainable_layers_are_saved_for_training(tmp_path: Path) -> None:
    config = small().config
    model = type(small())(config)
    pytfmbs.convert(model, weight_quantizer="twn", activation="int8", ste_clip=2.5)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert torch.equal(logits_of(again), logits_of(model))
    state = model.state_dict()
    assert load_file(tmp_path / "model.safetensors").keys() == state.keys()  # Trainer resumes by it
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    layer = again.model.layers[0].mlp.up_proj
    assert (layer.weight_quantizer.name, layer.activation, layer.ste_clip) == ("twn", "int8", 2.5)
    assert layer.name.startswith("model.layers.0.mlp.up_proj")
    # What another model shares with it stays float.
    assert not hasattr(config, "quantization_config")
    read = load_into(type(model)(config), tmp_path)
    assert torch.equal(logits_of(read), logits_of(model))


class Thirds:
    name = "thirds"

    def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        limit = weight.abs().amax() / 3
        return (weight.sign() * (weight.abs() > limit)).to(torch.int8), 2 * limit.reshape(1)


def test_other_trainable_layers_are_saved_packed(tmp_path: Path) -> None:
    """A quantizer of the user's, and a scale of the weight's own, which no name tells."""
    model = small()
    model.model.layers[0].mlp.up_proj.weight.data = torch.randint(-1, 2, (70, 36)) * 0.5
    pytfmbs.convert(model, lambda m, p: p.endswith("up_proj"), weight_quantizer="absmean",
                    activation="int8")  # fmt: skip
    pytfmbs.convert(model, lambda m, p: p.endswith("gate_proj"), weight_quantizer=Thirds(),
                    activation="int8")  # fmt: skip
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert torch.equal(logits_of(again), logits_of(model))
    assert sorted(layers_of(again)) == [
        "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.gate_proj",
    ]  # fmt: skip
    assert sorted(layers_of(again, TFMBSLinear)) == ["model.layers.1.mlp.up_proj"]


def test_save_and_save_pretrained_have_one_format(tmp_path: Path) -> None:
    model = pytfmbs.freeze(pytfmbs.convert(small(), weight_quantizer="twn", activation="int8"))
    trits = torch.randint(-1, 2, (36, 70), dtype=torch.int8)
    groups = TFMBSPackedLinear.from_trits(trits, torch.rand(36, 3), group_size=32)
    model.model.layers[1].mlp.down_proj = groups
    model.save_pretrained(tmp_path / "theirs")
    save(model, tmp_path / "ours")
    quantization = [
        json.loads((tmp_path / name / "config.json").read_text())["quantization_config"]
        for name in ("theirs", "ours")
    ]
    assert quantization[0] == quantization[1]
    theirs, ours = (load_file(tmp_path / n / "model.safetensors") for n in ("theirs", "ours"))
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    for name in ("theirs", "ours"):
        assert torch.equal(logits_of(load(tmp_path / name)), logits_of(model))
    assert len(open_checkpoint(tmp_path / "theirs").layer_names) == 14


def test_parts_are_attached_by_hand(tmp_path: Path) -> None:
    model = small()
    pytfmbs.convert(model.model.layers, weight_quantizer="absmean", activation="int8")
    assert getattr(model, "hf_quantizer", None) is None
    assert attach(model) is model
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(load(tmp_path)), logits_of(model))


def test_what_is_not_written_is_refused_by_name(tmp_path: Path) -> None:
    model = pytfmbs.convert(small(), weight_quantizer="absmean", activation="int8")
    model.model.layers[0].mlp.up_proj = TFMBSLinearReLU(36, 70, bias=False)
    with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.up_proj.*TFMBSLinearReLU"):
        model.save_pretrained(tmp_path / "relu")
    path = bitnet_checkpoint(tmp_path / "bitnet", small("BitNet"), "autobitlinear", "online")
    theirs = load(path)
    pytfmbs.convert(theirs, lambda m, p: p.endswith("up_proj"))
    with pytest.raises(CheckpointError, match="'bitnet' beside"):
        theirs.save_pretrained(tmp_path / "half")
    pytfmbs.convert(theirs)
    theirs.save_pretrained(tmp_path / "converted")
    assert torch.equal(logits_of(load(tmp_path / "converted")), logits_of(theirs))


# --- damaged checkpoints --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    model = pytfmbs.freeze(pytfmbs.convert(small(), weight_quantizer="absmean", activation="int8"))
    model.save_pretrained(folder)
    return folder


NAME = "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, c: t.pop(f"{NAME}.packed"), f"{NAME}.packed.*lack"),
        (lambda t, c: t.pop(f"{NAME}.scale"), f"{NAME}.scale.*missing"),
        (lambda t, c: t[f"{NAME}.packed"].fill_(250), f"{NAME}.packed"),
        (lambda t, c: t.update({f"{NAME}.packed": torch.zeros(70, 9, dtype=torch.uint8)}), NAME),
        (lambda t, c: t.update({f"{NAME}.packed": torch.zeros(3, 8, dtype=torch.uint8)}), NAME),
        (lambda t, c: t.update({f"{NAME}.scale": torch.ones(5)}), f"{NAME}.scale"),
        (lambda t, c: t.update({f"{NAME}.bias": torch.ones(70)}), f"{NAME}.bias"),
        (lambda t, c: c["layers"].pop(NAME), f"{NAME}.*config.json does not say"),
        (lambda t, c: c["layers"].update({"other": c["layers"][NAME]}), "other.*no such layer"),
        (lambda t, c: c["layers"][NAME].update(activation="int4"), "activation 'int4'"),
        (lambda t, c: c["layers"][NAME].update(in_features=35), "35 inputs"),
        (lambda t, c: c["layers"][NAME].update(weight_quantizer="nf4"), "weight_quantizer 'nf4'"),
        (lambda t, c: c.update(version=2), "version is 2"),
        (lambda t, c: c["layers"].update({"lm_head": c["layers"][NAME]}), "lm_head"),
    ],
)
def test_damage_is_named(packed_folder: Path, tmp_path: Path, change: Any, message: str) -> None:
    tensors = load_file(packed_folder / "model.safetensors")
    config = json.loads((packed_folder / "config.json").read_text())
    change(tensors, config["quantization_config"])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)


# --- BitNet checkpoints ---------------------------------------------------------------------------


def tolerance(model: Model) -> float:
    """Of logits, where both quantize every activation to the same integers. A layer of K inputs then
    differs by the rounding of K + 8 float32 operations at most, and the next layers keep such a
    difference as it is or take it through a norm or an attention: 8 times in all is room enough."""
    layers = [m for m in model.modules() if isinstance(m, THEIRS)]
    inputs = max(layer.in_features for layer in layers)
    return 8 * len(layers) * (inputs + 8) * 2.0**-24


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
@pytest.mark.parametrize(("linear_class", "mode"), CLASSES)
def test_bitnet_checkpoints_have_transformers_numbers(
    tmp_path: Path, linear_class: str, mode: str, norm: bool
) -> None:
    kind = "BitNet" if linear_class == "autobitlinear" else "Llama"
    # What transformers itself loads: multiples of four outputs, and a bias of bitlinear alone.
    options = {"intermediate_size": 76, "num_attention_heads": 3, "head_dim": 12}
    if linear_class == "bitlinear":
        options["attention_bias"] = True
    model = small(kind, **options)
    path = bitnet_checkpoint(tmp_path / "theirs", model, linear_class, mode, norm)
    theirs = load(path, dtype=torch.float32)
    mine = from_pretrained(AutoModelForCausalLM, path, dtype=torch.float32)
    assert set(layers_of(mine)) == {n for n, m in theirs.named_modules() if isinstance(m, THEIRS)}
    with inputs_of(theirs, THEIRS) as wanted, inputs_of(mine, (TFMBSPackedLinear,)) as got:
        expected, logits = logits_of(theirs), logits_of(mine)
    for name, rows in wanted.items():
        assert torch.equal(quantized(got[name]), quantized(rows)), name
    allowed = tolerance(theirs) * float(expected.abs().max())
    assert float((logits - expected).abs().max()) <= allowed
    assert tokens_of(mine) == tokens_of(theirs)
    assert torch.equal(logits_of(load_into(model, path)), logits)
    mine.save_pretrained(tmp_path / "mine")
    assert torch.equal(logits_of(load(tmp_path / "mine")), logits)
    trained = from_pretrained(AutoModelForCausalLM, path, dtype=torch.float32, trainable=True)
    assert len(layers_of(trained, TFMBSLinear)) == 14
    assert torch.equal(logits_of(trained), logits)
    assert torch.equal(logits_of(pytfmbs.freeze(trained)), logits)
    assert torch.equal(logits_of(pytfmbs.thaw(trained)), logits)


@torch.no_grad()
@pytest.mark.parametrize(("linear_class", "mode"), CLASSES)
def test_layers_differ_by_rounding_alone(tmp_path: Path, linear_class: str, mode: str) -> None:
    """For one input: |Δy| ≤ (K + 8) 2⁻²⁴ s Σ|x̂ w| + F s max|x| / 127, where F inputs lie within 2⁻¹²
    of the middle between two integers, and may go either way."""
    kind = "BitNet" if linear_class == "autobitlinear" else "Llama"
    path = bitnet_checkpoint(
        tmp_path, small(kind, intermediate_size=76, head_dim=12), linear_class, mode
    )
    theirs = load(path, dtype=torch.float32)
    mine = from_pretrained(AutoModelForCausalLM, path, dtype=torch.float32)
    for name, layer in layers_of(mine).items():
        rows = torch.randn(50, layer.in_features)
        top = rows.abs().amax(1, keepdim=True)
        scaled = rows * 127 / top
        near = ((scaled - scaled.floor() - 0.5).abs() < 2.0**-12).sum(1, keepdim=True)
        sizes = rows.abs() @ layer.dequantized_weight().abs().T
        rounding = (layer.in_features + 8) * 2.0**-24 * 2 * sizes
        allowed = rounding + near * float(layer.scale) * top / 127
        wanted = theirs.get_submodule(name)(rows)
        assert bool(((layer(rows) - wanted).abs() <= allowed).all()), name


def test_bitnet_options_and_traps(tmp_path: Path) -> None:
    model = small(intermediate_size=76)
    path = bitnet_checkpoint(tmp_path / "a", model, "bitlinear", "offline")
    model.save_pretrained(tmp_path / "float")
    with pytest.raises(ArgumentError, match="quantization method is None"):
        from_pretrained(AutoModelForCausalLM, tmp_path / "float")
    assert layers_of(from_pretrained(AutoModel, path)).keys() == {
        name.removeprefix("model.") for name in layers_of(
            from_pretrained(AutoModelForCausalLM, path, device_map="auto", packing="packed_base3")
        )
    }  # fmt: skip
    config = json.loads((path / "config.json").read_text())

    def changed(**options: Any) -> None:
        quantization = {**config["quantization_config"], **options}
        (path / "config.json").write_text(
            json.dumps({**config, "quantization_config": quantization})
        )

    changed(modules_to_not_convert=["lm_head", "up_proj"])
    with pytest.raises(CheckpointError, match=r"up_proj\.weight_scale"):
        from_pretrained(AutoModelForCausalLM, path)
    changed(linear_class="other")
    with pytest.raises(CheckpointError, match="linear_class is 'other'"):
        from_pretrained(AutoModelForCausalLM, path)
    changed(use_rms_norm=True)
    with pytest.raises(CheckpointError, match=r"rms_norm\.weight.*missing"):
        from_pretrained(AutoModelForCausalLM, path)
    changed(modules_to_not_convert=["model.layers.1"])
    with pytest.raises(CheckpointError, match="weight_scale"):
        from_pretrained(AutoModelForCausalLM, path)


# --- generate, compile, adapters ------------------------------------------------------------------


def test_generate_with_each_cache_and_compiled(packed_folder: Path) -> None:
    model = load(packed_folder)
    wanted = tokens_of(model)
    assert tokens_of(model, cache_implementation="static") == wanted
    assert tokens_of(model, use_cache=False) == wanted
    logits = logits_of(model)
    with torch.compiler.set_stance("default"):
        compiled = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
        with torch.no_grad():
            assert torch.equal(compiled(PROMPT).logits, logits)
        model.forward = compiled
        assert tokens_of(model, cache_implementation="static", disable_compile=True) == wanted


@pytest.mark.parametrize("through", ["peft", "add_adapter"])
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
def test_lora_on_packed_layers(packed_folder: Path, tmp_path: Path, through: str) -> None:
    peft = pytest.importorskip("peft")
    model = load(packed_folder)
    plain = logits_of(model)
    targets = ["q_proj", "up_proj"]
    with pytest.raises(ValueError, match="TFMBSPackedLinear"):
        peft.get_peft_model(load(packed_folder), peft.LoraConfig(target_modules=targets))
    config = enable_lora(peft.LoraConfig(r=3, lora_alpha=6, target_modules=targets))
    if through == "peft":
        adapted = peft.get_peft_model(model, config)
    else:
        model.add_adapter(config)
        adapted = model
    assert torch.equal(logits_of(adapted), plain)  # B is zero
    trained = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert len(trained) == 8
    assert all("lora_" in name for name in trained)
    for parameter in trained.values():
        nn.init.normal_(parameter, std=0.1)
    adapted(PROMPT, labels=PROMPT).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.values())
    layer = model.model.layers[0].mlp.up_proj
    rows = torch.randn(4, 36)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.testing.assert_close(layer(rows), layer.base_layer(rows) + 2 * (rows @ a.T @ b.T))
    with pytest.raises(ArgumentError, match="not ternary"):
        layer.merge()
    logits = logits_of(adapted)
    adapted.save_pretrained(tmp_path)
    assert all("lora_" in name for name in load_file(tmp_path / "adapter_model.safetensors"))
    base = load(packed_folder)
    again = enable_lora(peft.LoraConfig.from_pretrained(tmp_path))
    loaded = peft.PeftModel.from_pretrained(base, tmp_path, config=again)
    assert torch.equal(logits_of(loaded), logits)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"init_lora_weights": "pissa"}])
@pytest.mark.filterwarnings("ignore:Unsupported layer type")
def test_adapters_that_need_the_float_weight_are_refused(
    packed_folder: Path, options: dict[str, Any]
) -> None:
    peft = pytest.importorskip("peft")
    config = enable_lora(peft.LoraConfig(target_modules=["q_proj"], **options))
    with pytest.raises(ArgumentError, match="float weight"):
        peft.get_peft_model(load(packed_folder), config)


class Texts(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = torch.arange(8) * (index + 1) % 67
        return {"input_ids": tokens, "labels": tokens}


def test_trainer_resumes_from_what_it_saved(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "float")

    def trained(steps: int, resume: bool) -> Model:
        config = TFMBSConfig(trainable=True)
        model = load(tmp_path / "float", quantization_config=config)
        options = TrainingArguments(
            str(tmp_path / "out"), max_steps=steps, save_steps=2, per_device_train_batch_size=2,
            learning_rate=1e-2, report_to=[], use_cpu=True, disable_tqdm=True, seed=0,
            lr_scheduler_type="constant", logging_strategy="no",
        )  # fmt: skip
        Trainer(model, options, train_dataset=Texts()).train(resume_from_checkpoint=resume)
        return model.eval()

    half, straight = trained(2, False), trained(4, False)
    assert torch.equal(logits_of(load(tmp_path / "out" / "checkpoint-2")), logits_of(half))
    shutil.rmtree(tmp_path / "out" / "checkpoint-4")
    assert torch.equal(logits_of(trained(4, True)), logits_of(straight))
    assert not torch.equal(logits_of(half), logits_of(straight))
    packed = load(tmp_path / "float", quantization_config=TFMBSConfig())
    options = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    with pytest.raises(ValueError, match="purely quantized"):
        Trainer(packed, options)


# --- other processes ------------------------------------------------------------------------------

FRESH = """
import sys
if {first!r} == "transformers":
    import transformers.modeling_utils
import pytfmbs, torch
from transformers import AutoModelForCausalLM
for path in sys.argv[1:]:
    logits = AutoModelForCausalLM.from_pretrained(path)(torch.arange(1, 9).unsqueeze(0)).logits
    torch.save(logits.detach(), path + "/logits.pt")
"""


@pytest.mark.parametrize("first", ["pytfmbs", "transformers"])
def test_a_fresh_process_that_imports_pytfmbs_has_the_same_bits(tmp_path: Path, first: str) -> None:
    models = {"trained": pytfmbs.convert(small(), weight_quantizer="twn", activation="int8")}
    models["packed"] = pytfmbs.freeze(
        pytfmbs.convert(small("Qwen3"), weight_quantizer="absmean", activation="ternary")
    )
    for name, model in models.items():
        model.save_pretrained(tmp_path / name, max_shard_size="16KB")
    folders = [str(tmp_path / name) for name in models]
    done = subprocess.run(
        [sys.executable, "-c", FRESH.format(first=first), *folders],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, model in models.items():
        assert torch.equal(torch.load(tmp_path / name / "logits.pt"), logits_of(model))


def test_a_package_that_is_missing_is_named() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None; import pytfmbs\n"
        "try:\n    import pytfmbs.integrations.transformers\n"
        "except ImportError as error:\n    assert 'pip install pytfmbs[transformers]' in str(error)\n"
        "else:\n    raise SystemExit('imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
