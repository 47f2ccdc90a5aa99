"""A layer's life as a module: copies, pickles, state, hooks, wrappers and convert."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import Fabric, FabricConfig, PlacementError, TFMBSLinear, convert
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

CONFIG = FabricConfig(tiles=2, lanes=15, bank_depth=256)
BANK_A = CONFIG.bank_a_base(0)


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(CONFIG) as device:
        yield device


def x(features: int = 20, rows: int = 3) -> Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(rows))


def saved(thing: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, **options)


ROUND_TRIPS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "torch.save": lambda thing: saved(thing, weights_only=False),
}


class Threshold:
    """A quantizer of a user's, with state of its own."""

    name = "threshold"

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return (torch.sign(weight) * (weight.abs() > self.at)).to(torch.int8), torch.ones(1)


def options() -> dict[str, Any]:
    return {
        "weight_quantizer": Threshold(0.1),
        "activation": "int8",
        "ste_clip": 2.5,
        "tile_mask": 2,
        "name": "fc",
    }


def assert_twins(one: TFMBSLinear, two: TFMBSLinear) -> None:
    assert torch.equal(one.weight, two.weight)
    assert one.weight is not two.weight
    for name in ("activation", "ste_clip", "tile_mask", "in_features", "out_features", "training"):
        assert getattr(one, name) == getattr(two, name), name
    assert type(one.weight_quantizer) is type(two.weight_quantizer)
    with torch.no_grad():
        assert torch.equal(one(x()), two(x()))


# --- copies ---------------------------------------------------------------------------------------


def test_deepcopy_gets_a_name_of_its_own_and_an_automatic_address(fabric: Fabric) -> None:
    layer = TFMBSLinear(20, 10, fabric=fabric, weight_addr=BANK_A + 400, **options())
    twin = copy.deepcopy(layer)
    assert layer.name == "fc"
    assert twin.name == "fc-1"
    assert copy.deepcopy(layer).name == "fc-2"
    assert twin.fabric == fabric
    assert twin.weight_addr is None
    assert_twins(layer, twin)
    assert layer.weight_addr == BANK_A + 400
    assert twin.weight_addr not in (None, BANK_A + 400)
    with torch.no_grad():
        twin.weight.neg_()
    assert not torch.equal(layer(x()), twin(x()))


def test_deepcopy_of_a_model_keeps_what_is_tied(fabric: Fabric) -> None:
    shared = TFMBSLinear(20, 20, fabric=fabric)
    other = TFMBSLinear(20, 20, fabric=fabric)
    other.weight = shared.weight
    twin = copy.deepcopy(nn.Sequential(shared, other, shared))
    assert twin[0] is twin[2]
    assert twin[0].weight is twin[1].weight
    assert len({layer.name for layer in (shared, other, twin[0], twin[1])}) == 4


def test_a_copy_of_a_pinned_layer_is_not_pinned(fabric: Fabric) -> None:
    layer = TFMBSLinear(20, 10, fabric=fabric)
    layer.pin()
    assert not copy.deepcopy(layer).pinned


# --- pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("trip", ROUND_TRIPS.values(), ids=list(ROUND_TRIPS))
def test_unpickling_keeps_name_and_address_and_makes_a_new_device(
    trip: Callable[[Any], Any],
) -> None:
    fabric = Fabric(CONFIG, engine="stepped")
    layer = TFMBSLinear(20, 10, fabric=fabric, weight_addr=BANK_A + 400, **options()).eval()
    twin = trip(layer)
    assert twin.fabric != fabric
    assert twin.fabric.config == CONFIG
    assert twin.fabric.engine == "stepped"
    assert (twin.name, twin.weight_addr) == ("fc", BANK_A + 400)
    assert twin.weight_quantizer.at == 0.1
    assert_twins(layer, twin)


@pytest.mark.parametrize("trip", ROUND_TRIPS.values(), ids=list(ROUND_TRIPS))
def test_layers_that_shared_a_device_share_the_new_one(
    fabric: Fabric, trip: Callable[[Any], Any]
) -> None:
    model = nn.Sequential(
        TFMBSLinear(20, 10, fabric=fabric, name="a"),
        TFMBSLinear(10, 5, fabric=fabric, name="b"),
        TFMBSLinear(5, 2, name="on-the-default"),
    )
    twin = trip(model)
    assert twin[0].fabric == twin[1].fabric != fabric
    assert twin[2].fabric == pytfmbs.Fabric()
    assert twin[2].fabric.is_default
    with torch.no_grad():
        assert torch.equal(twin(x()), model(x()))
    assert set(twin[0].fabric.profile_detailed()["layers"]) == {"a", "b"}


