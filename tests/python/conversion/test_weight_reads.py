"""Parents that compute with a child's weight: refused by name, or made to call the child."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest
import pytfmbs
import torch
import torch.nn.functional as F
from pytfmbs import ConversionError, Fabric, FabricConfig, TFMBSLinear
from torch import Tensor, nn

OPTIONS: dict[str, Any] = {"weight_quantizer": "absmean", "activation": "int8"}


class Parent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(8, 8)
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.table = nn.ModuleDict({"a": nn.Linear(8, 8)})
        self.deep = nn.Module()
        self.deep.inner = nn.Linear(8, 8)


class Direct(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.proj.weight, self.proj.bias)


class Product(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.proj.weight.t()


class Alias(Parent):
    def forward(self, x: Tensor) -> Tensor:
        layer = self.proj
        weight = layer.weight
        return F.linear(x, weight)


class Helper(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return self._project(x)

    def _project(self, x: Tensor) -> Tensor:
        return F.linear(x, cast(nn.Linear, self.proj).weight)


class Named(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, getattr(self.proj, "weight"))  # noqa: B009


class Property(Parent):
    @property
    def kernel(self) -> Tensor:
        return self.proj.weight.data

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kernel)


class Deep(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.deep.inner.weight)


class Loop(Parent):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.linear(x, layer.weight)
        return x


class Enumerated(Parent):
    def forward(self, x: Tensor) -> Tensor:
        for _, (layer, _) in enumerate(zip(self.layers, range(2), strict=True)):
            x = F.linear(x, layer.weight)
        return x


class Index(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.layers[1].weight)


class Key(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.table["a"].weight)


class Fused(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, torch.cat([layer.weight for layer in self.layers]))


class Values(Parent):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.table.values():
            x = F.linear(x, layer.weight)
        return x


READERS: dict[type[Parent], str] = {
    Direct: "proj",
    Product: "proj",
    Alias: "proj",
    Helper: "proj",
    Named: "proj",
    Property: "proj",
    Deep: "deep.inner",
    Loop: "layers.0",
    Enumerated: "layers.0",
    Index: "layers.0",  # an index may be any
    Key: "table.a",
    Fused: "layers.0",
    Values: "table.a",
}


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_a_parent_that_computes_with_a_weight_is_refused(kind: type[Parent]) -> None:
    model = nn.Sequential(kind(), nn.Linear(8, 8))
    with pytest.raises(ConversionError, match="computes with its weight") as caught:
        pytfmbs.convert(model, **OPTIONS)
    assert caught.value.path == f"0.{READERS[kind]}"
    assert kind.__name__ in str(caught.value)
    assert "test_weight_reads.py:" in str(caught.value)
    assert not any(isinstance(m, TFMBSLinear) for m in model.modules())
    pytfmbs.convert(model, lambda m, path: path == "1", **OPTIONS)


class Describes(Parent):
    """Asks what the weight is."""

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.proj.weight, Tensor) and x.dtype != self.proj.weight.dtype:
            x = x.to(self.proj.weight.dtype).to(self.proj.weight.device)
        assert self.proj.weight is not None
        assert self.proj.weight.shape[1] == x.shape[-1]
        for layer in self.layers:
            x = layer(x)
        return self.proj(x)


class WritesElsewhere(Parent):
    """Reads and writes weights, in no forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)

    def reset(self) -> None:
        nn.init.normal_(self.proj.weight)
        self.layers[0].weight = self.layers[1].weight


