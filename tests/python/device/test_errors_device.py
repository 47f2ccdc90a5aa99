"""Bad input to a device, its configuration and its tasks: an error that says what is wrong, and the
device as before."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch
from bad_calls import (
    BANK_A,
    BANK_B,
    CONFIG,
    HUGE,
    NAN,
    WORD,
    Case,
    Stage,
    assert_refused,
    each,
    setter,
)
from pytfmbs import (
    TFD,
    AddressError,
    ArgumentError,
    ClosedError,
    DescriptorError,
    EncodingError,
    Fabric,
    FabricConfig,
    FabricError,
    GeometryError,
    PlacementError,
    TFMBSLinear,
)


class BadIndex:
    def __index__(self) -> int:
        raise OverflowError("no number today")


def closed() -> Fabric:
    fabric = Fabric(CONFIG)
    fabric.close()
    return fabric


def closed_layer() -> TFMBSLinear:
    fabric = Fabric(CONFIG)
    layer = TFMBSLinear(4, 2, fabric=fabric)
    fabric.close()
    return layer


CASES: list[Case] = [
    # FabricConfig
    ("config: no tiles", lambda s: FabricConfig(0), GeometryError, "tiles is 0; allowed are 1"),
    ("config: 65 tiles", lambda s: FabricConfig(65), GeometryError, "1 to 64"),
    ("config: negative", lambda s: FabricConfig(-1), GeometryError, "tiles is -1"),
    ("config: huge", lambda s: FabricConfig(HUGE), GeometryError, "integer of 20001 bits"),
    ("config: float", lambda s: FabricConfig(4.0), TypeError, "tiles must be an integer"),
    ("config: bool", lambda s: FabricConfig(True), TypeError, "tiles must be an integer"),
    ("config: text", lambda s: FabricConfig(lanes="4"), TypeError, "lanes must be an integer"),
    ("config: no lanes", lambda s: FabricConfig(lanes=0), GeometryError, "lanes is 0"),
    ("config: lanes", lambda s: FabricConfig(lanes=65_537), GeometryError, "65536"),
    ("config: depth", lambda s: FabricConfig(bank_depth=14), GeometryError, "bank_depth is 14"),
    ("config: deep", lambda s: FabricConfig(bank_depth=1 << 23), GeometryError, "bank_depth"),
    ("config: map", lambda s: FabricConfig(64, 65_536, 1 << 22), GeometryError, "32-bit"),
    ("config: NaN", lambda s: FabricConfig(mac_pj=NAN), GeometryError, "mac_pj is nan"),
    ("config: inf", lambda s: FabricConfig(sram_pj=math.inf), GeometryError, "sram_pj is inf"),
    ("config: < 0", lambda s: FabricConfig(dram_pj=-1), GeometryError, "dram_pj is -1"),
    ("config: pJ", lambda s: FabricConfig(mac_pj="1"), TypeError, "incompatible"),
    ("config: index", lambda s: FabricConfig(BadIndex()), OverflowError, "no number today"),
    (
        "config: tile",
        lambda s: CONFIG.bank_a_base(2),
        AddressError,
        "tile is 2; allowed are 0 to 1",
    ),
    ("config: tile -1", lambda s: CONFIG.bank_b_base(-1), AddressError, "tile is -1"),
    ("config: tile 1.0", lambda s: CONFIG.results_base(1.0), TypeError, "tile must be an integer"),
    (
        "config: pickle",
        lambda s: FabricConfig.__new__(FabricConfig).__setstate__((0, 1, 15, 0.0, 0.0, 0.0)),
        GeometryError,
        "tiles is 0",
    ),
    # TFD
    ("tfd: nothing", lambda s: TFD(), TypeError, "incompatible"),
    ("tfd: text", lambda s: TFD("1"), TypeError, "depth must be an integer, not str"),
    ("tfd: float", lambda s: TFD(1.0), TypeError, "depth must be an integer, not float"),
    ("tfd: < 0", lambda s: TFD(-1), DescriptorError, "depth is -1"),
    ("tfd: huge", lambda s: TFD(HUGE), DescriptorError, "depth is an integer of"),
    ("tfd: lanes", lambda s: TFD(1, None), TypeError, "NoneType"),
    ("tfd: tile_mask", lambda s: TFD(1, tile_mask=1 << 64), DescriptorError, "tile_mask is"),
    ("tfd: lane_mask", lambda s: TFD(1, lane_mask=-1), DescriptorError, "lane_mask is -1"),
    ("tfd: lane_mask text", lambda s: TFD(1, lane_mask="1"), TypeError, "lane_mask must be"),
    (
        "tfd: lane_mask huge",
        lambda s: TFD(1, lane_mask=1 << (1 << 26)),
        DescriptorError,
        "65536 lanes",
    ),
    ("tfd: accumulate", lambda s: TFD(1, accumulate=1), TypeError, "incompatible"),
    ("tfd: positional", lambda s: TFD(1, 1, 0), TypeError, "incompatible"),
    # Fabric
    ("fabric: dict", lambda s: Fabric({"tiles": 4}), TypeError, "incompatible"),
    (
        "fabric: engine",
        lambda s: Fabric(engine="quantum"),
        ArgumentError,
        "'closed_form', 'stepped'",
    ),
    ("fabric: engine type", lambda s: Fabric(engine=3), TypeError, "incompatible"),
    ("fabric: default", lambda s: Fabric().close(), ClosedError, "default fabric cannot be closed"),
    ("fabric: empty", lambda s: Fabric.__new__(Fabric).profile(), TypeError, ""),
    ("fabric: telemetry", setter(lambda s: s.fabric, "telemetry", "yes"), TypeError, ""),
    ("fabric: attribute", setter(lambda s: s.fabric, "engine", "stepped"), AttributeError, ""),
    # load
    ("load: address", lambda s: s.fabric.load("0", WORD), TypeError, "address must be an integer"),
    ("load: float", lambda s: s.fabric.load(0x1000.__float__(), WORD), TypeError, "not float"),
    ("load: below", lambda s: s.fabric.load(0, WORD), AddressError, "0x0 is below"),
    ("load: < 0", lambda s: s.fabric.load(-4, WORD), AddressError, "address is -4"),
    ("load: huge", lambda s: s.fabric.load(HUGE, WORD), AddressError, "integer of 20001 bits"),
    ("load: unaligned", lambda s: s.fabric.load(BANK_A + 2, WORD), AddressError, "multiple of 4"),
    ("load: half word", lambda s: s.fabric.load(BANK_A, b"\0\0"), AddressError, "words of 4"),
    ("load: nothing", lambda s: s.fabric.load(BANK_A, b""), AddressError, "positive multiple"),
    ("load: across", lambda s: s.fabric.load(BANK_A + 4 * 63, 2 * WORD), AddressError, "across"),
    ("load: gap", lambda s: s.fabric.load(BANK_A + 4 * 64, WORD), AddressError, "in no region"),
    ("load: beyond", lambda s: s.fabric.load(1 << 40, WORD), AddressError, "0x10000000000"),
    ("load: text", lambda s: s.fabric.load(BANK_A, "abcd"), TypeError, "bytes-like"),
    ("load: list", lambda s: s.fabric.load(BANK_A, [1, 2]), TypeError, "not list"),
    ("load: None", lambda s: s.fabric.load(BANK_A, None), TypeError, "NoneType"),
    ("load: floats", lambda s: s.fabric.load(BANK_A, np.ones(2)), TypeError, "format 'd'"),
    ("load: objects", lambda s: s.fabric.load(BANK_A, np.array([s])), TypeError, "format 'O'"),
    ("load: float tensor", lambda s: s.fabric.load(BANK_A, torch.ones(2)), TypeError, "integers"),
    ("load: strided", lambda s: s.fabric.load(BANK_A, np.zeros(8, np.uint32)[::2]), ValueError, ""),
    (
        "load: strided tensor",
        lambda s: s.fabric.load(BANK_A, torch.zeros(8, dtype=torch.int32)[::2]),
        TypeError,
        "contiguous",
    ),
    (
        "load: fault",
        lambda s: s.fabric.load(BANK_A, WORD + b"\1\xf3\0\0"),
        EncodingError,
        "0xf3 at offset 5",
    ),
    ("load: top byte", lambda s: s.fabric.load(BANK_B, b"\0\0\0\1"), EncodingError, ""),
    (
        "load: broadcast fault",
        lambda s: s.fabric.load(CONFIG.broadcast_base, b"\xff\0\0\0"),
        EncodingError,
        "0xff at offset 0",
    ),
    # read
    ("read: address", lambda s: s.fabric.read(None, 4), TypeError, "NoneType"),
    ("read: n", lambda s: s.fabric.read(BANK_A, 4.0), TypeError, "n must be an integer"),
    ("read: n < 0", lambda s: s.fabric.read(BANK_A, -4), AddressError, "n is -4"),
    ("read: n = 0", lambda s: s.fabric.read(BANK_A, 0), AddressError, "positive multiple"),
    ("read: n = 6", lambda s: s.fabric.read(BANK_A, 6), AddressError, "multiples of 4"),
    ("read: absurd", lambda s: s.fabric.read(BANK_A, (1 << 32) - 4), AddressError, "across"),
    ("read: huge", lambda s: s.fabric.read(BANK_A, HUGE), AddressError, "bits"),
    ("read: window", lambda s: s.fabric.read(CONFIG.broadcast_base, 4), AddressError, ""),
    # run, run_batch, submit
    *[
        (
            f"{name}: {what}",
            lambda s, name=name, task=task: getattr(s.fabric, name)(
                [task] if name == "run_batch" else task
            ),
            DescriptorError,
            words,
        )
        for name in ("run", "submit", "run_batch")
        for what, task, words in (
            ("depth 0", TFD(0, 4), "depth"),
            ("deep", TFD(65, 4), "depth"),
            ("no lanes", TFD(1, 0), "lanes"),
            ("lanes", TFD(1, 5), "lanes"),
            ("no tile", TFD(1, 4, tile_mask=0), "tile_mask"),
            ("tile", TFD(1, 4, tile_mask=4), "tile_mask"),
            ("no lane", TFD(1, 4, lane_mask=0), "lane_mask"),
            ("lane", TFD(1, 2, lane_mask=4), "lane_mask"),
            ("planes", TFD(1, 4, planes=2), "planes"),
            ("weights", TFD(2, 4, weight_base=4 * 63), "weight"),
            ("unaligned", TFD(1, 4, weight_base=2), "multiple"),
            ("activations", TFD(16, 4, activation_base=4 * 63), "activation"),
            ("planes' words", TFD(64, 4, planes=6, activation_base=4 * 40), "activation"),
        )
    ],
    ("run: None", lambda s: s.fabric.run(None), TypeError, "incompatible"),
    ("run: dict", lambda s: s.fabric.run({"depth": 1}), TypeError, "incompatible"),
    ("run_batch: TFD", lambda s: s.fabric.run_batch(TFD(1, 1)), TypeError, "incompatible"),
    ("run_batch: mixed", lambda s: s.fabric.run_batch([TFD(1, 1), 3]), TypeError, "incompatible"),
    (
        "run_batch: second",
        lambda s: s.fabric.run_batch([TFD(1, 1), TFD(65, 1)]),
        DescriptorError,
        "task 1 of the batch",
    ),
    ("wait: None", lambda s: s.fabric.wait(None), TypeError, "incompatible"),
    (
        "wait: other",
        lambda s: s.fabric.wait(s.other.submit(TFD(1, 1))),
        ArgumentError,
        "is of fabric",
    ),
    (
        "is_done: other",
        lambda s: s.fabric.is_done(s.other.submit(TFD(1, 1))),
        ArgumentError,
        "is of fabric",
    ),
    ("is_done: int", lambda s: s.fabric.is_done(1), TypeError, "incompatible"),
    ("handle: made up", lambda s: pytfmbs.Handle(), TypeError, ""),
    # results, profile_tile
    ("results: 2", lambda s: s.fabric.results(2), AddressError, "tile 2 does not exist"),
    ("results: -2", lambda s: s.fabric.results(-2), AddressError, "or -1 for all"),
    ("results: huge", lambda s: s.fabric.results(HUGE), AddressError, "does not exist"),
    ("results: text", lambda s: s.fabric.results("0"), TypeError, "tile must be an integer"),
    ("results: index", lambda s: s.fabric.results(BadIndex()), OverflowError, "no number today"),
    ("profile_tile: -1", lambda s: s.fabric.profile_tile(-1), AddressError, "allowed are 0 to 1"),
    ("profile_tile: -huge", lambda s: s.fabric.profile_tile(-HUGE), AddressError, "tile -"),
    ("profile_tile: None", lambda s: s.fabric.profile_tile(None), TypeError, "NoneType"),
    # a closed device
    *[
        (f"closed: {name}", lambda s, call=call: call(closed()), ClosedError, "is closed")
        for name, call in (
            ("load", lambda f: f.load(BANK_A, WORD)),
            ("read", lambda f: f.read(BANK_A, 4)),
            ("run", lambda f: f.run(TFD(1, 1))),
            ("run_batch", lambda f: f.run_batch([])),
            ("submit", lambda f: f.submit(TFD(1, 1))),
            ("results", lambda f: f.results()),
            ("profile", lambda f: f.profile()),
            ("profile_detailed", lambda f: f.profile_detailed()),
            ("profile_tile", lambda f: f.profile_tile(0)),
            ("reset_counters", lambda f: f.reset_counters()),
            ("telemetry", lambda f: f.telemetry),
            ("telemetry =", lambda f: setattr(f, "telemetry", True)),
            ("layer", lambda f: TFMBSLinear(4, 2, fabric=f)),
        )
    ],
    ("closed: forward", lambda s: closed_layer()(torch.ones(1, 4)), ClosedError, "is closed"),
    ("closed: prefetch", lambda s: closed_layer().prefetch(), ClosedError, "is closed"),
    ("closed: pin", lambda s: closed_layer().pin(), ClosedError, "is closed"),
    ("closed: name", setter(lambda s: closed_layer(), "name", "other"), ClosedError, "is closed"),
    (
        "closed: weight_addr",
        setter(lambda s: closed_layer(), "weight_addr", BANK_A),
        ClosedError,
        "is closed",
    ),
]


@pytest.mark.filterwarnings("ignore:nanobind. attempted to access an uninitialized")
@each(CASES)
def test_bad_input_is_refused_and_changes_nothing(
    stage: Stage, call: Callable[[Stage], Any], error: type[BaseException], words: str
) -> None:
    assert_refused(stage, call, error, words)


def test_every_public_callable_has_a_case() -> None:
    source = "\n".join(case[0].split(":")[0] for case in CASES)
    names = {name for name in dir(Fabric) if not name.startswith("_")}
    # Properties to read, without an argument.
    plain = {"name", "spec", "config", "engine", "is_default", "closed"}
    takes_nothing = {"close", "profile", "profile_detailed", "reset_counters", "telemetry"}
    for name in names - plain - takes_nothing:
        assert re.search(rf"^{name}$", source, re.MULTILINE), name
    for name in takes_nothing - {"close"}:
        assert f"closed: {name}" in {case[0] for case in CASES}, name


def test_errors_are_one_hierarchy_with_pythons_own_beside() -> None:
    for error in (ArgumentError, EncodingError, GeometryError, AddressError, DescriptorError):
        assert issubclass(error, FabricError)
        assert issubclass(error, ValueError)
    for error in (PlacementError, ClosedError):
        assert issubclass(error, FabricError)
    with pytest.raises(EncodingError) as raised, Fabric(CONFIG) as fabric:
        fabric.load(BANK_A, WORD + b"\0\xf3\0\0")
    assert raised.value.offset == 5
    twin = pickle.loads(pickle.dumps(raised.value))
    assert (type(twin), str(twin), twin.offset) == (EncodingError, str(raised.value), 5)
