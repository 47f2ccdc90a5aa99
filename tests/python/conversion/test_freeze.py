"""freeze and thaw: a model's numbers, names, places and telemetry stay."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import pytfmbs
import torch
from cases import ACTIVATIONS, QUANTIZERS, generator, tensor
from pytfmbs import Fabric, FabricConfig, TFMBSLinear, TFMBSLinearReLU, TFMBSPackedLinear
from reference import same_bits
from torch import nn

CONFIG = FabricConfig(tiles=2, lanes=15, bank_depth=256)


def network(fabric: Fabric, **options: Any) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        TFMBSLinear(43, 33, name="first", fabric=fabric, **options),
        nn.ReLU(),
        TFMBSLinear(33, 5, bias=False, name="second", fabric=fabric, **options),
    ).eval()


@pytest.mark.parametrize("quantizer", QUANTIZERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("packing", ["auto", "packed2", "packed_base3"])
def test_freeze_and_thaw_keep_numbers_and_telemetry(
    quantizer: str, activation: str, packing: str
) -> None:
    x = tensor(generator(1), (3, 43), torch.float32)
    with Fabric(CONFIG) as fabric, torch.no_grad():
        model = network(fabric, weight_quantizer=quantizer, activation=activation)
        wanted = model(x)
        fabric.reset_counters()
        model(x)
        profile = fabric.profile_detailed()
        trits = model[0].quantized_weight()[0]
        for change, kind in (
            (lambda m: pytfmbs.freeze(m, packing=packing), TFMBSPackedLinear),
            (pytfmbs.thaw, TFMBSLinear),
            (pytfmbs.freeze, TFMBSPackedLinear),
        ):
            assert change(model) is model
            assert [type(model[0]), type(model[2])] == [kind, kind]
            assert [model[0].name, model[2].name] == ["first", "second"]
            assert not model[0].training
            assert torch.equal(model[0].quantized_weight()[0], trits)
            assert same_bits(model(x), wanted)
            fabric.reset_counters()
            model(x)
            assert fabric.profile_detailed() == profile


def test_a_pinned_layer_at_its_address_stays() -> None:
    with Fabric(CONFIG) as fabric:
        address = CONFIG.bank_a_base(0) + 64
        model = nn.Sequential(
            TFMBSLinear(20, 9, fabric=fabric, name="p", weight_addr=address, tile_mask=1)
        )
        model[0].pin()
        pytfmbs.freeze(model)
        layer = model[0]
        assert (layer.weight_addr, layer.tile_mask, layer.pinned) == (address, 1, True)
        pytfmbs.thaw(model)
        layer = model[0]
        assert (layer.weight_addr, layer.tile_mask, layer.pinned) == (address, 1, True)


def test_offloaded_layers_and_hooks() -> None:
    with Fabric(CONFIG) as fabric:
        model = network(fabric)
        model[0].offload = True
        calls: list[int] = []
        model[0].register_forward_hook(lambda *_: calls.append(1))
        pytfmbs.freeze(model)
        assert model[0].offload
        model(torch.randn(2, 43))
        assert calls == [1]


def test_what_a_layer_holds_beside_its_own_moves_along() -> None:
    model = pytfmbs.convert(nn.Sequential(nn.Linear(8, 4)), weight_quantizer="absmean")
    layer = model[0]
    layer.tag = "mine"
    layer.register_buffer("calls", torch.zeros(1))
    layer.register_parameter("gain", nn.Parameter(torch.ones(1)))
    layer.register_module("probe", nn.Linear(4, 2))
    extras = {"0.calls", "0.gain", "0.probe.weight", "0.probe.bias"}
    pytfmbs.freeze(model)
    assert set(model.state_dict()) == {"0.packed", "0.scale", "0.bias", *extras}
    assert (model[0].tag, model[0].calls) == ("mine", layer.calls)
    pytfmbs.thaw(model)
    assert set(model.state_dict()) == {"0.weight", "0.weight_scale", "0.bias", *extras}
    assert model[0].tag == "mine"
    assert "_layout" not in model[0].__dict__
    copy.deepcopy(model)


@pytest.mark.parametrize("swap", [pytfmbs.freeze, pytfmbs.thaw])
def test_a_replaced_forward_is_refused(swap: Any) -> None:
    kind: Any = TFMBSLinear if swap is pytfmbs.freeze else TFMBSPackedLinear
    model = nn.Sequential(kind(8, 8), kind(8, 4))
    before, forward = list(model), model[1].forward
    model[1].forward = lambda x: 2 * forward(x)
    with pytest.raises(pytfmbs.ConversionError, match=r"'1'.*forward was replaced"):
        swap(model)
    assert list(model) == before


def test_a_shared_layer_is_swapped_once() -> None:
    layer = TFMBSLinear(8, 8)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer)})
    pytfmbs.freeze(model)
    assert model["a"] is model["b"][0]
    assert isinstance(model["a"], TFMBSPackedLinear)


def test_a_layer_alone() -> None:
    frozen = pytfmbs.freeze(TFMBSLinear(8, 4))
    assert isinstance(frozen, TFMBSPackedLinear)
    assert isinstance(pytfmbs.thaw(frozen), TFMBSLinear)


def test_nan_weights_stay_nan() -> None:
    layer = TFMBSLinear(8, 4, weight_quantizer="absmean")
    with torch.no_grad():
        layer.weight[2, 3] = float("nan")
    x = torch.randn(3, 8)
    wanted = layer(x)
    assert wanted[:, 2].isnan().all()
    assert same_bits(pytfmbs.freeze(layer)(x), wanted)


def test_what_is_refused_leaves_the_model() -> None:
    for bad, kind, words in (
        (TFMBSLinearReLU(8, 8), TypeError, "'1': a TFMBSLinearReLU"),
        (
            TFMBSLinear(8, 8, dtype=torch.float64, weight_quantizer="absmean"),
            pytfmbs.ArgumentError,
            "'1': its scales are float64",
        ),
        (TFMBSLinear(8, 8, device="meta"), pytfmbs.ArgumentError, "'1': its weight is on the meta"),
    ):
        model = nn.Sequential(TFMBSLinear(8, 8), bad)
        before = list(model)
        with pytest.raises(kind, match=words):
            pytfmbs.freeze(model)
        assert list(model) == before
    grouped = TFMBSPackedLinear.from_trits(torch.zeros(4, 64), torch.ones(4, 2), group_size=32)
    model = nn.Sequential(pytfmbs.freeze(TFMBSLinear(8, 64)), grouped)
    before = list(model)
    with pytest.raises(pytfmbs.ArgumentError, match=r"'1': .*one for 32 inputs"):
        pytfmbs.thaw(model)
    assert list(model) == before
    for call in (pytfmbs.freeze, pytfmbs.thaw):
        with pytest.raises(TypeError, match="model must be"):
            call("no model")


def test_thawed_layers_with_scales_of_zero_or_nan_say_so() -> None:
    zero = TFMBSPackedLinear.from_trits(torch.zeros(4, 8), torch.tensor([1.0, 0.0, 2.0, 1.0]))
    model = nn.Sequential(zero)
    with pytest.raises(pytfmbs.ArgumentError, match=r"'0': .*above 0"):
        pytfmbs.thaw(model)
    assert model[0] is zero


def test_thawed_weights_hold_the_scale() -> None:
    tiny = TFMBSPackedLinear.from_trits(torch.ones(4, 8), 1e-9)
    model = nn.Sequential(TFMBSPackedLinear.from_trits(torch.ones(8, 8), 0.5), tiny)
    first = model[0]
    with pytest.raises(pytfmbs.ArgumentError, match=r"'1': .*weight of float16"):
        pytfmbs.thaw(model, torch.float16)
    assert model[0] is first
    assert model[1] is tiny
    thawed = pytfmbs.thaw(model, torch.bfloat16)
    assert torch.equal(thawed[1].quantized_weight()[0], torch.ones(4, 8, dtype=torch.int8))


def test_a_dtype_that_holds_no_scale_is_refused() -> None:
    fits = TFMBSPackedLinear.from_trits(torch.ones(2, 8), 0.5)
    for scale in (1e-9, 1e9):
        tiny = TFMBSPackedLinear.from_trits(torch.ones(2, 8), scale)
        model = nn.Sequential(fits, tiny)
        with pytest.raises(pytfmbs.ArgumentError, match=r"'1': .*float16 does not hold the scale"):
            pytfmbs.thaw(model, dtype=torch.float16)
        assert list(model) == [fits, tiny]
        with pytest.raises(pytfmbs.ArgumentError, match="does not hold the scale"):
            TFMBSLinear.from_trits(torch.ones(2, 8), scale, dtype=torch.float16)


def test_a_thawed_layer_trains_and_keeps_its_scale() -> None:
    trits = torch.randint(-1, 2, (4, 8))
    layer = pytfmbs.thaw(TFMBSPackedLinear.from_trits(trits, 0.5, torch.zeros(4)))
    assert torch.equal(layer.weight, trits * 0.5)
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.weight.grad is not None
    again = copy.deepcopy(layer)
    assert torch.equal(again.quantized_weight()[1], torch.tensor([0.5]))
    assert torch.equal(pytfmbs.freeze(layer).scale, torch.tensor([0.5]))


def test_a_parent_that_reads_weight_is_left_out_by_a_filter() -> None:
    """T5's feed-forward asks for ``wo.weight.dtype``."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 1}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, num_heads=2))
    pytfmbs.convert(model.eval(), weight_quantizer="absmean", activation="int8")
    ids = torch.arange(6)[None]
    with torch.no_grad():
        expected = model(input_ids=ids, decoder_input_ids=ids).logits
        frozen = pytfmbs.freeze(copy.deepcopy(model))
        with pytest.raises(AttributeError, match=r"wo.* has no float weight.*filter_fn"):
            frozen(input_ids=ids, decoder_input_ids=ids)
        pytfmbs.freeze(model, lambda _, path: not path.endswith("wo"))
        kinds = {type(m) for m in model.modules() if hasattr(m, "packing")}
        assert kinds == {TFMBSLinear, TFMBSPackedLinear}
        assert torch.equal(model(input_ids=ids, decoder_input_ids=ids).logits, expected)
