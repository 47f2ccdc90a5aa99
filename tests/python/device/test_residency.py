"""Who lies where in Bank A: sharing, eviction, given addresses, pins, prefetch, release."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from cases import campaign, generator, tensor
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import Fabric, FabricConfig, PlacementError, TFMBSLinear
from reference import linear, same_bits


@pytest.fixture(params=["closed_form", "stepped"])
def fabric(request: pytest.FixtureRequest) -> Iterator[Fabric]:
    """4 tiles of 15 lanes; Bank A holds 1,024 depths: two layers of 400 x 60, and 224 words
    more."""
    with Fabric(FabricConfig(), engine=request.param) as device:
        yield device


def layer_of(
    fabric: Fabric, name: str, inputs: int = 400, outputs: int = 60, **options: object
) -> TFMBSLinear:
    return TFMBSLinear(inputs, outputs, fabric=fabric, name=name, **options).eval()  # type: ignore[arg-type]


def forward(layer: TFMBSLinear, samples: int = 2, seed: int = 0) -> torch.Tensor:
    """A forward, checked against the reference."""
    x = tensor(generator(seed), (samples, layer.in_features), layer.weight.dtype)
    with torch.no_grad():
        y = layer(x)
    want = linear(x, layer.weight, layer.bias, layer.weight_quantizer.name, layer.activation)
    assert same_bits(y, want)
    return y


def counts(fabric: Fabric) -> tuple[int, int, int]:
    """Hits, misses, evictions."""
    p = fabric.profile()
    return p["residency_hits"], p["residency_misses"], p["evictions"]


def lane_major(layer: TFMBSLinear, config: FabricConfig, slot: int) -> bytes:
    """docs/format.md: the words of the first pass of a layer on the slot-th tile of its mask."""
    trits = layer.quantized_weight()[0].numpy().astype(np.int64)
    rows = trits[slot * config.lanes : (slot + 1) * config.lanes]
    lanes = np.zeros((config.words_per_depth * 15, layer.in_features), np.int64)
    lanes[: len(rows)] = rows
    digits = (lanes % 3).T.reshape(layer.in_features, config.words_per_depth, 3, 5)
    packed = np.zeros((layer.in_features, config.words_per_depth, 4), np.uint8)
    packed[:, :, :3] = (digits * 3 ** np.arange(5)).sum(axis=3)
    return packed.tobytes()


def assert_in_bank(layer: TFMBSLinear) -> None:
    """The layer's words lie where weight_addr says, in every tile of its mask."""
    config = layer.fabric.config
    assert layer.resident
    assert layer.weight_addr is not None
    tiles = [t for t in range(config.tiles) if layer.tile_mask >> t & 1]
    for slot, tile in enumerate(tiles):
        at = layer.weight_addr - config.bank_a_base(0) + config.bank_a_base(tile)
        want = lane_major(layer, config, slot)
        assert layer.fabric.read(at, len(want)) == want, f"tile {tile}"


def test_first_forward_loads_and_the_second_finds(fabric: Fabric) -> None:
    layer = layer_of(fabric, "a")
    assert not layer.resident
    assert layer.weight_addr is None
    first = forward(layer)
    assert counts(fabric) == (0, 1, 0)
    assert_in_bank(layer)
    assert same_bits(forward(layer), first)
    assert counts(fabric) == (1, 1, 0)