def test_unpickling_on_the_default_device_gives_a_taken_name_a_suffix() -> None:
    layer = TFMBSLinear(20, 10, name="pickled-on-default")
    data = pickle.dumps(layer)
    twin = pickle.loads(data)
    assert twin.name == "pickled-on-default-1"
    del layer, twin
    assert pickle.loads(data).name == "pickled-on-default"


def test_a_taken_address_falls_back_to_automatic_with_a_warning() -> None:
    address = Fabric().config.bank_a_base(0) + 3200
    layer = TFMBSLinear(20, 10, name="taken", weight_addr=address)
    with pytest.warns(UserWarning, match="overlaps layer 'taken'.*placed automatically"):
        twin = pickle.loads(pickle.dumps(layer))
    assert twin.weight_addr is None
    assert_twins(layer, twin)
    assert layer.weight_addr == address
    data = pickle.dumps(layer)
    del layer, twin
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pickle.loads(data).weight_addr == address  # free again, so it is kept


def test_a_pinned_layer_is_pinned_again(fabric: Fabric) -> None:
    layer = TFMBSLinear(20, 10, fabric=fabric)
    layer.pin()
    twin = pickle.loads(pickle.dumps(layer))
    assert twin.pinned


def test_a_pickle_of_a_closed_device_opens_it_anew() -> None:
    with Fabric(CONFIG) as fabric:
        layer = TFMBSLinear(20, 10, fabric=fabric)
        expected = layer(x())
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x()), expected)


# --- state ----------------------------------------------------------------------------------------


def test_state_dicts_go_to_nn_linear_and_back() -> None:
    plain, layer = nn.Linear(20, 10), TFMBSLinear(20, 10)
    with torch.no_grad():
        before = layer(x())
        assert layer.load_state_dict(plain.state_dict(), strict=True)
        after = layer(x())
    assert not torch.equal(before, after)
    assert torch.equal(after, x().sign() @ plain.weight.sign().t() + plain.bias)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert list(TFMBSLinear(20, 10, bias=False).state_dict()) == ["weight"]
    plain.load_state_dict(saved(layer.state_dict()), strict=True)  # weights_only, the default
    assert torch.equal(plain.weight, layer.weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict(nn.Linear(20, 11).state_dict())


def test_eval_mode_sees_a_loaded_state() -> None:
    layer = TFMBSLinear(20, 10).eval()
    other = nn.Linear(20, 10)
    with torch.no_grad():
        layer(x())
        layer.load_state_dict(other.state_dict())
        first = layer(x())
        layer.load_state_dict({k: -v for k, v in other.state_dict().items()}, assign=True)
        assert torch.equal(layer(x()), -first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_to_dtype(dtype: torch.dtype) -> None:
    layer = TFMBSLinear(20, 10, bias=False)
    single = layer(x())
    assert layer.to(dtype) is layer
    y = layer(x().to(dtype))
    assert y.dtype == dtype
    assert torch.equal(y, single.to(dtype))  # small integers: exact in each
    assert torch.equal(layer.to(torch.float32)(x()), single)
    twin = pickle.loads(pickle.dumps(layer.to(dtype)))
    assert twin(x().to(dtype)).dtype == dtype


def test_meta_device_and_to_empty() -> None:
    layer = TFMBSLinear(20, 10, device="meta")
    assert layer(torch.empty(3, 20, device="meta")).shape == (3, 10)
    layer.to_empty(device="cpu").load_state_dict(nn.Linear(20, 10).state_dict())
    assert layer(x()).isfinite().all()


def test_inference_mode_and_its_tensors() -> None:
    layer = TFMBSLinear(20, 10).eval()
    expected = layer(x()).detach()
    with torch.inference_mode():
        assert torch.equal(layer(x()), expected)
        made = TFMBSLinear(20, 10, bias=False).eval()  # its parameters are inference tensors
        first = made(x())
        assert torch.equal(made(x()), first)
        made.weight.neg_()
        made.refresh()
        assert torch.equal(made(x()), -first)


# --- what nn.Module offers ------------------------------------------------------------------------


def test_a_layer_is_an_nn_linear() -> None:
    layer = TFMBSLinear(20, 10, name="shown")
    assert isinstance(layer, nn.Linear)
    text = repr(layer)
    for part in ("in_features=20", "out_features=10", "bias=True", "name='shown'", "'sign'"):
        assert part in text


def test_hooks_run() -> None:
    layer = TFMBSLinear(20, 10)
    seen: list[str] = []
    layer.register_forward_pre_hook(lambda *_: seen.append("pre"))
    layer.register_forward_hook(lambda *_: seen.append("post"))
    layer.register_full_backward_hook(lambda *_: seen.append("back"))
    layer(x().requires_grad_()).sum().backward()
    assert seen == ["pre", "post", "back"]


def test_parametrizations_and_pruning() -> None:
    class Negative(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return -weight

    layer = TFMBSLinear(20, 10, bias=False).eval()
    with torch.no_grad():
        before = layer(x())
        parametrize.register_parametrization(layer, "weight", Negative())
        assert torch.equal(layer(x()), -before)
    layer(x()).sum().backward()
    assert layer.parametrizations.weight.original.grad.any()
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x()), layer(x()))
    assert twin.name != layer.name
    with pytest.raises(RuntimeError, match="parametrized"):  # as for nn.Linear
        pickle.dumps(layer)

    pruned = TFMBSLinear(20, 10, bias=False)
    prune.l1_unstructured(pruned, "weight", amount=0.5)
    assert pruned.telemetry_hint["sparsity"] == 0.5
    assert torch.equal(pruned(x()), x().sign() @ pruned.weight.sign().t())


def test_functional_call_uses_the_given_parameters() -> None:
    layer = TFMBSLinear(20, 10).eval()
    weight, bias = torch.randn(10, 20), torch.randn(10)
    with torch.no_grad():
        mine = layer(x())
        theirs = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x(),))
        assert torch.equal(theirs, x().sign() @ weight.sign().t() + bias)
        assert torch.equal(layer(x()), mine)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_optimizers_train(kind: type[torch.optim.Optimizer]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(TFMBSLinear(16, 32), nn.Hardtanh(), TFMBSLinear(32, 1))
    optimizer = kind(model.parameters(), lr=0.02)
    data = torch.randn(128, 16)
    target = (data[:, :1] > 0).float() * 8 - 4
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(data), target)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        assert norm > 0
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-10:]) < 0.6 * losses[0]


