"""convert: what a linear layer holds is carried over, or the module is refused by name."""

from __future__ import annotations

import copy
import functools
import pickle
import types
from collections.abc import Callable
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import ConversionError, TFMBSLinear, TFMBSPackedLinear
from torch import Tensor, nn
from torch.nn.utils import prune

OPTIONS: dict[str, Any] = {"weight_quantizer": "absmean", "activation": "int8"}
EVERY = lambda module, path: True  # noqa: E731


def refused(model: nn.Module, path: str, words: str, filter_fn: Any = None, **options: Any) -> None:
    """convert raises, says path, reason and remedy, and leaves the model."""
    before = {name: (module, type(module)) for name, module in model.named_modules()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConversionError, match=words) as caught:
        pytfmbs.convert(model, filter_fn, **{**OPTIONS, **options})
    assert caught.value.path == path
    assert caught.value.remedy in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert before == {name: (module, type(module)) for name, module in model.named_modules()}
    assert list(state) == list(model.state_dict())
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path) == (str(caught.value), path)


# --- state ----------------------------------------------------------------------------------------


def test_buffers_parameters_children_and_attributes_move_along() -> None:
    linear = nn.Linear(8, 4)
    linear.register_buffer("mask", torch.ones(4))
    linear.register_buffer("cache", torch.ones(2), persistent=False)
    linear.register_parameter("gain", nn.Parameter(torch.ones(1)))
    linear.register_module("norm", nn.LayerNorm(8))
    linear.init_scale, linear._is_hf_initialized = 0.5, True
    linear.helper = types.MethodType(lambda self: self, linear)
    model = nn.Sequential(linear)
    keys, parameters = list(model.state_dict()), list(model.parameters())
    pytfmbs.convert(model, **OPTIONS)
    layer = model[0]
    assert type(layer) is TFMBSLinear
    assert set(model.state_dict()) == set(keys)
    assert {id(p) for p in model.parameters()} == {id(p) for p in parameters}
    assert (layer.init_scale, layer._is_hf_initialized, layer.cache.tolist()) == (0.5, True, [1, 1])
    assert layer.helper() is layer
    again = copy.deepcopy(model)
    assert set(again.state_dict()) == set(keys)
    model.load_state_dict(again.state_dict())


def test_every_hook_moves_along_and_gets_the_new_module() -> None:
    linear = nn.Linear(8, 4)
    seen: list[tuple[str, nn.Module]] = []
    note = lambda name: lambda module, *_: seen.append((name, module))  # noqa: E731
    handles = [
        linear.register_forward_pre_hook(note("pre")),
        linear.register_forward_hook(note("forward")),
        linear.register_full_backward_hook(note("backward")),
        linear.register_state_dict_pre_hook(note("save")),
        linear.register_load_state_dict_pre_hook(note("load")),
        linear.register_load_state_dict_post_hook(note("loaded")),
    ]
    model = nn.Sequential(linear)
    pytfmbs.convert(model, **OPTIONS)
    del linear
    model(torch.randn(2, 8, requires_grad=True)).sum().backward()
    model.load_state_dict(model.state_dict())
    names = ["pre", "forward", "backward", "save", "load", "loaded"]
    assert seen == [(name, model[0]) for name in names]
    for handle in handles:
        handle.remove()
    model(torch.randn(2, 8))
    assert len(seen) == 6


def hold(layer: nn.Linear, how: str) -> Callable[[], Any]:
    """A function that gives the layer out of something that holds it."""
    if how == "nested":
        nested = [({"a": [layer]},)]
        return lambda: nested[0][0]["a"][0]
    if how == "set":
        held = {layer}
        return lambda: next(iter(held))
    if how == "itself":
        cycle: list[Any] = [layer]
        cycle.append(cycle)
        return lambda: cycle[1][0]
    return lambda: layer


