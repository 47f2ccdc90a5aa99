"""Fused decoder blocks: the tokens and telemetry of the layers as they were, in every cache; and the
layers themselves wherever one call cannot stand in for them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import pytfmbs
import torch
from decoder_models import FAMILIES, LAYERS, prompt, small_model
from pytfmbs import TFMBSPackedLinear
from pytfmbs.decoding import block, prepare_for_decode, restore_after_decode
from pytfmbs.decoding.block import FusedLayer
from pytfmbs.ops import decode_ops
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a call of the op, of its position."""
    made: list[int] = []
    op = decode_ops.decode_block

    def counted(*arguments: Any) -> torch.Tensor:
        made.append(int(arguments[6]))
        return op(*arguments)

    monkeypatch.setattr(block.decode_ops, "decode_block", counted)
    return made


def generated(model: Any, ids: torch.Tensor, tokens: int = 20, **options: Any) -> torch.Tensor:
    return model.generate(ids, max_new_tokens=tokens, do_sample=False, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_the_same(
    family: str, cache: str | None, attention: str, calls: list[int]
) -> None:
    model, ids = small_model(family, attention=attention), prompt()
    options = {"cache_implementation": cache} if cache else {}
    expected = generated(model, ids, **options)
    report = prepare_for_decode(model)
    assert len(report.fused) == LAYERS
    assert not report.left
    got = generated(model, ids, **options)
    assert torch.equal(got, expected)
    # The prompt's last position gives the first token.
    assert calls == [7 + step for step in range(19) for _ in range(LAYERS)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_block_gives_the_layers_numbers(family: str, dtype: torch.dtype) -> None:
    """Within roundings, and quanta of int8 that they tip: 1 % of the largest value."""
    model = small_model(family, dtype)
    caches = [DynamicCache(config=model.config) for _ in range(2)]
    with torch.no_grad():
        for cache in caches:
            model(prompt(30), past_key_values=cache)
        layer = model.model.layers[0]
        hidden = torch.randn(1, 1, 64).to(dtype)
        angles = model.model.rotary_emb(hidden, position_ids=torch.tensor([[30]]))
        expected = layer(hidden, past_key_values=caches[0], position_embeddings=angles)
        prepare_for_decode(model)
        got = layer(hidden, past_key_values=caches[1], position_embeddings=angles)
    assert type(layer).__mro__[1] is FusedLayer
    assert got.dtype == dtype
    bound = 0.01 if dtype == torch.float32 else 0.03
    assert (got - expected).abs().max() <= bound * expected.abs().max()
    for mine, theirs in zip(caches[1].layers, caches[0].layers, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys, rtol=0.02, atol=0.02)
        torch.testing.assert_close(mine.values, theirs.values, rtol=0.02, atol=0.02)


def test_a_cache_that_grows(calls: list[int]) -> None:
    """Past the room that is taken at first, and past the next."""
    model, ids = small_model("Llama"), prompt(3)
    expected = generated(model, ids, 300)
    prepare_for_decode(model)
    assert torch.equal(generated(model, ids, 300), expected)
    assert len(calls) == 299 * LAYERS


@pytest.mark.parametrize("cache", [None, "static"])
def test_sequences_of_several_lengths(cache: str | None, calls: list[int]) -> None:
    model, ids = small_model("BitNet"), prompt(8, 3)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 3, 5)):
        ids[row, :padding] = 0
        mask[row, :padding] = 0
    options = {"cache_implementation": cache} if cache else {}
    expected = generated(model, ids, attention_mask=mask, **options)
    prepare_for_decode(model)
    assert torch.equal(generated(model, ids, attention_mask=mask, **options), expected)
    assert calls


def test_beams(calls: list[int]) -> None:
    """Beam search reorders and repeats the cache between steps."""
    model, ids = small_model("Llama"), prompt()
    expected = generated(model, ids, num_beams=3)
    prepare_for_decode(model)
    assert torch.equal(generated(model, ids, num_beams=3), expected)
    assert calls


