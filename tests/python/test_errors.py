"""Bad input: an error that says what is wrong (nn.Linear's where there is one), and the device as
before."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch
from cases import campaign
from hypothesis import given
from hypothesis import strategies as st
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
    TFMBSLinearFunction,
    convert,
)
from torch import Tensor, nn

CONFIG = FabricConfig(tiles=2, lanes=4, bank_depth=64)
BANK_A, BANK_B = CONFIG.bank_a_base(0), CONFIG.bank_b_base(0)
WORD = b"\1\2\3\0"
HUGE = 1 << 20_000  # more digits than Python writes in decimal
NAN = float("nan")


class Stage:
    """A device with a resident layer, something in its banks, and counters that have counted."""

    def __init__(self) -> None:
        self.fabric = Fabric(CONFIG)
        self.layer = TFMBSLinear(20, 7, fabric=self.fabric, name="resident").eval()
        self.given = TFMBSLinear(
            4, 2, fabric=self.fabric, name="given", weight_addr=BANK_A + 4 * 50
        ).eval()
        self.other = Fabric(CONFIG)
        self.x = torch.linspace(-1, 1, 60).reshape(3, 20)
        with torch.no_grad():
            self.layer(self.x)
            self.given(torch.ones(1, 4))
        self.fabric.load(BANK_B + 4 * 40, WORD)
        self.fabric.run(TFD(10, 4, tile_mask=3))

    def state(self) -> tuple[Any, ...]:
        """Everything that a call could have changed."""
        regions = []
        for tile in range(CONFIG.tiles):
            words = 4 * CONFIG.bank_depth * CONFIG.words_per_depth
            regions.append(self.fabric.read(CONFIG.bank_a_base(tile), words))
            regions.append(self.fabric.read(CONFIG.bank_b_base(tile), 4 * CONFIG.bank_depth))
            regions.append(self.fabric.read(CONFIG.results_base(tile), 4 * CONFIG.lanes))
        layers = [
            (layer.name, layer.weight_addr, layer.tile_mask, layer.resident, layer.ste_clip)
            for layer in (self.layer, self.given)
        ]
        return regions, self.fabric.results(), self.fabric.profile_detailed(), layers


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    built = Stage()
    yield built
    built.fabric.close()
    built.other.close()


class BadIndex:
    def __index__(self) -> int:
        raise OverflowError("no number today")


class Broken:
    """A quantizer that gives what it is told to."""

    name = "broken"

    def __init__(self, result: Any) -> None:
        self.result = result

    def __call__(self, weight: Tensor) -> Any:
        return self.result


def broken_layer(stage: Stage, trits: Any, scale: Any) -> Any:
    layer = TFMBSLinear(20, 7, False, fabric=stage.other, weight_quantizer=Broken((trits, scale)))
    return layer(stage.x)


def closed() -> Fabric:
    fabric = Fabric(CONFIG)
    fabric.close()
    return fabric


def closed_layer() -> TFMBSLinear:
    fabric = Fabric(CONFIG)
    layer = TFMBSLinear(4, 2, fabric=fabric)
    fabric.close()
    return layer


def lazy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2), nn.LazyLinear(2))


def setter(thing: Callable[[Stage], Any], name: str, value: Any) -> Callable[[Stage], None]:
    return lambda stage: setattr(thing(stage), name, value)


def layer(stage: Stage) -> TFMBSLinear:
    return stage.layer


Case = tuple[str, Callable[[Stage], Any], type[BaseException], str]

TRITS = torch.zeros(7, 20, dtype=torch.int8)
ONE = torch.ones(1)

#: what, the call, what it raises, what the message says.
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
    # TFMBSLinear
    ("layer: dtype", lambda s: TFMBSLinear(4, 2, dtype=torch.int8), TypeError, "float32, float64"),
    ("layer: complex", lambda s: TFMBSLinear(4, 2, dtype=torch.complex64), TypeError, "float32"),
    (
        "layer: fabric",
        lambda s: TFMBSLinear(4, 2, fabric="default"),
        TypeError,
        "must be a pytfmbs.Fabric",
    ),
    ("layer: name", lambda s: TFMBSLinear(4, 2, name=3), TypeError, "name must be a string"),
    ("layer: surrogate", lambda s: TFMBSLinear(4, 2, name="\ud800"), (TypeError, UnicodeError), ""),
    (
        "layer: activation",
        lambda s: TFMBSLinear(4, 2, activation="int4"),
        ValueError,
        "'ternary', 'int8'",
    ),
    (
        "layer: quantizer",
        lambda s: TFMBSLinear(4, 2, weight_quantizer="best"),
        ValueError,
        "'sign', 'absmean', 'twn'",
    ),
    (
        "layer: quantizer type",
        lambda s: TFMBSLinear(4, 2, weight_quantizer=3),
        TypeError,
        "object with `name`",
    ),
    (
        "layer: quantizer class",
        lambda s: TFMBSLinear(4, 2, weight_quantizer=pytfmbs.TwnQuantizer),
        TypeError,
        "object with `name`",
    ),
    ("layer: clip 0", lambda s: TFMBSLinear(4, 2, ste_clip=0), ValueError, "above 0"),
    ("layer: clip NaN", lambda s: TFMBSLinear(4, 2, ste_clip=NAN), ValueError, "ste_clip is nan"),
    ("layer: clip text", lambda s: TFMBSLinear(4, 2, ste_clip="1"), TypeError, ""),
    (
        "layer: address type",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr="x"),
        TypeError,
        "weight_addr must be",
    ),
    (
        "layer: address < 0",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr=-4),
        PlacementError,
        "weight_addr is -4",
    ),
    (
        "layer: address in B",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr=BANK_B),
        PlacementError,
        "not in tile 0's Bank A",
    ),
    (
        "layer: unaligned",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, weight_addr=BANK_A + 1),
        PlacementError,
        "multiples of 4",
    ),
    (
        "layer: no room",
        lambda s: TFMBSLinear(20, 2, fabric=s.fabric, weight_addr=BANK_A + 4 * 60),
        PlacementError,
        "needs 20",
    ),
    (
        "layer: overlap",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, name="late", weight_addr=BANK_A + 4 * 52),
        PlacementError,
        "'late'.*overlaps layer 'given'",
    ),
    (
        "layer: mask 0",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=0),
        ArgumentError,
        "needs a tile",
    ),
    (
        "layer: mask",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=4),
        ArgumentError,
        "beyond the 2",
    ),
    (
        "layer: mask type",
        lambda s: TFMBSLinear(4, 2, fabric=s.fabric, tile_mask=1.0),
        TypeError,
        "tile_mask must be",
    ),
    (
        "layer: too deep",
        lambda s: TFMBSLinear(1 << 40, 1, device="meta", fabric=s.fabric),
        ArgumentError,
        "in_features",
    ),
    ("layer.name", setter(layer, "name", ""), TypeError, "not empty"),
    ("layer.name type", setter(layer, "name", 3), TypeError, "must be a string"),
    ("layer.ste_clip", setter(layer, "ste_clip", -1.0), ValueError, "above 0"),
    ("layer.ste_clip type", setter(layer, "ste_clip", "1"), TypeError, ""),
    ("layer.activation", setter(layer, "activation", "int8"), AttributeError, ""),
    ("layer.weight_addr", setter(layer, "weight_addr", BANK_B), PlacementError, "Bank A"),
    (
        "layer.weight_addr overlap",
        setter(layer, "weight_addr", BANK_A + 4 * 40),
        PlacementError,
        "overlaps layer 'given'",
    ),
    ("layer.weight_addr type", setter(layer, "weight_addr", 1.5), TypeError, "must be an integer"),
    ("layer.tile_mask", setter(layer, "tile_mask", 0), ArgumentError, "needs a tile"),
    ("layer.tile_mask type", setter(layer, "tile_mask", "1"), TypeError, "must be an integer"),
    (
        "pin: no room",
        lambda s: TFMBSLinear(200, 2, fabric=s.other).pin(),
        PlacementError,
        "cannot be pinned",
    ),
    # a user's quantizer
    (
        "quantizer: no pair",
        lambda s: broken_layer(s, None, None) and None,
        ArgumentError,
        "must give tensors, not NoneType and NoneType",
    ),
    (
        "quantizer: dtype",
        lambda s: broken_layer(s, TRITS.float(), ONE),
        ArgumentError,
        "trits are torch.float32",
    ),
    (
        "quantizer: value",
        lambda s: broken_layer(s, TRITS + 2, ONE),
        FabricError,
        "value 2 at index 0 is no trit",
    ),
    (
        "quantizer: shape",
        lambda s: broken_layer(s, TRITS[:5], ONE),
        ArgumentError,
        "they must be int8 of the weight's",
    ),
    (
        "quantizer: vector",
        lambda s: broken_layer(s, TRITS[0], ONE),
        ArgumentError,
        "they must be int8 of the weight's",
    ),
    (
        "quantizer: scales",
        lambda s: broken_layer(s, TRITS, torch.ones(3)),
        ArgumentError,
        "float64 of 1 or 7",
    ),
    (
        "quantizer: scale type",
        lambda s: broken_layer(s, TRITS, ONE.int()),
        ArgumentError,
        "scale is torch.int32 of 1 values",
    ),
    # TFMBSLinearFunction
    (
        "function: layer",
        lambda s: TFMBSLinearFunction.apply(s.x, s.layer.weight, None, 3),
        TypeError,
        "layer must be",
    ),
    (
        "function: list",
        lambda s: TFMBSLinearFunction.apply([1.0], s.layer.weight),
        TypeError,
        "must be Tensor, not list",
    ),
    (
        "function: weight",
        lambda s: TFMBSLinearFunction.apply(s.x, None),
        TypeError,
        "must be Tensor, not NoneType",
    ),
    (
        "function: vector",
        lambda s: TFMBSLinearFunction.apply(s.x, torch.ones(20)),
        TypeError,
        "matrix",
    ),
    (
        "function: features",
        lambda s: TFMBSLinearFunction.apply(s.x[:, :19], s.layer.weight),
        RuntimeError,
        "cannot be multiplied",
    ),
    (
        "function: other weight",
        lambda s: TFMBSLinearFunction.apply(s.x, torch.ones(3, 20), None, s.layer),
        ArgumentError,
        "was given 3 x 20",
    ),
    # convert
    ("convert: class", lambda s: convert(nn.Linear), TypeError, "model must be an nn.Module"),
    ("convert: None", lambda s: convert(None), TypeError, "not NoneType"),
    (
        "convert: filter",
        lambda s: convert(nn.Linear(2, 2), filter_fn=3),
        TypeError,
        "filter_fn must be",
    ),
    ("convert: option", lambda s: convert(nn.Linear(2, 2), colour="red"), TypeError, "colour"),
    (
        "convert: value",
        lambda s: convert(nn.Linear(2, 2), activation="x"),
        ValueError,
        "activation",
    ),
    (
        "convert: lazy",
        lambda s: convert(lazy(), filter_fn=lambda *_: True),
        TypeError,
        "lazy or parametrized",
    ),
    # ops
    (
        "op: text",
        lambda s: pytfmbs.ops.linear(s.x, s.layer.weight, None, "fc1", False),
        RuntimeError,
        "expected 'tfmbs1;'",
    ),
    (
        "op: quantizer",
        lambda s: pytfmbs.ops.quantize_weight(s.layer.weight, "x"),
        RuntimeError,
        "allowed are 'sign'",
    ),
    (
        "op: custom",
        lambda s: pytfmbs.ops.quantize_weight(s.layer.weight, "custom"),
        RuntimeError,
        "in Python",
    ),
    (
        "op: activation",
        lambda s: pytfmbs.ops.quantize_activation(s.x, "x"),
        RuntimeError,
        "'ternary', 'int8'",
    ),
    (
        "op: integers",
        lambda s: pytfmbs.ops.quantize_activation(s.x.int(), "int8"),
        RuntimeError,
        "must be float32",
    ),
    (
        "op: scalar",
        lambda s: pytfmbs.ops.quantize_activation(ONE[0], "int8"),
        RuntimeError,
        "one dimension",
    ),
    # packing and kernels
    ("pack: list", lambda s: pytfmbs.pack_pt5([0, 1]), TypeError, "not list"),
    ("pack: 2", lambda s: pytfmbs.pack_pt5(torch.tensor([0, 2])), FabricError, ""),
    ("pack: NaN", lambda s: pytfmbs.pack_pt5(np.array([0.0, NAN])), FabricError, ""),
    ("pack: bool", lambda s: pytfmbs.pack_pt5(torch.ones(5, dtype=torch.bool)), TypeError, "dtype"),
    (
        "unpack: 243",
        lambda s: pytfmbs.unpack_pt5(np.array([0, 243], np.uint8)),
        EncodingError,
        "0xf3 at offset 1",
    ),
    ("unpack: dtype", lambda s: pytfmbs.unpack_pt5(torch.zeros(2)), TypeError, "uint8"),
    (
        "unpack: count",
        lambda s: pytfmbs.unpack_pt5(torch.zeros(1, dtype=torch.uint8), 6),
        ValueError,
        "0 to 5",
    ),
    ("kernels: name", lambda s: pytfmbs.select_kernels("fastest"), FabricError, "fastest"),
    ("kernels: type", lambda s: pytfmbs.select_kernels(3), TypeError, "incompatible"),
    (
        "set_weight_storage: name",
        lambda s: pytfmbs.set_weight_storage("memory"),
        ArgumentError,
        "'memory'; allowed are 'auto', 'cached', 'streamed'",
    ),
    (
        "set_weight_storage: type",
        lambda s: pytfmbs.set_weight_storage(None),
        TypeError,
        "incompatible",
    ),
]


@pytest.mark.filterwarnings("ignore:nanobind. attempted to access an uninitialized")
@pytest.mark.parametrize(("call", "error", "words"), [pytest.param(*c[1:], id=c[0]) for c in CASES])
def test_bad_input_is_refused_and_changes_nothing(
    stage: Stage, call: Callable[[Stage], Any], error: type[BaseException], words: str
) -> None:
    gc.collect()  # layers that earlier errors still held
    before = stage.state()
    with pytest.raises(error) as raised:
        call(stage)
    assert re.search(words, str(raised.value), re.DOTALL), str(raised.value)
    assert str(raised.value)
    gc.collect()
    assert stage.state() == before


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


# --- nn.Linear's errors ---------------------------------------------------------------------------

WRONG_INPUTS: dict[str, Callable[[], Any]] = {
    "features": lambda: torch.ones(3, 19),
    "vector": lambda: torch.ones(19),
    "three dimensions": lambda: torch.ones(2, 3, 19),
    "empty and wrong": lambda: torch.ones(0, 19),
    "no dimension": lambda: torch.tensor(1.0),
    "float64": lambda: torch.ones(3, 20, dtype=torch.float64),
    "bfloat16": lambda: torch.ones(3, 20, dtype=torch.bfloat16),
    "int64": lambda: torch.ones(3, 20, dtype=torch.int64),
    "bool": lambda: torch.ones(3, 20, dtype=torch.bool),
    "complex": lambda: torch.ones(3, 20, dtype=torch.complex64),
    "meta": lambda: torch.ones(3, 20, device="meta"),
    "list": lambda: [[1.0] * 20],
    "array": lambda: np.ones((3, 20), np.float32),
    "None": lambda: None,
    "text": lambda: "x",
}


@pytest.mark.parametrize("quantizer", ["sign", Broken((TRITS, ONE))], ids=["op", "custom"])
@pytest.mark.parametrize("what", list(WRONG_INPUTS))
def test_wrong_input_gets_nn_linears_error(stage: Stage, what: str, quantizer: Any) -> None:
    ours = TFMBSLinear(20, 7, fabric=stage.fabric, weight_quantizer=quantizer, name="wrong")
    plain = nn.Linear(20, 7)
    calls: list[Callable[[Any], Any]] = [plain, ours]
    if quantizer == "sign":
        calls.append(lambda x: TFMBSLinearFunction.apply(x, plain.weight, plain.bias))
        calls.append(lambda x: TFMBSLinearFunction.apply(x, ours.weight, ours.bias, ours))
    gc.collect()  # layers that earlier errors still held
    before = stage.state()
    raised = []
    for call in calls:
        with pytest.raises((RuntimeError, TypeError)) as caught:
            call(WRONG_INPUTS[what]())
        raised.append((type(caught.value), str(caught.value)))
    assert raised == raised[:1] * len(raised)
    assert stage.state() == before


@pytest.mark.parametrize("arguments", [(-1, 2), (2, -1), ("2", 2), (2.5, 2), (None, 2), (2,)])
def test_wrong_sizes_get_nn_linears_error(arguments: tuple[Any, ...]) -> None:
    raised = []
    for kind in (nn.Linear, TFMBSLinear):
        with pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
            kind(*arguments)
        raised.append((type(caught.value), str(caught.value).replace("TFMBSLinear", "Linear")))
    assert raised[0] == raised[1]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0), (np.int64(4), np.int32(2))])
@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_sizes_that_nn_linear_takes_are_taken(sizes: tuple[int, int], activation: str) -> None:
    layer = TFMBSLinear(*sizes, activation=activation)
    x = torch.ones(2, sizes[0], requires_grad=True)
    y = layer(x)
    assert y.shape == (2, sizes[1])
    if sizes[0] == 0:
        assert torch.equal(y, layer.bias.expand(2, -1))
    y.sum().backward()
    assert layer.bias.grad.tolist() == [2.0] * sizes[1]


def test_a_bias_of_another_dtype_gets_nn_linears_error() -> None:
    raised = []
    for layer in (nn.Linear(4, 2), TFMBSLinear(4, 2)):
        layer.bias = nn.Parameter(layer.bias.detach().double())
        with pytest.raises(RuntimeError) as caught:
            layer(torch.ones(1, 4))
        raised.append(str(caught.value))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_nan_and_infinity_are_never_hidden(activation: str) -> None:
    layer = TFMBSLinear(6, 3, activation=activation)
    x = torch.ones(4, 6)
    x[1, 2] = NAN
    x[2, 3] = math.inf
    with torch.no_grad():
        rows = layer(x).isnan()
        assert rows[1].all()
        assert not rows[0].any()
        assert rows[2].all() == (activation == "int8")
        layer.weight[1, 0] = NAN
        columns = layer(torch.ones(2, 6)).isnan()
    assert columns.tolist() == [[False, True, False]] * 2


def test_a_layer_with_the_same_error_twice_still_works(stage: Stage) -> None:
    with torch.no_grad():
        expected = stage.layer(stage.x)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                stage.layer(stage.x[:, :5])
        assert torch.equal(stage.layer(stage.x), expected)


# --- fuzzing --------------------------------------------------------------------------------------

odd = st.one_of(
    st.integers(-5, 70),
    st.integers(),
    st.sampled_from([0, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), HUGE, -HUGE]),
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=5),
)
address = st.one_of(odd, st.integers(0, 64).map(lambda i: BANK_A + 4 * i), st.integers(0, 0x6000))
payload = st.one_of(
    st.binary(max_size=64),
    st.lists(st.integers(0, 242), max_size=12).map(
        lambda v: bytes(b for i in v for b in (i, 0, 0, 0))
    ),
    odd,
    st.lists(st.integers(0, 255), max_size=8).map(lambda v: np.array(v, dtype=np.int64)),
)
DOCUMENTED = (FabricError, TypeError)


@campaign(400)
@given(st.tuples(odd, odd, odd), st.tuples(odd, odd, odd))
def test_any_config_is_built_or_refused(sizes: tuple[Any, ...], energies: tuple[Any, ...]) -> None:
    try:
        config = FabricConfig(*sizes, mac_pj=energies[0], sram_pj=energies[1], dram_pj=energies[2])
    except DOCUMENTED:
        return
    assert 1 <= config.tiles <= 64
    assert config.broadcast_base + 4 * config.bank_depth <= 1 << 32
    assert pickle.loads(pickle.dumps(config)) == config


@campaign(400)
@given(address, payload, address, odd)
def test_any_load_and_read_work_or_are_refused(
    where: Any, data: Any, source: Any, size: Any
) -> None:
    with Fabric(CONFIG) as fabric:
        try:
            fabric.load(where, data)
        except DOCUMENTED:
            assert not any(fabric.profile().values())
            assert not any(fabric.results())
        else:
            assert fabric.profile()["mem_reads"] == memoryview(data).nbytes // 4
        with contextlib.suppress(*DOCUMENTED):
            assert len(fabric.read(source, size)) == size


@campaign(400)
@given(
    st.fixed_dictionaries(
        {"depth": odd},
        optional={
            name: st.one_of(st.integers(0, 6), odd)
            for name in (
                "lanes", "weight_base", "activation_base", "lane_mask", "tile_mask", "planes",
                "accumulate", "zero_skip",
            )
        },
    )
)  # fmt: skip
def test_any_task_runs_or_is_refused(fields: dict[str, Any]) -> None:
    with Fabric(CONFIG) as fabric:
        fabric.load(BANK_A, WORD * 64)
        fabric.load(BANK_B, WORD * 64)
        fabric.reset_counters()
        try:
            task = TFD(**fields)
            fabric.run(task)
        except DOCUMENTED:
            assert not any(fabric.profile().values())
            assert not any(fabric.results())
            return
        assert fabric.profile()["compute_cycles"] > 0
        first = fabric.profile()
        fabric.reset_counters()
        fabric.wait(fabric.submit(pickle.loads(pickle.dumps(task))))
        assert fabric.profile() == first


@campaign(150)
@given(st.binary(min_size=1, max_size=40), st.integers(0, 400), st.booleans())
def test_a_corrupt_pickle_of_a_config_is_an_error_or_a_config(
    noise: bytes, at: int, insert: bool
) -> None:
    whole = pickle.dumps((2, 15, 64, 0.1, 5.0, 650.0))
    at %= len(whole)
    broken = whole[:at] + noise + whole[at if insert else at + len(noise) :]
    try:
        state = pickle.loads(broken)
    except Exception:
        return  # pickle's own errors
    config = FabricConfig.__new__(FabricConfig)
    try:
        config.__setstate__(state)
    except DOCUMENTED:
        return
    assert 1 <= config.tiles <= 64


# --- leaks ----------------------------------------------------------------------------------------


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_tasks(stage: Stage, turns: int) -> None:
    run, task = stage.other.run, TFD(1, 1)
    for _ in range(turns):
        run(task)


def submit_tasks(stage: Stage, turns: int) -> None:
    task = TFD(1, 1, lane_mask=1)
    for _ in range(turns):
        stage.other.wait(stage.other.submit(task))


def make_layers(stage: Stage, turns: int) -> None:
    x = torch.ones(1, 6)
    for i in range(turns):
        layer = TFMBSLinear(6, 3, bias=False, fabric=stage.other, name="passing")
        if i % 8 == 0:
            layer(x)
    del layer
    assert stage.other.profile_detailed()["layers"] == {}


def run_forwards(stage: Stage, turns: int) -> None:
    with torch.no_grad():
        for _ in range(turns):
            stage.layer(stage.x)


def fail_often(stage: Stage, turns: int) -> None:
    bad = TFD(65, 1)
    for _ in range(turns):
        with pytest.raises(DescriptorError):
            stage.other.run(bad)
        with pytest.raises(EncodingError):
            stage.other.load(BANK_A, b"\xff\0\0\0")


def look_often(stage: Stage, turns: int) -> None:
    for _ in range(turns):
        stage.fabric.profile_detailed()
        stage.fabric.read(BANK_A, 256)
        stage.fabric.results()


def train_often(stage: Stage, turns: int) -> None:
    layer = TFMBSLinear(20, 7, fabric=stage.other)
    for _ in range(turns):
        layer(stage.x).sum().backward()
        TFMBSLinearFunction.apply(stage.x, layer.weight, layer.bias).sum().backward()


def open_devices(stage: Stage, turns: int) -> None:
    for i in range(turns):
        fabric = Fabric(CONFIG)
        fabric.wait(fabric.submit(TFD(1, 1)))
        if i % 2:
            fabric.close()


@pytest.mark.parametrize(
    ("work", "turns"),
    [
        (run_tasks, 1_000_000),
        (submit_tasks, 100_000),
        (make_layers, 20_000),
        (run_forwards, 100_000),
        (fail_often, 20_000),
        (look_often, 10_000),
        (train_often, 4_000),
        (open_devices, 2_000),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_nothing_leaks(stage: Stage, work: Callable[[Stage, int], None], turns: int) -> None:
    work(stage, turns // 20)  # pools fill
    gc.collect()
    before = resident_bytes()
    work(stage, turns)
    gc.collect()
    growth = resident_bytes() - before
    # One leaked object a turn would be 16 bytes at least; noise of allocators is below 2 MiB.
    assert growth < max(2 << 20, 8 * turns), f"{growth} bytes after {turns} turns"