@pytest.mark.parametrize("how", ["nested", "set", "itself", "closure"])
def test_layers_that_attributes_hold_indirectly_are_swapped_too(how: str) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.part = functools.partial(nn.Sequential.__call__, input=None, layers=[self.layer])
            self.bound = self.layer.extra_repr
            self.get = hold(self.layer, how)

        def forward(self, x: Tensor) -> Tensor:
            return self.get()(x)  # type: ignore[no-any-return]

    model = pytfmbs.convert(Holder(), **OPTIONS)
    assert type(model.get()) is TFMBSLinear
    assert model.part.keywords["layers"] == [model.layer]
    assert "weight_quantizer" in model.bound()
    wanted = model(torch.ones(1, 8))
    pytfmbs.freeze(model)
    assert type(model.get()) is TFMBSPackedLinear
    assert torch.equal(model(torch.ones(1, 8)), wanted)


def test_layers_in_lists_and_attributes_are_swapped_too() -> None:
    class Parent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.order = [self.a, self.b]
            self.by_name = {"a": self.a}
            self.pair = (self.a, "b")
            object.__setattr__(self, "hidden", self.b)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.order:
                x = layer(x)
            return x

    model = pytfmbs.convert(Parent(), **OPTIONS)
    assert model.order == [model.a, model.b]
    assert model.by_name["a"] is model.pair[0] is model.a
    assert model.hidden is model.b
    assert type(model.b) is TFMBSLinear


def replace_forward(linear: nn.Linear) -> None:
    forward = linear.forward
    linear.forward = lambda x: forward(x)


def wrap_forward(linear: nn.Linear) -> None:
    linear.forward = functools.partial(linear.forward)


def compile_it(linear: nn.Linear) -> None:
    linear.compile(backend="eager")


def replace_method(linear: nn.Linear) -> None:
    linear.extra_repr = lambda: "mine"


def name_it(linear: nn.Linear) -> None:
    linear.name = "mine"


def name_a_buffer(linear: nn.Linear) -> None:
    linear.register_buffer("scale_of", torch.ones(1))
    linear.register_buffer("resident", torch.ones(1))


def weight_norm(linear: nn.Linear) -> None:
    nn.utils.weight_norm(linear)


def parametrize(linear: nn.Linear) -> None:
    nn.utils.parametrizations.orthogonal(linear)


def prune_weight(linear: nn.Linear) -> None:
    prune.l1_unstructured(linear, "weight", 3)


def prune_bias(linear: nn.Linear) -> None:
    prune.l1_unstructured(linear, "bias", 1)


class Tagged(Tensor):
    pass


def subclass(linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(torch.randn(4, 8).as_subclass(Tagged))


def integers(linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(torch.ones(4, 8, dtype=torch.int8), requires_grad=False)


def other_shape(linear: nn.Linear) -> None:
    linear.weight = nn.Parameter(torch.randn(5, 8))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace_forward, "forward was replaced"),
        (wrap_forward, "forward was replaced"),
        (compile_it, "compiled in place"),
        (replace_method, "method 'extra_repr' was replaced"),
        (name_it, "attribute 'name' means something else"),
        (name_a_buffer, "registered as 'resident'"),
        (weight_norm, "no parameter of shape"),
        (parametrize, "no parameter of shape"),
        (prune_weight, "no parameter of shape"),
        (prune_bias, "bias is computed"),
        (subclass, "weight is a Tagged"),
        (integers, "weight is torch.int8; allowed are float32"),
        (other_shape, r"no parameter of shape \(4, 8\)"),
    ],
)
def test_what_cannot_move_along_is_refused(change: Callable[[nn.Linear], None], words: str) -> None:
    linear = nn.Linear(8, 4)
    change(linear)
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(linear))
    refused(model, "1.0", words, EVERY)
    assert type(pytfmbs.convert(model, lambda m, path: path == "0")[0]) is TFMBSLinear


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def test_subclasses_with_numbers_of_their_own() -> None:
    model = nn.Sequential(Scaled(8, 4), nn.Linear(4, 4))
    refused(model, "0", "forward pass of its own", EVERY)
    pytfmbs.convert(model, **OPTIONS)
    assert [type(m) for m in model] == [Scaled, TFMBSLinear]
    assert pytfmbs.summary(model).modules[0].reason == "forward of its own (Scaled)"