class ReadsAnother(Parent):
    """The weight of a module that is no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x * self.norm.weight)


@pytest.mark.parametrize("kind", [Describes, WritesElsewhere, ReadsAnother])
def test_parents_that_call_their_layers_are_taken(kind: type[Parent]) -> None:
    model = pytfmbs.convert(kind(), **OPTIONS)
    assert type(model.proj) is TFMBSLinear
    model(torch.randn(2, 8))


def test_a_replaced_forward_of_the_parent_is_read_too() -> None:
    model = nn.Sequential(Describes())
    own = model[0]
    own.forward = lambda x: F.linear(x, own.proj.weight)
    pytfmbs.convert(model, lambda m, path: path != "0.proj")  # the lambda's own is not self
    method = Direct.forward.__get__(model[0])
    model[0].forward = method
    with pytest.raises(ConversionError, match=r"'0.proj'.*computes with its weight"):
        pytfmbs.convert(model, **OPTIONS)


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("Mamba", "mixer.x_proj", {"hidden_size": 16, "state_size": 4, "num_hidden_layers": 1}),
        (
            "MobileBert",
            "predictions.decoder",
            {
                "hidden_size": 32,
                "embedding_size": 16,
                "intra_bottleneck_size": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            },
        ),
    ],
)
def test_models_of_transformers_that_compute_with_weights(
    name: str, layer: str, options: dict[str, Any]
) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(vocab_size=32, **options)
    head = "ForCausalLM" if name == "Mamba" else "ForMaskedLM"
    model = getattr(transformers, f"{name}{head}")(config)
    with pytest.raises(ConversionError, match="computes with its weight") as caught:
        pytfmbs.convert(model, output_heads=True, **OPTIONS)
    assert caught.value.path.endswith(layer) or "predictions" in caught.value.path


# --- torch's own ----------------------------------------------------------------------------------


def grown(**options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0, **options)


CONTEXTS = [torch.enable_grad, torch.no_grad, torch.inference_mode]


@pytest.mark.parametrize("options", [{}, {"norm_first": True}, {"activation": "gelu"}])
@pytest.mark.parametrize("mask", [None, "padding", "causal"])
def test_encoder_layers_give_the_same_numbers_in_every_mode(
    options: dict[str, Any], mask: str | None
) -> None:
    x = torch.randn(2, 5, 32)
    masks: dict[str, Any] = {}
    if mask == "padding":
        masks["src_key_padding_mask"] = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    if mask == "causal":
        masks["src_mask"] = nn.Transformer.generate_square_subsequent_mask(5)
    with Fabric(FabricConfig(tiles=2)) as fabric:
        layer = pytfmbs.convert(grown(**options), fabric=fabric, **OPTIONS).eval()
        wanted = layer(x, **masks).detach()
        copies = [layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
        for module in [*copies, torch.compile(layer, backend="eager")]:
            for context in CONTEXTS:
                with context():
                    assert torch.equal(module(x, **masks), wanted)
        fabric.reset_counters()
        with torch.no_grad():
            layer(x, **masks)
        counted = fabric.profile_detailed()["layers"]
        assert all(counted[name]["broadcasts"] for name in ("linear1", "linear2"))


def test_an_encoder_layer_converted_by_hand() -> None:
    x = torch.randn(2, 5, 32)
    wanted = pytfmbs.convert(grown(), **OPTIONS).eval()(x).detach()
    layer = grown()
    for name in ("linear1", "linear2"):
        setattr(layer, name, pytfmbs.convert(getattr(layer, name), **OPTIONS))
    with torch.no_grad():
        assert torch.equal(layer.eval()(x), wanted)
    model = nn.TransformerEncoder(layer, 2).eval()
    padding = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    with_grad = model(x, src_key_padding_mask=padding).detach()
    with torch.no_grad():
        assert torch.equal(model(x, src_key_padding_mask=padding), with_grad)


def test_an_encoder_and_its_frozen_form() -> None:
    x, padding = torch.randn(2, 5, 32), torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    model = nn.TransformerEncoder(grown(), 2).eval()
    floats = model(x, src_key_padding_mask=padding).detach()
    pytfmbs.convert(model, **OPTIONS)
    wanted = model(x, src_key_padding_mask=padding).detach()
    assert (floats - wanted).abs().max() > 0.01
    for change in (pytfmbs.freeze, pytfmbs.thaw):
        change(model)
        for context in CONTEXTS:
            with context():
                assert torch.equal(model(x, src_key_padding_mask=padding), wanted)


def test_attention_without_its_fused_form_gives_the_same_numbers() -> None:
    for options in ({}, {"kdim": 16, "vdim": 16}, {"bias": False}, {"add_bias_kv": True}):
        for batch_first in (True, False):
            attention = nn.MultiheadAttention(32, 4, batch_first=batch_first, **options)
            unfused = copy.deepcopy(attention)
            unfused.__class__ = pytfmbs.nn.parents.UnfusedAttention
            query, key = torch.randn(3, 5, 32), torch.randn(3, 5, 16 if "kdim" in options else 32)
            padding = torch.zeros((3, 5) if batch_first else (5, 3), dtype=torch.bool)
            padding[1, 2] = True
            for q in (query, query[0]):
                k = q if "kdim" not in options else (key if q is query else key[0])
                mask = padding if q is query else None
                one = attention(q, k, k, key_padding_mask=mask)
                other = unfused(q, k, k, key_padding_mask=mask)
                assert all(map(torch.equal, one, other))


def test_torchs_parents_refuse_a_layer_put_in_by_hand() -> None:
    attention = nn.MultiheadAttention(8, 2)
    with pytest.raises(ConversionError, match=r"nn\.MultiheadAttention"):
        attention.out_proj = TFMBSLinear(8, 8)
    assert not isinstance(attention.out_proj, TFMBSLinear)
    if hasattr(nn, "LinearCrossEntropyLoss"):
        loss = nn.LinearCrossEntropyLoss(8, 4)
        with pytest.raises(ConversionError, match=r"nn\.LinearCrossEntropyLoss"):
            loss.linear = TFMBSLinear(8, 4, bias=False)
        with pytest.raises(ConversionError, match=r"'linear'.*computes with its weight"):
            pytfmbs.convert(loss, **OPTIONS)


def test_summary_finds_a_parent_that_convert_never_saw() -> None:
    model = nn.Sequential(Direct())
    model[0].proj = TFMBSLinear(8, 8)
    row = next(m for m in pytfmbs.summary(model).modules if m.path == "0.proj")
    assert (row.ternary, row.reason) == (False, "weight read by Direct.forward")


def test_torch_save_of_a_converted_encoder() -> None:
    x = torch.randn(2, 5, 32)
    layer = pytfmbs.convert(grown(), **OPTIONS).eval()
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded: Callable[[Tensor], Tensor] = torch.load(file, weights_only=False)
    with torch.no_grad():
        assert torch.equal(loaded(x), layer(x))