def test_copies_of_a_cache_go_on_apart(calls: list[int]) -> None:
    model, ids = small_model("Llama"), prompt(9)

    def logits() -> list[torch.Tensor]:
        cache = DynamicCache(config=model.config)
        model(ids, past_key_values=cache)
        model(torch.tensor([[5]]), past_key_values=cache)
        shallow = copy.copy(cache)
        shallow.layers = [copy.copy(layer) for layer in cache.layers]
        copies = [cache, copy.deepcopy(cache), shallow]
        rows = []
        for step in range(3):
            for token, one in enumerate(copies):
                text = torch.tensor([[20 * token + step + 3]])
                rows.append(model(text, past_key_values=one).logits)
        copies[0].crop(-2)
        rows.append(model(torch.tensor([[77]]), past_key_values=copies[0]).logits)
        return rows

    with torch.no_grad():
        expected = logits()
        prepare_for_decode(model)
        got = logits()
    assert calls
    for mine, theirs in zip(got, expected, strict=True):
        assert (mine - theirs).abs().max() <= 0.01 * theirs.abs().max()


def test_telemetry_is_the_same() -> None:
    # A device of the test's own: the default one still counts layers that no one has collected yet.
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig())
    model, ids = small_model("Llama", fabric=fabric), prompt()

    def counters() -> dict[str, Any]:
        fabric.reset_counters()
        generated(model, ids, 6)
        return fabric.profile_detailed()["layers"]

    counters()  # what is resident from now on
    expected = counters()
    prepare_for_decode(model)
    got = counters()
    assert len(got) == 7 * LAYERS
    assert got.keys() == expected.keys()
    for name, entry in got.items():
        assert entry["residency_hits"] == expected[name]["residency_hits"]
        # An activation that a rounding tips has other digits.
        assert entry["cycles"] == pytest.approx(expected[name]["cycles"], rel=0.02)
        assert entry["active_ops"] == pytest.approx(expected[name]["active_ops"], rel=0.02)


# --- where one call cannot stand in ---------------------------------------------------------------


def test_an_observed_module_is_called(calls: list[int]) -> None:
    model, ids = small_model("Llama"), prompt()
    prepare_for_decode(model)
    seen: list[torch.Size] = []
    projection = model.model.layers[1].self_attn.k_proj
    handle = projection.register_forward_hook(lambda *arguments: seen.append(arguments[2].shape))
    generated(model, ids, 5)
    assert len(seen) == 5
    assert len(calls) == 4  # of the other layer
    handle.remove()
    generated(model, ids, 5)
    assert len(calls) == 4 + 4 * LAYERS


def test_a_replaced_module_is_called(calls: list[int]) -> None:
    model, ids = small_model("Llama"), prompt()
    prepare_for_decode(model)
    attention = model.model.layers[0].self_attn

    class Doubled(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * self.inner(x)

    attention.o_proj = Doubled(attention.o_proj)
    got = generated(model, ids)
    assert len(calls) == 19  # of the other layer
    restore_after_decode(model)
    assert torch.equal(got, generated(model, ids))


def test_states_and_attentions_are_still_given() -> None:
    model, ids = small_model("Llama", attention="eager"), prompt()

    def outputs() -> Any:
        cache = DynamicCache(config=model.config)
        with torch.no_grad():
            model(ids, past_key_values=cache)
            return model(
                torch.tensor([[9]]),
                past_key_values=cache,
                output_hidden_states=True,
                output_attentions=True,
            )

    expected = outputs()
    prepare_for_decode(model)
    got = outputs()
    for name in ("hidden_states", "attentions"):
        assert len(got[name]) == len(expected[name])
        for mine, theirs in zip(got[name], expected[name], strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.02)


def test_gradients_training_and_autocast_take_the_layers_own_way(calls: list[int]) -> None:
    model, ids = small_model("Llama"), prompt()
    prepare_for_decode(model)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids, past_key_values=cache)
    out = model(torch.tensor([[4]]), past_key_values=cache)
    out.logits.sum().backward()
    assert model.model.norm.weight.grad is not None
    with torch.no_grad():
        model.train()
        model(torch.tensor([[4]]), past_key_values=cache)
        model.eval()
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.tensor([[4]]), past_key_values=DynamicCache(config=model.config))
        model(torch.tensor([[4]]))  # nothing to attend to but itself
    assert not calls


def decoded(model: Any, cache: Any = None) -> torch.Tensor:
    """Logits of a token after the prompt."""
    cache = DynamicCache(config=model.config) if cache is None else cache
    with torch.no_grad():
        model(prompt(), past_key_values=cache)
        return model(torch.tensor([[5]]), past_key_values=cache).logits


def renumber(model: Any) -> None:
    model.model.layers = torch.nn.ModuleList(reversed(model.model.layers))
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index