@pytest.mark.parametrize("engine", ["closed_form", "stepped"])
@campaign(60)
@given(order=st.lists(st.integers(0, 5), min_size=1, max_size=25), seed=st.integers(0, 2**31))
def test_any_order_over_more_than_sram_holds(engine: str, order: list[int], seed: int) -> None:
    """Six layers of one size, room for three: right results, and the hits of a plain LRU cache."""
    with Fabric(FabricConfig(2, 8, 100), engine=engine) as fabric:
        layers = [
            layer_of(
                fabric, f"l{i}", 33, 16, weight_quantizer=("sign", "twn")[i % 2],
                activation=("ternary", "int8")[i // 3],
            )
            for i in range(6)
        ]  # fmt: skip
        cache: OrderedDict[int, None] = OrderedDict()
        hits = evictions = 0
        first: dict[int, torch.Tensor] = {}
        for index in order:
            y = forward(layers[index], 2, seed + index)
            assert same_bits(first.setdefault(index, y), y)
            hits += index in cache
            if index not in cache and len(cache) == 3:
                cache.popitem(last=False)
                evictions += 1
            cache[index] = None
            cache.move_to_end(index)
        assert counts(fabric) == (hits, len(order) - hits, evictions)
        assert [layer.resident for layer in layers] == [i in cache for i in range(6)]
        for index in cache:
            assert_in_bank(layers[index])
        rows = fabric.profile_detailed()["layers"]
        assert sum(row["evictions"] for row in rows.values()) == evictions
        assert sum(row["residency_hits"] for row in rows.values()) == hits


def test_the_least_recently_used_goes(fabric: Fabric) -> None:
    a, b, c = (layer_of(fabric, name) for name in "abc")
    for layer in (a, b, a, c):
        forward(layer)
    assert (a.resident, b.resident, c.resident) == (True, False, True)
    assert b.weight_addr is None
    assert counts(fabric) == (1, 3, 1)
    assert fabric.profile_detailed()["layers"]["b"]["evictions"] == 1


def test_only_as_many_go_as_must(fabric: Fabric) -> None:
    small = [layer_of(fabric, f"s{i}", 100) for i in range(10)]  # 1,000 of 1,024 words
    for layer in small:
        forward(layer)
    assert counts(fabric) == (0, 10, 0)
    big = layer_of(fabric, "big", 250)
    forward(big)  # 24 free and two of 100 are too little; three make way
    assert [layer.resident for layer in small] == [False] * 3 + [True] * 7
    assert counts(fabric)[2] == 3


def test_disjoint_masks_share_words(fabric: Fabric) -> None:
    low = layer_of(fabric, "low", 1000, 30, tile_mask=0b0011)
    high = layer_of(fabric, "high", 1000, 30, tile_mask=0b1100)
    for _ in range(2):
        forward(low)
        forward(high)
    assert counts(fabric) == (2, 2, 0)
    assert low.weight_addr == high.weight_addr == fabric.config.bank_a_base(0)
    assert_in_bank(low)
    assert_in_bank(high)


# --- streaming -----------------------------------------------------------------------------------


def test_what_does_not_fit_streams(fabric: Fabric) -> None:
    layer = layer_of(fabric, "wide", 1500, 70)
    first = forward(layer)
    assert not layer.resident
    assert layer.weight_addr is None
    assert same_bits(forward(layer), first)
    assert counts(fabric) == (0, 2, 0)
    assert layer.prefetch() is False


def test_a_stream_takes_half_a_bank(fabric: Fabric) -> None:
    """The window wants 512 depths: the older layer, of 600, makes way; the other stays."""
    a, b = layer_of(fabric, "a", 600), layer_of(fabric, "b")
    forward(a)
    forward(b)
    stream = layer_of(fabric, "stream", 3000, 60)
    forward(stream)
    assert (a.resident, b.resident) == (False, True)
    assert counts(fabric) == (0, 3, 1)
    assert_in_bank(b)
    forward(b)
    forward(stream)
    assert counts(fabric) == (1, 4, 1)


def test_a_stream_without_room_is_an_error_and_changes_nothing(fabric: Fabric) -> None:
    keeper = layer_of(fabric, "keeper", 1010, 60)
    keeper.pin()
    stream = layer_of(fabric, "stream", 1100, 60)
    small = layer_of(fabric, "small", 14, 60)
    forward(small)
    before = fabric.profile_detailed()
    for _ in range(2):
        with pytest.raises(PlacementError, match="'stream'"):
            stream(torch.randn(1, 1100))
        assert fabric.profile_detailed() == before
    keeper.unpin()
    forward(stream)
    assert not keeper.resident


# --- given addresses -----------------------------------------------------------------------------


def test_a_given_address_is_kept(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    layer = layer_of(fabric, "given", 100, 60, weight_addr=base + 4 * 500)
    assert layer.weight_addr == base + 4 * 500
    assert not layer.resident
    forward(layer)
    assert_in_bank(layer)
    others = [layer_of(fabric, f"o{i}", 200) for i in range(6)]
    for other in [*others, *others]:
        forward(other)
        assert layer.resident
        assert other.weight_addr is not None
        assert other.weight_addr + 800 <= base + 2000 or other.weight_addr >= base + 2400
    forward(layer)
    assert_in_bank(layer)
    assert fabric.profile_detailed()["layers"]["given"]["residency_hits"] == 1


def test_automatic_layers_make_way(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    automatic = layer_of(fabric, "automatic")
    forward(automatic)
    assert automatic.weight_addr == base
    taken = layer_of(fabric, "taken", 400, 60, weight_addr=base)
    assert not automatic.resident
    assert counts(fabric)[2] == 1
    forward(taken)
    forward(automatic)
    assert automatic.weight_addr == base + 1600
    assert_in_bank(taken)
    assert_in_bank(automatic)


def test_passes_lie_one_after_another(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    layer = layer_of(fabric, "two passes", 40, 100, weight_addr=base + 80)
    forward(layer)
    assert_in_bank(layer)
    trits = layer.quantized_weight()[0]
    second = layer_of(fabric, "second pass alone", 40, 40)
    with torch.no_grad():
        second.weight.copy_(trits[60:])
    forward(second)
    for tile in range(3):  # 40 outputs: 15, 15 and 10
        at = fabric.config.bank_a_base(tile) + 80 + 4 * 40
        assert fabric.read(at, 160) == lane_major(second, fabric.config, tile)


def test_overlap_names_both_layers(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    first = layer_of(fabric, "first", 100, 60, weight_addr=base + 400)
    forward(first)
    before = fabric.profile_detailed()
    for address in (base + 4, base + 400, base + 796):
        with pytest.raises(PlacementError, match=r"'second'.*'first'"):
            layer_of(fabric, "second", 100, 60, weight_addr=address)
    assert fabric.profile_detailed() == before
    for name, address in (("below", base), ("above", base + 800)):  # they touch, and that is fine
        forward(layer_of(fabric, name, 100, 60, weight_addr=address))
    assert first.resident


def test_overlap_is_a_matter_of_tiles(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    a = layer_of(fabric, "a", 1024, 30, weight_addr=base, tile_mask=0b0101)
    b = layer_of(fabric, "b", 1024, 30, weight_addr=base, tile_mask=0b1010)
    forward(a)
    forward(b)
    assert_in_bank(a)
    assert_in_bank(b)
    assert counts(fabric) == (0, 2, 0)


@pytest.mark.parametrize("words", [-1, 1024, 925])
def test_addresses_outside_the_bank(fabric: Fabric, words: int) -> None:
    with pytest.raises(PlacementError, match="'far'"):
        layer_of(fabric, "far", 100, 60, weight_addr=fabric.config.bank_a_base(0) + 4 * words)
    with pytest.raises(PlacementError, match="multiples of 4"):
        layer_of(fabric, "odd", 100, 60, weight_addr=fabric.config.bank_a_base(0) + 2)
    assert fabric.profile_detailed()["layers"] == {}


def test_a_layer_moves(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    layer = layer_of(fabric, "mover", 100, 60)
    other = layer_of(fabric, "other", 100, 60, weight_addr=base)
    forward(layer)
    layer.weight_addr = base + 4 * 300
    forward(layer)
    assert layer.weight_addr == base + 4 * 300
    assert_in_bank(layer)
    with pytest.raises(PlacementError, match=r"'mover'.*'other'"):
        layer.weight_addr = base
    assert layer.weight_addr == base + 4 * 300
    forward(layer)
    layer.tile_mask = 0b1001
    assert layer.telemetry_hint["tile_mask"] == 0b1001
    forward(layer)
    assert_in_bank(layer)
    layer.weight_addr = layer.tile_mask = None
    forward(layer)
    assert layer.tile_mask == 0b1111
    assert_in_bank(layer)
    assert layer.name == "mover"
    forward(other)


# --- pin, prefetch, release, low-level loads -----------------------------------------------------


def test_pinned_layers_stay(fabric: Fabric) -> None:
    pinned, *others = (layer_of(fabric, name) for name in "pabc")
    pinned.pin()
    assert pinned.pinned
    assert pinned.resident
    for other in [*others, *others]:
        forward(other)
        assert pinned.resident
    forward(pinned)
    assert fabric.profile_detailed()["layers"]["p"]["evictions"] == 0
    pinned.unpin()
    for other in others:
        forward(other)
    assert not pinned.resident


def test_pin_that_cannot_be(fabric: Fabric) -> None:
    """Too large, or beside what is pinned no room: an error, and the layer is as it was."""
    large = layer_of(fabric, "large", 1100, 60)
    with pytest.raises(PlacementError, match="'large'"):
        large.pin()
    assert not large.pinned
    first = layer_of(fabric, "first", 1000)
    late = layer_of(fabric, "late", 100)
    first.pin()
    with pytest.raises(PlacementError, match="'late'"):
        late.pin()  # 24 words are left: enough to stream through, not to stay
    assert not late.pinned
    assert first.resident
    forward(late)
    # The refused pin must not come into force later.
    first.unpin()
    forward(late)
    assert late.resident
    forward(layer_of(fabric, "next", 1000))
    assert not late.resident


def test_pin_without_any_room_leaves_nothing_behind(fabric: Fabric) -> None:
    first = layer_of(fabric, "first", 1015)
    late = layer_of(fabric, "late", 100)
    first.pin()
    with pytest.raises(PlacementError, match="'late'"):
        late.pin()  # 9 words: not even a window
    assert not late.pinned
    first.unpin()
    forward(late)
    forward(layer_of(fabric, "next", 1000))
    assert not late.resident


def test_prefetch(fabric: Fabric) -> None:
    layer = layer_of(fabric, "early")
    assert layer.prefetch() is True
    assert_in_bank(layer)
    loaded = fabric.profile()
    assert (loaded["cycles"], loaded["dma_cycles"], loaded["mem_reads"]) == (1600,) * 3
    assert counts(fabric) == (0, 1, 0)
    assert layer.prefetch() is True
    assert fabric.profile()["cycles"] == 1600
    fabric.reset_counters()
    forward(layer)
    assert counts(fabric) == (1, 0, 0)


def test_prefetch_of_what_streams_moves_nobody(fabric: Fabric) -> None:
    a, b = layer_of(fabric, "a"), layer_of(fabric, "b")
    forward(a)
    forward(b)
    assert layer_of(fabric, "stream", 2000).prefetch() is False
    a.pin()
    b.pin()
    a_late = layer_of(fabric, "late", 300)
    assert a_late.prefetch() is False
    assert a.resident
    assert b.resident
    assert counts(fabric)[2] == 0


def test_prefetch_that_fails_for_pins_evicts_nobody(fabric: Fabric) -> None:
    a, b = layer_of(fabric, "a", 400), layer_of(fabric, "b", 400)
    a.pin()
    forward(b)
    assert layer_of(fabric, "late", 800).prefetch() is False  # 624 words beside the pinned one
    assert b.resident
    assert counts(fabric)[2] == 0


def test_a_deleted_layer_gives_its_space_back(fabric: Fabric) -> None:
    base = fabric.config.bank_a_base(0)
    layer = layer_of(fabric, "gone", 900, weight_addr=base)
    forward(layer)
    assert list(fabric.profile_detailed()["layers"]) == ["gone"]
    before = fabric.profile()
    del layer
    gc.collect()
    assert fabric.profile_detailed()["layers"] == {}
    assert fabric.profile() == before  # what it counted stays the device's
    other = layer_of(fabric, "gone", 1000, weight_addr=base)
    assert other.name == "gone"
    forward(other)
    assert counts(fabric)[2] == 0


def test_deleted_pins_do_not_stay(fabric: Fabric) -> None:
    for i in range(5):
        layer = layer_of(fabric, f"p{i}", 1000)
        layer.pin()
        forward(layer)
        del layer
        gc.collect()
    assert counts(fabric) == (5, 5, 0)


def test_a_low_level_load_over_a_layer(fabric: Fabric) -> None:
    layer, other = layer_of(fabric, "under"), layer_of(fabric, "beside")
    first = forward(layer)
    forward(other)
    fabric.load(fabric.config.bank_a_base(2) + 4 * 399, bytes(4))  # its last word in tile 2
    assert not layer.resident
    assert other.resident
    assert counts(fabric)[2] == 1
    assert same_bits(forward(layer), first)
    assert_in_bank(layer)
    assert counts(fabric) == (0, 3, 1)
    fabric.load(fabric.config.bank_a_base(2) + 4 * 1000, bytes(4))  # nobody's
    assert counts(fabric) == (0, 3, 1)


def test_a_load_elsewhere_moves_nobody(fabric: Fabric) -> None:
    layer = layer_of(fabric, "safe", 400, 15)  # on tile 0 alone
    forward(layer)
    for address in (
        fabric.config.bank_a_base(1), fabric.config.bank_b_base(0), fabric.config.broadcast_base,
        fabric.config.results_base(0),
    ):  # fmt: skip
        fabric.load(address, bytes(4))
    assert layer.resident
    forward(layer)
    assert counts(fabric) == (1, 1, 0)


def test_an_empty_batch_does_nothing(fabric: Fabric) -> None:
    layer = layer_of(fabric, "idle")
    assert layer(torch.empty(0, 400)).shape == (0, 60)
    assert not layer.resident
    assert fabric.profile()["cycles"] == 0
    assert counts(fabric) == (0, 0, 0)


def test_without_telemetry_residency_is_the_same(fabric: Fabric) -> None:
    fabric.telemetry = False
    a, b, c = (layer_of(fabric, name) for name in "abc")
    for layer in (a, b, a, c):
        forward(layer)
    assert (a.resident, b.resident, c.resident) == (True, False, True)
    assert not any(value for key, value in fabric.profile().items() if key != "layers")
    assert_in_bank(c)
    fabric.telemetry = True
    forward(a)
    assert counts(fabric) == (1, 0, 0)


def test_profile_and_hint_agree(fabric: Fabric) -> None:
    layer = layer_of(fabric, "both", 200, 20, weight_quantizer="twn")
    forward(layer)
    row, hint = fabric.profile_detailed()["layers"]["both"], layer.telemetry_hint
    for key in ("sparsity", "tile_mask", "weight_addr", "resident"):
        assert row[key] == hint[key], key
    assert hint["layer"] == "both"
    assert hint["tile_mask"] == 0b11
    assert 0 < hint["sparsity"] < 1


def test_layers_of_two_devices_do_not_meet() -> None:
    with Fabric(FabricConfig(bank_depth=100)) as one, Fabric(FabricConfig(bank_depth=100)) as two:
        a, b = layer_of(one, "same", 90), layer_of(two, "same", 90)
        assert (a.name, b.name) == ("same", "same")
        forward(a)
        forward(b)
        assert a.resident
        assert b.resident
        assert counts(one) == counts(two) == (0, 1, 0)