# --- names and places -----------------------------------------------------------------------------


def test_names_are_unique_and_free_again(fabric: Fabric) -> None:
    layers = [TFMBSLinear(4, 2, fabric=fabric) for _ in range(3)]
    assert [layer.name for layer in layers] == ["linear", "linear-1", "linear-2"]
    assert TFMBSLinear(4, 2, fabric=fabric, name="linear").name == "linear-3"
    del layers[1]
    assert TFMBSLinear(4, 2, fabric=fabric).name == "linear-1"
    for name in ("a;b=c %20", "ünïcode ✓", "nul\0nul", "x" * 5000):
        layer = TFMBSLinear(4, 2, fabric=fabric, name=name)
        layer(torch.ones(1, 4))
        assert layer.name == name
        assert fabric.profile_detailed()["layers"][name]["residency_misses"] == 1


def test_a_renamed_layer_keeps_its_address(fabric: Fabric) -> None:
    layer = TFMBSLinear(20, 10, fabric=fabric, name="one", weight_addr=BANK_A + 80)
    y = layer(x())
    layer.name = "two"
    assert (layer.name, layer.weight_addr) == ("two", BANK_A + 80)
    assert torch.equal(layer(x()), y)
    assert list(fabric.profile_detailed()["layers"]) == ["two"]
    other = TFMBSLinear(4, 2, fabric=fabric, name="three")
    other.name = "two"
    assert other.name == "two-1"
    layer.name = "two"  # its own: nothing happens
    assert layer.name == "two"


def test_a_layer_can_move(fabric: Fabric) -> None:
    layer = TFMBSLinear(20, 40, fabric=fabric, weight_addr=BANK_A, name="mover")
    y = layer(x())
    for address, mask in ((BANK_A + 4, 3), (BANK_A + 4, 1), (None, 2), (BANK_A + 8, None)):
        layer.weight_addr = address
        layer.tile_mask = mask
        assert torch.equal(layer(x()), y)
        assert layer.resident
        assert layer.tile_mask == (mask or 3)
        assert address is None or layer.weight_addr == address
        assert layer.name == "mover"


def test_a_move_that_fails_leaves_the_layer_where_it_was(fabric: Fabric) -> None:
    layer = TFMBSLinear(20, 10, fabric=fabric, weight_addr=BANK_A + 40, name="stays")
    layer(x())
    before = fabric.profile_detailed()
    with pytest.raises(PlacementError):
        layer.weight_addr = BANK_A + 2
    with pytest.raises(pytfmbs.ArgumentError):
        layer.tile_mask = 1 << 40
    assert fabric.profile_detailed() == before
    layer(x())
    assert fabric.profile()["residency_hits"] == 1