def other_settings(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.scaling = 2.0
        layer.input_layernorm.variance_epsilon = 1.0
        layer.post_attention_layernorm.variance_epsilon = 1.0


def other_gate(model: Any) -> None:
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.ReLU()


@pytest.mark.parametrize(
    ("change", "fused"), [(renumber, LAYERS), (other_settings, LAYERS), (other_gate, 0)]
)
def test_what_changes_after_preparing(change: Any, fused: int, calls: list[int]) -> None:
    expected = small_model("Llama")
    change(expected)
    model = small_model("Llama")
    prepare_for_decode(model)
    change(model)
    torch.testing.assert_close(decoded(model), decoded(expected), rtol=0.01, atol=0.05)
    assert len(calls) == fused


def test_a_cache_of_another_class_is_updated_by_itself(calls: list[int]) -> None:
    class Doubled(DynamicCache):
        def update(self, keys: Any, values: Any, *arguments: Any, **options: Any) -> Any:
            return super().update(2 * keys, 2 * values, *arguments, **options)

    model = small_model("Llama")
    expected = decoded(model, Doubled(config=model.config))
    prepare_for_decode(model)
    assert torch.equal(decoded(model, Doubled(config=model.config)), expected)
    assert not calls


def test_a_cache_is_pickled() -> None:
    model = small_model("Llama")
    prepare_for_decode(model)
    cache = DynamicCache(config=model.config)
    decoded(model, cache)
    again = pickle.loads(pickle.dumps(cache))
    with torch.no_grad():
        rows = [model(torch.tensor([[9]]), past_key_values=c).logits for c in (cache, again)]
    assert torch.equal(*rows)


def test_a_hook_of_all_modules_sees_them(calls: list[int]) -> None:
    model = small_model("Llama")
    prepare_for_decode(model)
    seen: set[str] = set()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.add(type(module).__name__)
    )
    try:
        decoded(model)
    finally:
        handle.remove()
    assert "TFMBSPackedLinear" in seen
    assert not calls


def test_a_part_of_a_larger_layer_is_not_fused(calls: list[int]) -> None:
    model = small_model("Llama")
    prepare_for_decode(model)
    part = model.model.layers[0].mlp.down_proj

    class Share:
        def forward(self, layer: Any, input: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*input.shape[:-1], layer.out_features)

    part.__dict__["_share"] = Share()
    decoded(model)
    assert len(calls) == 1  # of the other layer
    restore_after_decode(model)
    assert "larger layer" in prepare_for_decode(model).left["model.layers.0"]


def test_attention_in_training_drops_out(calls: list[int]) -> None:
    model = small_model("Llama", attention_dropout=0.5)
    prepare_for_decode(model)
    for layer in model.model.layers:
        layer.self_attn.train()
    decoded(model)
    assert not calls


def test_another_dtype_after_preparing(calls: list[int]) -> None:
    model, ids = small_model("Llama"), prompt()
    prepare_for_decode(model)
    model.to(torch.float16)
    assert generated(model, ids, 4).shape == (1, 11)
    assert not calls
    model.to(torch.bfloat16)
    generated(model, ids, 4)
    assert len(calls) == 3 * LAYERS


# --- preparing and undoing ------------------------------------------------------------------------


def test_preparing_is_undone() -> None:
    model = small_model("BitNet")
    before = {name: type(module) for name, module in model.named_modules()}
    keys = list(model.state_dict())
    prepare_for_decode(model, int8_head=True)
    again = prepare_for_decode(model, int8_head=True)
    assert len(again.fused) == LAYERS
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    assert torch.equal(generated(twin, prompt()), generated(model, prompt()))
    restore_after_decode(model)
    restore_after_decode(model)
    assert {name: type(module) for name, module in model.named_modules()} == before
    assert not any(key.startswith("_tfmbs") for m in model.modules() for key in m.__dict__)
    assert any(isinstance(module, FusedLayer) for module in twin.modules())


