"""``_fabric.estimate_forward`` and its neighbours against a device, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import Fabric, FabricConfig, _fabric


def estimate(config: FabricConfig, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "outputs": 60,
        "depth": 784,
        "samples": 32,
        "activation": "ternary",
        "tile_mask": 15,
        "first_word": 0,
        "words": 784,
        "streamed": False,
        "loaded": True,
        "engine_cycles_per_job": 791.0,
    }
    return _fabric.estimate_forward(config, **arguments | changes)


@pytest.mark.parametrize("group", [0, 32, 128])
@pytest.mark.parametrize(
    ("depth", "streamed", "words"), [(784, False, 784), (3000, True, 1024)], ids=str
)
def test_estimate_equals_counters_where_no_activation_is_zero(
    depth: int, streamed: bool, words: int, group: int
) -> None:
    config = FabricConfig()
    mask = _fabric.default_tile_mask(config, 60)
    assert mask == 15
    assert _fabric.placement_words(config, 60, depth, mask) == depth
    fabric = Fabric(config)
    trits = torch.randint(0, 2, (60, depth), dtype=torch.int8) * 2 - 1
    scales = torch.ones(60, -(-depth // group)) if group else torch.ones(1)
    layer = pytfmbs.TFMBSPackedLinear.from_trits(
        trits, scales, group_size=group or None, activation="ternary", fabric=fabric
    )
    x = torch.ones(32, depth)
    for loaded in (False, True):
        fabric.reset_counters()
        layer(x)
        profile = fabric.profile()
        place = {"depth": depth, "streamed": streamed, "words": words, "loaded": loaded}
        place["group_depth"] = group
        jobs = estimate(config, **place, engine_cycles_per_job=7.0)["jobs"]
        mean = profile["compute_cycles"] / jobs
        got = estimate(config, **place, engine_cycles_per_job=mean)
        for key in ("cycles", "compute_cycles", "dma_cycles", "mem_reads", "mem_writes"):
            assert got[key] == profile[key], key


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"outputs": 0}, pytfmbs.ArgumentError, "outputs is 0; allowed are 1 to 4294967296"),
        (
            {"outputs": 2**70},
            pytfmbs.ArgumentError,
            "outputs is 1180591620717411303424; allowed are",
        ),
        ({"depth": -1}, pytfmbs.ArgumentError, "depth is -1; allowed are"),
        ({"samples": -1}, pytfmbs.ArgumentError, "samples is -1; allowed are"),
        (
            {"samples": 2**64 - 1},
            pytfmbs.ArgumentError,
            r"of 18446744073709551615 samples through 60 x 784.*2\^52 multiplications",
        ),
        (
            {"activation": "int4"},
            pytfmbs.ArgumentError,
            "activation is 'int4'; allowed are 'ternary', 'int8'",
        ),
        ({"tile_mask": 0}, pytfmbs.ArgumentError, "tile_mask is 0; allowed are 1 to 15"),
        ({"tile_mask": 16}, pytfmbs.ArgumentError, "tile_mask is 16; allowed are .* to 15"),
        ({"words": 783}, pytfmbs.PlacementError, "layer of 783 words; this one takes 784"),
        (
            {"first_word": 2**32 - 1},
            pytfmbs.PlacementError,
            "784 words from word 4294967295 on; Bank A has 1024",
        ),
        (
            {"first_word": 2**32},
            pytfmbs.PlacementError,
            "first_word is 4294967296; allowed are 0 to 4294967295",
        ),
        (
            {"streamed": True, "words": 14},
            pytfmbs.PlacementError,
            "window of 14 words; the smallest is 15",
        ),
        (
            {"engine_cycles_per_job": 6.0},
            pytfmbs.ArgumentError,
            "engine_cycles_per_job is 6.0*; .* takes 7 to 791 cycles",
        ),
        (
            {"engine_cycles_per_job": float("nan")},
            pytfmbs.ArgumentError,
            "engine_cycles_per_job is nan; .* 7 to 791",
        ),
        (
            {"engine_cycles_per_job": 1e300},
            pytfmbs.ArgumentError,
            "engine_cycles_per_job is 1000000.*; .* 7 to 791",
        ),
        ({"depth": 1.5}, TypeError, "depth must be an integer, not float"),
        ({"outputs": None}, TypeError, "outputs: NoneType"),
    ],
    ids=str,
)
def test_estimate_refuses(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        estimate(FabricConfig(), **changes)


def test_windows() -> None:
    assert _fabric.min_window_words(FabricConfig()) == 15
    assert _fabric.wanted_window_words(FabricConfig()) == 512
    assert _fabric.min_window_words(FabricConfig(2, 40, 64)) == 45


def test_spec_names_a_device() -> None:
    assert Fabric().spec == "fabric=default"
    fabric = Fabric(FabricConfig(2, 7, 30), engine="stepped")
    assert fabric.spec.startswith(f"fabric={fabric.name};engine=stepped;tiles=2;lanes=7;")
    with pytest.raises(AttributeError):
        fabric.spec = ""  # type: ignore[misc]