def test_a_pin_that_fails_evicts_nobody(fabric: Fabric) -> None:
    pinned = TFMBSLinear(200, 15, fabric=fabric, tile_mask=1)
    pinned.pin()
    small = TFMBSLinear(50, 15, fabric=fabric, tile_mask=1)
    small(x(50))
    big = TFMBSLinear(100, 15, fabric=fabric, tile_mask=1)
    before = fabric.profile_detailed()
    with pytest.raises(PlacementError, match="cannot be pinned"):
        big.pin()
    assert not big.pinned
    assert fabric.profile_detailed() == before
    assert small.resident


# --- convert --------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(20, 30)
        self.down = nn.Linear(30, 20, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        return self.down(self.up(value).relu())


def test_convert_swaps_in_place_and_names_by_path() -> None:
    model = nn.Sequential(Block(), nn.LayerNorm(20), Block()).eval()
    parameters = list(model.parameters())
    keys = list(model.state_dict())
    fabric = Fabric(CONFIG)
    assert convert(model, fabric=fabric, weight_quantizer="twn") is model
    layers = [m for m in model.modules() if isinstance(m, TFMBSLinear)]
    assert [layer.name for layer in layers] == ["0.up", "0.down", "2.up", "2.down"]
    assert all(one is two for one, two in zip(model.parameters(), parameters, strict=True))
    assert list(model.state_dict()) == keys
    assert {layer.weight_quantizer.name for layer in layers} == {"twn"}
    assert not any(layer.training for layer in layers)
    model(x())
    assert set(fabric.profile_detailed()["layers"]) == {"0.up", "0.down", "2.up", "2.down"}
    # Again: nothing is left to swap.
    assert convert(model) is model
    assert [m for m in model.modules() if isinstance(m, TFMBSLinear)] == layers


def test_convert_takes_an_nn_linear_itself() -> None:
    linear = nn.Linear(20, 10, dtype=torch.float64)
    layer = convert(linear, name="alone")
    assert isinstance(layer, TFMBSLinear)
    assert layer.weight is linear.weight
    assert layer.name == "alone"
    assert convert(layer) is layer
    assert convert(linear, filter_fn=lambda *_: False) is linear


def test_convert_asks_its_filter() -> None:
    asked = []

    def only_down(module: nn.Module, path: str) -> bool:
        asked.append((type(module), path))
        return path.endswith("down")

    model = convert(nn.Sequential(Block(), nn.ReLU(), Block()), only_down)
    assert [type(m) for m in (model[0].up, model[0].down)] == [nn.Linear, TFMBSLinear]
    assert asked == [(nn.Linear, p) for p in ("0.up", "0.down", "2.up", "2.down")]


def test_convert_keeps_tied_modules_and_tied_weights() -> None:
    linear, tied = nn.Linear(20, 20), nn.Linear(20, 20)
    tied.weight = linear.weight
    model = convert(nn.Sequential(linear, nn.ReLU(), linear, nn.ModuleDict({"in": linear}), tied))
    assert isinstance(model[0], TFMBSLinear)
    assert model[0] is model[2] is model[3]["in"]
    assert model[4] is not model[0]
    assert model[4].weight is model[0].weight
    assert not any(type(module) is nn.Linear for module in model.modules())


def test_convert_leaves_subclasses_alone_unless_told() -> None:
    attention = nn.MultiheadAttention(16, 2, batch_first=True).eval()
    value = x(16).unsqueeze(0)
    expected = attention(value, value, value)[0]
    kind = type(attention.out_proj)
    assert kind is not nn.Linear
    assert type(convert(attention).out_proj) is kind
    assert torch.equal(attention(value, value, value)[0], expected)
    with pytest.raises(TypeError, match=r"'out_proj'.*computes with its weight"):
        convert(attention, filter_fn=lambda module, path: path == "out_proj")
    assert type(attention.out_proj) is kind
    subclass = nn.Sequential(kind(16, 4))
    assert type(convert(subclass)[0]) is kind
    assert type(convert(subclass, filter_fn=lambda *_: True)[0]) is TFMBSLinear


def test_convert_takes_hooks_along_and_frozen_parameters() -> None:
    model = nn.Sequential(nn.Linear(20, 10).requires_grad_(False))
    seen: list[nn.Module] = []
    handle = model[0].register_forward_hook(lambda module, *_: seen.append(module))
    convert(model)
    model(x())
    assert seen == [model[0]]
    assert not model[0].weight.requires_grad
    handle.remove()
    model(x())
    assert len(seen) == 1


def test_a_convert_that_fails_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(20, 10), nn.LazyLinear(5))
    before = list(model)
    with pytest.raises(TypeError):
        convert(model, filter_fn=lambda *_: True)
    assert list(model) == before


def test_an_optimizer_goes_on_after_convert() -> None:
    model = nn.Sequential(nn.Linear(20, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    convert(model)
    before = model[0].weight.detach().clone()
    model(x()).sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)