def test_saving_a_prepared_model(tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    model, ids = small_model("Llama"), prompt()
    expected = generated(model, ids)
    prepare_for_decode(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded.model.layers[0]).__name__ == "LlamaDecoderLayer"
    assert torch.equal(generated(loaded, ids), expected)


def test_what_is_refused() -> None:
    with pytest.raises(pytfmbs.ArgumentError, match="both False"):
        prepare_for_decode(small_model("Llama"), fused_blocks=False)
    with pytest.raises(pytfmbs.ArgumentError, match=r"q_proj is a TFMBSLinear.*freeze"):
        prepare_for_decode(small_model("Llama", frozen=False))
    with pytest.raises(pytfmbs.ArgumentError, match="head size is 8"):
        prepare_for_decode(small_model("Llama", head_dim=8))
    with pytest.raises(pytfmbs.ArgumentError, match="its gate is gelu"):
        prepare_for_decode(small_model("Llama", hidden_act="gelu"))
    with pytest.raises(pytfmbs.ArgumentError, match="sliding window"):
        prepare_for_decode(small_model("Mistral", sliding_window=16))
    gpt = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=50))
    with pytest.raises(pytfmbs.ArgumentError, match="the model has none"):
        prepare_for_decode(gpt)


def test_a_part_that_is_left_is_named() -> None:
    model = small_model("Llama")
    part = model.model.layers[1].mlp
    part.down_proj = torch.nn.Linear(88, 64, bias=False)
    report = prepare_for_decode(model)
    assert report.fused == ("model.layers.0",)
    assert "down_proj is a Linear" in report.left["model.layers.1"]
    assert "1 decoder layers fused, 1 left" in str(report)
    assert generated(model, prompt()).shape == (1, 27)


# --- the op ---------------------------------------------------------------------------------------


def op_arguments() -> list[Any]:
    """Of a block of 2 heads of 16 that share one key head; hidden size 24, feed-forward 40."""
    sizes = [(32, 24), (16, 24), (16, 24), (24, 32), (40, 24), (40, 24), (24, 40)]
    layers = [
        TFMBSPackedLinear.from_trits(torch.randint(-1, 2, size, dtype=torch.int8), 0.1)
        for size in sizes
    ]
    return [
        torch.randn(1, 1, 24),
        *torch.randn(2, 1, 1, 16),
        None,
        torch.randn(1, 1, 5, 16),
        torch.randn(1, 1, 5, 16),
        torch.tensor(3),
        [torch.ones(24), torch.ones(24)],
        1e-6,
        [layer._panels for layer in layers],
        [layer._scales for layer in layers],
        [torch.empty(0)] * 7,
        [layer._own_identity for layer in layers],
        ",".join(layer._packed_layout() for layer in layers),
        [0] * 7,
        "int8",
        "silu",
        2,
        40,
        0.25,
    ]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, torch.randn(1, 2, 24), "hidden is of sizes [1, 2, 24]"),
        (0, torch.randn(1, 1, 24).double(), "float32 or bfloat16"),
        (1, torch.randn(1, 1, 8), "cosines and sines must be"),
        (3, torch.ones(1, 1, 1, 3, dtype=torch.bool), "mask is of sizes [1, 1, 1, 3]"),
        (3, torch.ones(1, 1, 1, 5, dtype=torch.int64), "mask must be bool"),
        (4, torch.randn(1, 1, 6, 16), "the same sizes and strides"),
        (6, torch.tensor(5), "position 5 is outside of the cache's 5"),
        (6, torch.tensor(-1), "position -1"),
        (6, torch.tensor(3, dtype=torch.int32), "one int64"),
        (7, [torch.ones(24)] * 3, "2 or 4 norms, not 3"),
        (7, [torch.ones(24), torch.ones(25)], "norm 1 is of sizes [25]"),
        (10, [torch.ones(1)] * 6, "a block has 7 layers"),
        (11, [torch.ones(3)] * 7, "the bias of layer 0"),
        (13, "int8_quads", "unknown"),
        (16, "gelu", 'gate is "gelu"'),
        (17, 0, "0 heads"),
        (18, 400, "panels hold"),
        (18, 0, "feed_forward is 0"),
    ],
)
def test_the_op_refuses(place: int, value: Any, message: str) -> None:
    arguments = op_arguments()
    keys, position = arguments[4].clone(), int(arguments[6])
    given = list(arguments)
    given[place] = value
    with pytest.raises(RuntimeError) as raised:
        decode_ops.decode_block(*given)
    if message != "unknown":
        assert message in str(raised.value)
    assert torch.equal(arguments[4], keys)
    assert int(arguments[6]) == position


def test_the_op_takes_what_is_right() -> None:
    arguments = op_arguments()
    out = decode_ops.decode_block(*arguments)
    assert out.shape == (1, 1, 24)
    assert int(arguments[6]) == 4
    torch.library.opcheck(
        decode_ops.decode_block, tuple(arguments), test_utils=["test_schema", "test_faketensor"]
    )
