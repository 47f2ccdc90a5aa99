"""Weights that are ternary already keep their own scale; transformers' BitNet layers, theirs."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import ConversionError, TFMBSLinear, TFMBSPackedLinear
from torch import Tensor, nn

OPTIONS: dict[str, Any] = {"weight_quantizer": "absmean", "activation": "int8"}


def trits(rows: int = 12, columns: int = 64) -> Tensor:
    return torch.randint(-1, 2, (rows, columns), generator=torch.Generator().manual_seed(1)).float()


def error(layer: nn.Module, weight: Tensor) -> float:
    """Of the layer's products, against int8 activations and the weight as it is."""
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(2))
    largest = x.abs().amax(-1, keepdim=True)
    wanted = ((x * (127 / largest)).round() * (largest / 127)) @ weight.float().T
    with torch.no_grad():
        return float((layer(x) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("quantizer", ["sign", "absmean", "twn"])
@pytest.mark.parametrize("scales", ["tensor", "output"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_convert_keeps_the_scale(quantizer: str, scales: str, dtype: torch.dtype) -> None:
    scale = torch.tensor([[0.037]]) if scales == "tensor" else torch.rand(12, 1) + 0.1
    linear = nn.Linear(64, 12, bias=False, dtype=dtype)
    weight = trits() * scale
    weight[3] = 0
    linear.weight = nn.Parameter(weight.to(dtype))
    parameter = linear.weight
    layer = pytfmbs.convert(linear, weight_quantizer=quantizer, activation="int8")
    assert layer.weight is parameter
    assert torch.equal(layer.quantized_weight()[0].float(), torch.sign(weight))
    if dtype != torch.float64:
        assert error(copy.deepcopy(layer).float(), parameter) < 1e-6
    again = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
    assert torch.equal(again.quantized_weight()[1], layer.quantized_weight()[1])


def test_a_scale_is_kept_where_a_weight_is_assigned_or_loaded() -> None:
    layer = TFMBSLinear(64, 12, bias=False, **OPTIONS).eval()
    floats = copy.deepcopy(layer.state_dict())
    ternary = trits() * 0.037
    layer.weight = nn.Parameter(ternary, requires_grad=False)
    assert error(layer, ternary) < 1e-6
    assert list(layer.state_dict()) == ["weight", "weight_scale"]
    layer.weight = nn.Parameter(2 * ternary)
    assert error(layer, 2 * ternary) < 1e-6
    layer.weight = nn.Parameter(floats["weight"].clone())  # floats again
    assert layer.weight_quantizer.name == "absmean"
    assert list(layer.state_dict()) == ["weight"]
    for assign in (False, True):
        layer.load_state_dict({"weight": ternary.clone()}, assign=assign)
        assert error(layer, ternary) < 1e-6
        saved = copy.deepcopy(layer.state_dict())
        layer.load_state_dict({"weight": floats["weight"].clone()}, assign=assign)
        assert layer.weight_quantizer.name == "absmean"
        other = TFMBSLinear(64, 12, bias=False, **OPTIONS).eval()
        other.load_state_dict(saved, assign=assign)
        assert error(other, ternary) < 1e-6


def test_a_layer_that_is_trained_keeps_the_scale() -> None:
    model = nn.Sequential(nn.Linear(64, 12, bias=False))
    model[0].weight = nn.Parameter(trits() * 0.25)
    pytfmbs.convert(model, **OPTIONS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.randn(3, 64)).square().sum().backward()
    optimizer.step()
    assert torch.equal(model[0].quantized_weight()[1], torch.tensor([0.25]))
    other = pytfmbs.convert(nn.Sequential(nn.Linear(64, 12, bias=False)), **OPTIONS)
    other.load_state_dict(model.state_dict())
    x = torch.randn(3, 64)
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize(
    ("state", "strict"),
    [({}, False), ({"0.bias": torch.ones(12)}, False), ({"0.weight": torch.zeros(3, 3)}, False)],
    ids=["none", "a bias", "a weight of another shape"],
)
def test_a_state_without_its_weight_leaves_the_scale(state: Any, strict: bool) -> None:
    """As of an adapter alone."""
    linear = nn.Linear(64, 12)
    linear.weight = nn.Parameter(trits() * 0.125)
    model = pytfmbs.convert(nn.Sequential(linear), **OPTIONS)
    layer: Any = model[0]  # type: ignore[index]
    with torch.no_grad():
        layer.weight.add_(torch.randn(12, 64) * 0.02)  # trained: no longer ternary
    before, wanted = layer.weight_quantizer, layer.quantized_weight()
    try:
        model.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        assert "size mismatch" in str(error)  # noqa: PT017
    assert layer.weight_quantizer is before
    assert "0.weight_scale" in model.state_dict()
    for found, expected in zip(layer.quantized_weight(), wanted, strict=True):
        assert torch.equal(found, expected)


def test_a_quantizer_of_the_users_may_have_any_name() -> None:
    class Doubled:
        name = "absmean"

        def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
            return torch.sign(weight).to(torch.int8), torch.full((1,), 2.0)

    quantizer = Doubled()
    layer = TFMBSLinear(64, 12, weight_quantizer=quantizer)
    layer.weight = nn.Parameter(trits() * 0.125)
    assert layer.weight_quantizer is quantizer


def test_other_weights_are_quantized_as_before() -> None:
    for weight in (torch.randn(12, 64), torch.zeros(12, 64), torch.full((12, 64), torch.inf)):
        linear = nn.Linear(64, 12, bias=False)
        linear.weight = nn.Parameter(weight)
        assert pytfmbs.convert(linear, **OPTIONS).weight_quantizer.name == "absmean"
    layer = TFMBSLinear(64, 12, bias=False)  # "sign" has no scale to keep
    layer.weight = nn.Parameter(trits() * 0.5)
    assert layer.weight_quantizer.name == "sign"


def test_scales_of_groups_are_refused() -> None:
    linear = nn.Linear(128, 12)
    groups = trits(12, 128).reshape(12, 2, 64) * (torch.rand(12, 2, 1) + 0.1)
    linear.weight = nn.Parameter(groups.reshape(12, 128))
    with pytest.raises(ConversionError, match=r"'1'.*a scale for 64 inputs.*group_size=64"):
        pytfmbs.convert(nn.Sequential(nn.ReLU(), linear), **OPTIONS)


def test_dequantized_gguf_blocks() -> None:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.TQ2_0
    packed = gguf.quants.quantize((trits(16, 512) * 0.037).numpy(), kind)
    linear = nn.Linear(512, 16, bias=False)
    linear.weight = nn.Parameter(torch.tensor(gguf.quants.dequantize(packed, kind)))
    assert error(pytfmbs.convert(linear, **OPTIONS).eval(), linear.weight) < 1e-6


# --- BitNet ---------------------------------------------------------------------------------------


def bit_layer(kind: str, **options: Any) -> Any:
    bitnet = pytest.importorskip("transformers.integrations.bitnet")
    if kind == "BitLinear":
        layer = bitnet.BitLinear(64, 12, options.pop("bias", False), dtype=torch.float32, **options)
        layer.weight.random_(0, 256)
        for i in range(4):  # 3 is no trit
            layer.weight[(layer.weight >> 2 * i) & 3 == 3] ^= 1 << 2 * i
        layer.weight_scale.fill_(20.0)
    else:
        layer = bitnet.AutoBitLinear(64, 12, **{"bias": False, **options})
        with torch.no_grad():
            layer.weight.copy_(trits())
            if layer.online_quant:
                layer.weight.mul_(0.05)
            else:
                layer.weight_scale.fill_(0.05)
    if layer.rms_norm is not None:
        layer.rms_norm.weight.data.uniform_(0.5, 2)
    return layer.eval()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["BitLinear", "offline", "online"])
def test_bitnet_layers_keep_scale_and_norm(kind: str, norm: bool) -> None:
    options: dict[str, Any] = {"use_rms_norm": norm}
    if kind != "BitLinear":
        options["online_quant"] = kind == "online"
    bit = bit_layer(kind, **options)
    x = 3 * torch.randn(7, 64)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        wanted = bit(x)
        for given in (OPTIONS, {}):
            model = pytfmbs.convert(nn.Sequential(copy.deepcopy(bit)), **given)
            layer = model[0]
            assert isinstance(layer, TFMBSLinear)
            assert (layer(x) - wanted).norm() / wanted.norm() < 1e-3
            assert ("rms_norm.weight" in layer.state_dict()) == norm
            again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
            again.load_state_dict(model.state_dict())
            assert torch.equal(again(x), model(x))
            if not norm:
                assert torch.equal(pytfmbs.freeze(model)(x), layer(x))
                assert type(model[0]) is TFMBSPackedLinear


def test_bitnet_layers_load_packed_checkpoints() -> None:
    bit = bit_layer("BitLinear", bias=True)
    x = torch.randn(3, 64)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        wanted = bit(x)
        with torch.device("meta"):
            empty = type(bit)(64, 12, True, dtype=torch.float32)
        layer = pytfmbs.convert(empty, **OPTIONS).eval()
        layer.load_state_dict(bit.state_dict(), assign=True)
        torch.testing.assert_close(layer(x), wanted, rtol=1e-4, atol=1e-5)
        auto = pytfmbs.convert(bit_layer("offline"), **OPTIONS)
        state = {"weight": bit.weight, "weight_scale": torch.tensor([0.05])}
        auto.load_state_dict(state)
        torch.testing.assert_close(auto(x), wanted - bit.bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "convert_options", "words"),
    [
        ({}, {"activation": "ternary"}, "activation='int8'"),
        ({}, {"weight_quantizer": "twn"}, "weight_quantizer='absmean'"),
        ({"bias": True}, {}, "multiplies its bias"),
    ],
)
def test_bitnet_layers_refuse_other_numbers(
    options: dict[str, Any], convert_options: dict[str, Any], words: str
) -> None:
    model = nn.Sequential(bit_layer("offline", **options))
    with pytest.raises(ConversionError, match=f"'0'.*{words}"):
        pytfmbs.convert(model, **convert_options)