# --- meta and accelerate --------------------------------------------------------------------------


def test_layers_on_meta_are_loaded_later() -> None:
    x = torch.randn(3, 8)
    plain = nn.Sequential(nn.Linear(8, 4, bias=False))
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 4, bias=False))
    pytfmbs.convert(model, **OPTIONS).eval()
    for context in (torch.no_grad, torch.enable_grad):
        with context(), pytest.raises(RuntimeError, match="same device"):
            model(x)
    model.load_state_dict(plain.state_dict(), assign=True)
    assert torch.equal(model(x), pytfmbs.convert(plain, **OPTIONS)(x))


def test_offloaded_weights_are_refused(tmp_path: Any) -> None:
    accelerate, hooks = pytest.importorskip("accelerate"), pytest.importorskip("accelerate.hooks")
    build = lambda: nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 4))  # noqa: E731
    refused(accelerate.cpu_offload(build(), "cpu"), "0", "offloaded.*remove_hook_from_module")
    model = accelerate.disk_offload(build(), tmp_path, execution_device="cpu")
    refused(model, "0", "offloaded.*remove_hook_from_module", EVERY)
    model = accelerate.cpu_offload(build(), "cpu")
    hooks.remove_hook_from_module(model, recurse=True)
    assert type(pytfmbs.convert(model, **OPTIONS)[0]) is TFMBSLinear


def test_accelerate_hooks_that_do_not_offload_move_along() -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    seen: list[nn.Module] = []

    class Note(hooks.ModelHook):
        def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            seen.append(module)
            return args, kwargs

        def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:
            return output + 1

    x = torch.randn(2, 8)
    linear = nn.Linear(8, 4)
    wanted = pytfmbs.convert(copy.deepcopy(linear), **OPTIONS)(x) + 1
    hooks.add_hook_to_module(linear, Note())
    model = pytfmbs.convert(nn.Sequential(linear), **OPTIONS)
    assert torch.equal(model(x), wanted)
    assert seen == [model[0]]
    hooks.remove_hook_from_module(model, recurse=True)
    torch.testing.assert_close(model(x), wanted - 1)
    assert len(seen) == 1
    replaced = nn.Linear(8, 4)
    replace_forward(replaced)
    hooks.add_hook_to_module(replaced, Note())
    refused(nn.Sequential(replaced), "0", "forward was replaced")


# --- output heads and adapters --------------------------------------------------------------------


class Language(nn.Module):
    def __init__(self, head: str, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.block = nn.Linear(8, 8)
        self.add_module(head, nn.Linear(8, 12, bias=False))
        if tied:
            self.get_submodule(head).weight = self.embedding.weight


@pytest.mark.parametrize(
    ("head", "tied"), [("lm_head", False), ("embed_out", False), ("out", True)]
)
def test_output_heads_are_left_unless_asked_for(head: str, tied: bool) -> None:
    model = pytfmbs.convert(Language(head, tied), **OPTIONS)
    assert type(model.block) is TFMBSLinear
    assert type(model.get_submodule(head)) is nn.Linear
    reasons = {m.path: m.reason for m in pytfmbs.summary(model).modules}
    assert reasons[head] == ("tied (output head)" if tied else "output head")
    pytfmbs.convert(model, output_heads=True, **OPTIONS)
    assert type(model.get_submodule(head)) is TFMBSLinear
    asked = pytfmbs.convert(Language(head, tied), EVERY, **OPTIONS)
    assert type(asked.get_submodule(head)) is TFMBSLinear
    if tied:
        assert model.get_submodule(head).weight is model.embedding.weight


def test_the_heads_of_transformers_tasks() -> None:
    from small_models import bert, vit

    for build, head in ((vit, "classifier"), (bert, "cls.predictions.decoder")):
        model = pytfmbs.convert(build()[0], **OPTIONS)
        assert type(model.get_submodule(head)) is nn.Linear


def with_peft(config: str, **options: Any) -> nn.Module:
    peft = pytest.importorskip("peft")
    from small_models import llama

    settings = getattr(peft, config)(target_modules=["q_proj", "down_proj"], **options)
    torch.manual_seed(2)
    return peft.get_peft_model(llama()[0], settings)


def test_adapters_are_left_unless_asked_for() -> None:
    for options, kind in (({}, nn.Linear), ({"adapters": True}, TFMBSLinear)):
        model = pytfmbs.convert(
            with_peft("LoraConfig", r=4, init_lora_weights=False), **OPTIONS, **options
        )
        wrapped = model.base_model.model.model.layers[0].self_attn.q_proj
        assert type(wrapped.base_layer) is TFMBSLinear
        assert type(wrapped.lora_A["default"]) is type(wrapped.lora_B["default"]) is kind
        if kind is nn.Linear:
            x = torch.randn(2, 3, 32)
            added = (
                wrapped.lora_B["default"](wrapped.lora_A["default"](x)) * wrapped.scaling["default"]
            )
            torch.testing.assert_close(wrapped(x), wrapped.base_layer(x) + added)


@pytest.mark.parametrize(
    ("config", "options", "words"),
    [
        ("LoraConfig", {"r": 4, "use_dora": True}, "adapter computes with the float weight"),
        ("HRAConfig", {"r": 4}, "computes with its weight"),
    ],
)
def test_adapters_that_compute_with_the_float_weight_are_refused(
    config: str, options: dict[str, Any], words: str
) -> None:
    model = with_peft(config, **options)
    path = "base_model.model.model.layers.0.self_attn.q_proj.base_layer"
    refused(model, path, words)


@pytest.mark.parametrize(
    "config", ["IA3Config", "LoHaConfig", "LoKrConfig", "OFTConfig", "VeraConfig"]
)
def test_adapters_that_call_the_layer(config: str) -> None:
    options = {
        "IA3Config": {"feedforward_modules": []},
        "OFTConfig": {"r": 0, "oft_block_size": 8},
    }.get(config, {"r": 4})
    model = pytfmbs.convert(with_peft(config, **options), **OPTIONS)
    wrapped = model.base_model.model.model.layers[0].self_attn.q_proj
    assert type(wrapped.base_layer) is TFMBSLinear
    called: list[int] = []
    wrapped.base_layer.register_forward_hook(lambda *_: called.append(1))
    wrapped(torch.randn(2, 3, 32))
    assert called


# --- another call ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["an address for two", "a mask too small for a pinned layer"])
def test_another_call_that_fails_changes_no_layer(fault: str) -> None:
    config = pytfmbs.FabricConfig(tiles=2, lanes=15, bank_depth=256)
    with pytfmbs.Fabric(config) as fabric:
        first, second = (TFMBSLinear(250, n, fabric=fabric) for n in (15, 30))
        model = nn.Sequential(nn.ModuleList([first, second])).eval()
        options: dict[str, Any] = {"weight_addr": config.bank_a_base(0)}
        if fault == "a mask too small for a pinned layer":
            second.pin()
            options = {"tile_mask": 1}
        names = first.name, second.name
        with pytest.raises(pytfmbs.PlacementError):
            pytfmbs.convert(model, **options)
        for layer, name in zip((first, second), names, strict=True):
            assert (layer.name, layer.given_weight_addr, layer.given_tile_mask) == (
                name,
                None,
                None,
            )
            with torch.no_grad():
                layer(torch.ones(1, 250))
            assert layer.prefetch()  # it has its place on the device
        assert second.pinned == (fault == "a mask too small for a pinned layer")
        assert set(fabric.profile_detailed()["layers"]) == set(names)


def test_another_call_applies_its_options() -> None:
    others = pytfmbs.convert(nn.Sequential(nn.Linear(8, 8)), **OPTIONS)  # has the name "0" there
    model = pytfmbs.convert(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), **OPTIONS)
    layers, x = list(model), torch.randn(3, 8)
    weights = copy.deepcopy(model.state_dict())
    with pytfmbs.Fabric(pytfmbs.FabricConfig()) as fabric:
        options = {"weight_quantizer": "twn", "activation": "ternary", "ste_clip": 3.0}
        pytfmbs.convert(model, lambda m, path: path == "0", fabric=fabric, **options)
        assert list(model) == layers
        assert model[0].weight_quantizer.name == "twn"
        assert (model[0].activation, model[0].ste_clip, model[0].fabric) == ("ternary", 3.0, fabric)
        assert (model[2].weight_quantizer.name, model[2].activation) == ("absmean", "int8")
        fresh = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        fresh.load_state_dict(weights)
        pytfmbs.convert(fresh, **options)
        assert torch.equal(model[0](x), fresh[0](x))
        model(x)
        assert set(fabric.profile_detailed()["layers"]) == {"0"}
        assert model[0].name == "0"
    del others
    with pytest.raises(ValueError, match="activation is 'x'"):
        pytfmbs.convert(model, activation="x")
    with pytest.raises(TypeError, match="colour"):
        pytfmbs.convert(model, colour="red")
    pytfmbs.convert(model)  # no options: nothing to apply
    assert model[0].weight_quantizer.name == "twn"


def test_another_call_refuses_what_it_cannot_apply() -> None:
    model = nn.Sequential(pytfmbs.freeze(pytfmbs.convert(nn.Linear(8, 8), **OPTIONS)))
    pytfmbs.convert(model, **OPTIONS)
    assert type(model[0]) is TFMBSPackedLinear
    refused(model, "0", "packed.*activation='ternary'.*thaw", activation="ternary")
    layer = TFMBSLinear.from_trits(torch.randint(-1, 2, (4, 8)), 0.5)
    model = nn.Sequential(layer)
    pytfmbs.convert(model, weight_quantizer="absmean")  # ternary already: it keeps its scale
    assert torch.equal(layer.quantized_weight()[1], torch.tensor([0.5]))
    with torch.no_grad():
        layer.weight += torch.rand(4, 8) / 10
    refused(model, "0", "keeps the scale that it was made with", activation="ternary")


# --- the log --------------------------------------------------------------------------------------


def test_one_line_says_what_stayed_in_floats(caplog: pytest.LogCaptureFixture) -> None:
    from small_models import lstm, mixtral

    caplog.set_level("INFO", "pytfmbs")
    pytfmbs.convert(mixtral()[0], **OPTIONS)
    (record,) = caplog.records
    text = record.getMessage()
    assert (record.name, record.levelname) == ("pytfmbs", "WARNING")
    assert "8 of 19 modules" in text
    assert "MixtralExperts x2" in text
    assert "model.layers.0.mlp.experts" in text
    assert "\n" not in text
    caplog.clear()
    pytfmbs.convert(lstm()[0], **OPTIONS)
    assert "LSTM (" in caplog.text
    caplog.clear()
    pytfmbs.convert(nn.Sequential(nn.Conv1d(2, 2, 1)), **OPTIONS)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "0 of 1 modules" in caplog.text
    caplog.clear()
    pytfmbs.convert(nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 8)), **OPTIONS)
    assert [r.levelname for r in caplog.records] == ["INFO"]


def test_weights_of_a_loaded_state_are_seen_by_version() -> None:
    """Whoever holds the state dict counts the parameters' own versions."""
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    pytfmbs.convert(model)
    for layer in model:
        assert not layer._is_shared(layer.weight)
