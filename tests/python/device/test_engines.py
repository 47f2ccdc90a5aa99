"""The default engine against the stepped one, and both against the page (counter_model.py).

The default engine computes with the CPU's kernels and counts in closed form; the stepped one packs,
loads, and steps
every cycle. They must agree in results, in every counter, and in the bytes of every bank.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import counter_model
import numpy as np
import pytest
import torch
from cases import campaign, generator, sparse, tensor
from hypothesis import event, given, target
from hypothesis import strategies as st
from pytfmbs import (
    Fabric,
    FabricConfig,
    FabricError,
    MismatchError,
    PlacementError,
    TFMBSLinear,
)
from pytfmbs.errors import from_code
from reference import quantize_input, quantize_weight, same_bits
from torch import nn

MAX_PRODUCTS = 4_000_000
BANK_DEPTHS = (
    15,
    16,
    29,
    30,
    31,
    44,
    45,
    59,
    60,
    61,
    89,
    90,
    100,
    128,
    255,
    256,
    1020,
    1024,
    2047,
    2048,
)
LANES = (1, 2, 7, 14, 15, 16, 29, 30, 31, 45, 60, 63, 64)
TILES = (1, 2, 3, 4, 5, 8, 16, 33, 63, 64)
SAMPLES = (1, 1, 2, 3, 4, 5, 8, 17, 64)


@dataclass(frozen=True)
class Shape:
    """A layer, and how its weights are filled."""

    inputs: int
    outputs: int
    quantizer: str = "sign"
    activation: str = "ternary"
    weight_zeros: float = 0.0
    structure: str = "none"  # which whole depths or outputs are zero
    tile_mask: int | None = None
    address: int | None = None  # words from the start of Bank A
    pinned: bool = False


@dataclass(frozen=True)
class Step:
    """A forward of one layer, or another thing that happens to a device."""

    layer: int
    samples: int = 1
    zeros: float = 0.0
    action: str = "forward"


@dataclass(frozen=True)
class Case:
    tiles: int
    lanes: int
    bank_depth: int
    layers: tuple[Shape, ...]
    steps: tuple[Step, ...]
    seed: int
    peek: bool = field(default=False)  # compare after every step, not at the end only


def around(values: list[int], low: int, high: int) -> st.SearchStrategy[int]:
    """Numbers at or next to the given ones, or any in the range."""
    near = sorted({v + d for v in values for d in (-1, 0, 1) if low <= v + d <= high})
    return st.one_of(st.sampled_from(near or [low]), st.integers(low, high))


@st.composite
def shapes(draw: st.DrawFn, config: FabricConfig) -> Shape:
    depth, lanes, tiles = config.bank_depth, config.lanes, config.tiles
    whole = depth // 15 * 15
    edges = [
        1,
        15,
        30,
        45,
        150,
        depth // 2,
        depth,
        whole,
        2 * whole,
        2 * depth,
        3 * whole,
        1020,
        1024,
        2040,
        2048,
    ]
    inputs = draw(
        st.one_of(
            st.integers(1, 64), st.integers(1, max(1, depth // 3)), around(edges, 1, 4 * depth + 40)
        )
    )
    edges = [1, lanes, 2 * lanes, tiles * lanes, 2 * tiles * lanes, 3 * tiles * lanes]
    outputs = draw(around(edges, 1, min(4 * tiles * lanes + 3, 2000)))
    while inputs * outputs > MAX_PRODUCTS // 8:
        outputs = max(1, outputs // 2)
    mask = None
    if draw(st.booleans()):  # with holes, and with more tiles than there are groups
        mask = draw(st.integers(1, (1 << tiles) - 1))
    address = None
    if draw(st.integers(0, 4)) == 0:
        address = draw(st.one_of(st.just(0), st.integers(0, config.words_per_depth * depth - 1)))
    return Shape(
        inputs,
        outputs,
        quantizer=draw(st.sampled_from(["sign", "sign", "absmean", "twn"])),
        activation=draw(st.sampled_from(["ternary", "int8"])),
        weight_zeros=draw(st.sampled_from([0.0, 0.0, 0.3, 0.8, 0.95, 1.0])),
        structure=draw(st.sampled_from(["none", "none", "depths", "outputs", "half", "words"])),
        tile_mask=mask,
        address=address,
        pinned=draw(st.integers(0, 5)) == 0,
    )


@st.composite
def scenarios(draw: st.DrawFn) -> Case:
    config = FabricConfig(
        draw(st.one_of(st.sampled_from(TILES), st.integers(1, 64))),
        draw(st.one_of(st.sampled_from(LANES), st.integers(1, 64))),
        draw(st.one_of(st.sampled_from(BANK_DEPTHS), st.integers(15, 2048))),
    )
    layers = draw(st.lists(shapes(config), min_size=1, max_size=5))
    steps = []
    for _ in range(draw(st.integers(1, 10))):
        index = draw(st.integers(0, len(layers) - 1))
        action = draw(
            st.sampled_from(["forward"] * 12 + ["change", "delete", "prefetch", "load", "reset"])
        )
        samples = draw(st.sampled_from(SAMPLES))
        planes = 6 if layers[index].activation == "int8" else 1
        size = layers[index].inputs * layers[index].outputs * planes
        samples = max(1, min(samples, MAX_PRODUCTS // size))
        steps.append(
            Step(index, samples, draw(st.sampled_from([0.0, 0.2, 0.6, 0.9, 0.99, 1.0])), action)
        )
    return Case(
        config.tiles, config.lanes, config.bank_depth, tuple(layers), tuple(steps),
        draw(st.integers(0, 2**32 - 1)), draw(st.booleans()),
    )  # fmt: skip


def fill(rng: np.random.Generator, shape: Shape) -> torch.Tensor:
    """Weights of the shape's sparsity; `structure` empties whole depths, which is what saves
    cycles."""
    weight = sparse(
        rng, tensor(rng, (shape.outputs, shape.inputs), torch.float32) * 0.05, shape.weight_zeros
    )
    if shape.structure == "depths":
        weight[:, torch.from_numpy(rng.random(shape.inputs) < 0.5)] = 0.0
    elif shape.structure == "outputs":
        weight[torch.from_numpy(rng.random(shape.outputs) < 0.5)] = 0.0
    elif shape.structure == "half":  # tiles of one pass then differ in speed
        weight[: shape.outputs // 2, : (shape.inputs + 1) // 2] = 0.0
    elif shape.structure == "words":
        weight[:, : shape.inputs // 15 * 15 // 2] = 0.0
    return weight


class Side:
    """One device and its layers."""

    def __init__(self, case: Case, engine: str) -> None:
        self.config = FabricConfig(case.tiles, case.lanes, case.bank_depth)
        self.fabric = Fabric(self.config, engine=engine)
        self.layers: list[TFMBSLinear | None] = []
        self.log: list[
            object
        ] = []  # what was answered, errors included: must be equal on both sides
        rng = generator(case.seed, 1)
        for i, shape in enumerate(case.layers):
            address = shape.address
            if address is not None:
                address = self.config.bank_a_base(0) + 4 * address
            layer = self.attempt(self._layer, f"layer{i}", shape, address)
            layer = layer or self._layer(f"layer{i}", shape, None)
            layer.weight = nn.Parameter(fill(rng, shape))
            self.layers.append(layer)
            if shape.pinned:
                self.attempt(layer.pin)

    def _layer(self, name: str, shape: Shape, address: int | None) -> TFMBSLinear:
        return TFMBSLinear(
            shape.inputs, shape.outputs, device="meta", bias=False, name=name, weight_addr=address,
            fabric=self.fabric, weight_quantizer=shape.quantizer, activation=shape.activation,
            tile_mask=shape.tile_mask,
        ).eval()  # fmt: skip

    def attempt(self, call: Any, *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except PlacementError as error:
            self.log.append(str(error))
            return None

    def run(self, step: Step, shape: Shape, seed: tuple[int, ...]) -> torch.Tensor | None:
        rng = generator(*seed)
        layer = self.layers[step.layer]
        if layer is None:
            return None
        if step.action == "forward":
            x = sparse(rng, tensor(rng, (step.samples, shape.inputs), torch.float32), step.zeros)
            output: torch.Tensor | None = self.attempt(layer, x)
            return output
        if step.action == "change":
            layer.weight.copy_(fill(rng, shape))
        elif step.action == "delete":
            self.layers[step.layer] = None
        elif step.action == "prefetch":
            self.log.append(self.attempt(layer.prefetch))
        elif step.action == "load":
            tile = int(rng.integers(self.config.tiles))
            word = int(rng.integers(self.config.bank_depth))
            self.fabric.load(self.config.bank_a_base(tile) + 4 * word, bytes([121, 0, 242, 0]))
        elif step.action == "reset":
            self.fabric.reset_counters()
        return None

    def memory(self) -> dict[str, bytes]:
        """Every byte that the host can read: banks and results of all tiles."""
        c = self.config
        size = 4 * c.bank_depth
        found = {}
        for t in range(c.tiles):
            found[f"A{t}"] = self.fabric.read(c.bank_a_base(t), size * c.words_per_depth)
            found[f"B{t}"] = self.fabric.read(c.bank_b_base(t), size)
            found[f"results{t}"] = self.fabric.read(c.results_base(t), 4 * c.lanes)
        return found


def check(case: Case) -> dict[str, Any]:
    """Runs a case on both engines; asserts that nothing differs. Returns the profile."""
    return check_in_lockstep(case) if case.peek else check_beside(case)


def check_in_lockstep(case: Case) -> dict[str, Any]:
    """Products, counters and memory are compared after every step, by the device: it raises
    MismatchError."""
    side = Side(case, "lockstep")
    with torch.no_grad():
        for number, step in enumerate(case.steps):
            side.run(step, case.layers[step.layer], (case.seed, 2, number))
    return side.fabric.profile_detailed()


def check_beside(case: Case) -> dict[str, Any]:
    """Outputs are compared after every step, the rest at the end: until then the closed form's banks
    are records of what was done."""
    fast, slow = Side(case, "closed_form"), Side(case, "stepped")
    with torch.no_grad():
        for number, step in enumerate(case.steps):
            shape, seed = case.layers[step.layer], (case.seed, 2, number)
            a, b = fast.run(step, shape, seed), slow.run(step, shape, seed)
            if a is None or b is None:
                assert a is b, f"step {number}: one engine gave a result, the other none"
            else:
                assert same_bits(a, b), f"step {number}: results differ"
    assert fast.log == slow.log
    a_bytes, b_bytes = fast.memory(), slow.memory()
    differing = [region for region in b_bytes if a_bytes[region] != b_bytes[region]]
    assert not differing, f"bytes differ in {differing}"
    profile = fast.fabric.profile_detailed()
    assert profile == slow.fabric.profile_detailed()
    return profile


@campaign(2000)
@given(case=scenarios())
def test_engines_agree(case: Case) -> None:
    profile = check(case)
    event(f"evictions: {profile['evictions'] > 0}")
    event(f"hits: {profile['residency_hits'] > 0}")
    streams = any(not row["resident"] and row["cycles"] for row in profile["layers"].values())
    event(f"streams or was evicted: {streams}")
    target(float(profile["evictions"]))


LARGE = [
    Shape(784, 60),
    Shape(5000, 300, "twn", "int8"),
    Shape(4096, 512, "absmean", "ternary", 0.9),
    Shape(1021, 1200, "sign", "int8", 0.5, "depths"),
    Shape(2041, 700, "sign", "ternary", 0.95),
    Shape(15000, 60, "twn", "ternary", 0.0, "half"),
    Shape(300, 5000, "absmean", "int8"),
    Shape(2048, 960, "sign", "ternary", 0.0, "words", tile_mask=0b1010),
]
GEOMETRIES = [(4, 15, 1024), (64, 64, 2048), (1, 33, 300)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("shape", LARGE, ids=lambda s: f"{s.inputs}x{s.outputs}")
def test_engines_agree_on_large_layers(shape: Shape, geometry: tuple[int, int, int]) -> None:
    if geometry[0] == 1 and shape.tile_mask:
        shape = Shape(shape.inputs, shape.outputs, structure=shape.structure)
    steps = (Step(0, 9, 0.5), Step(1, 2), Step(0, 33, 0.1), Step(0, 1, 0.97))
    check(Case(*geometry, (shape, Shape(100, 10)), steps, seed=7))


# --- both engines against the page ---------------------------------------------------------------


@st.composite
def single_forwards(draw: st.DrawFn) -> tuple[FabricConfig, Shape, list[Step], int, int]:
    """A layer alone on a device but for a layer with a given address that takes the end of the
    bank."""
    config = FabricConfig(
        draw(st.sampled_from([1, 2, 3, 4, 7, 64])), draw(st.sampled_from([1, 14, 15, 16, 31, 64])),
        draw(st.sampled_from([15, 16, 30, 31, 45, 60, 61, 100, 1024])),
        mac_pj=0.25, sram_pj=3.5, dram_pj=401.0,
    )  # fmt: skip
    shape = draw(shapes(config))
    while shape.inputs * shape.outputs > 60_000:  # the model is Python
        shape = Shape(
            **{
                **vars(shape),
                "inputs": (shape.inputs + 1) // 2,
                "outputs": (shape.outputs + 1) // 2,
            }
        )
    shape = Shape(**{**vars(shape), "address": None, "pinned": False})
    steps = [
        Step(0, draw(st.sampled_from([1, 2, 3, 7])), draw(st.sampled_from([0.0, 0.5, 0.95])))
        for _ in range(draw(st.integers(1, 2)))
    ]
    reserved = draw(st.sampled_from([0, 0, 1, config.bank_depth // 2, config.bank_depth - 15]))
    reserved = min(reserved, config.bank_depth - 15)  # room to stream
    return config, shape, steps, reserved, draw(st.integers(0, 2**32 - 1))


@campaign(400)
@given(drawn=single_forwards(), engine=st.sampled_from(["closed_form", "stepped"]))
def test_counters_are_the_pages(
    drawn: tuple[FabricConfig, Shape, list[Step], int, int], engine: str
) -> None:
    config, shape, steps, reserved, seed = drawn
    fabric = Fabric(config, engine=engine)
    keeper = None
    if reserved:
        first_word = config.words_per_depth * (config.bank_depth - reserved)
        keeper = TFMBSLinear(
            reserved, config.lanes * config.tiles, fabric=fabric,
            weight_addr=config.bank_a_base(0) + 4 * first_word,
        )  # fmt: skip
    layer = TFMBSLinear(
        shape.inputs, shape.outputs, fabric=fabric, weight_quantizer=shape.quantizer,
        activation=shape.activation, tile_mask=shape.tile_mask,
    ).eval()  # fmt: skip
    rng = generator(seed)
    with torch.no_grad():
        layer.weight.copy_(fill(rng, shape))
    trits = quantize_weight(layer.weight, shape.quantizer).trits
    planes = 6 if shape.activation == "int8" else 1
    used = shape.tile_mask or counter_model.default_mask(config, shape.outputs)
    passes = -(-shape.outputs // (config.lanes * used.bit_count()))
    room = config.bank_depth - reserved
    resident = shape.inputs * passes <= room
    event(f"resident: {resident}; window is half a bank: {room >= config.bank_depth // 2}")
    parts = []
    for number, step in enumerate(steps):
        x = sparse(rng, tensor(rng, (step.samples, shape.inputs), torch.float32), step.zeros)
        with torch.no_grad():
            layer(x)
        how = counter_model.Residency(
            hit=resident and number > 0, window=None if resident else room
        )
        values = quantize_input(x, shape.activation).values
        parts.append(counter_model.profile(config, trits, values, planes, how, shape.tile_mask))
    got = fabric.profile_detailed()
    want = counter_model.added(config, *parts)
    counter_model.assert_equal(counter_model.without_layers(got), want)
    row = got["layers"][layer.name]
    assert {key: row[key] for key in want if key != "tiles"} == {
        key: got[key] for key in want if key != "tiles"
    }
    assert row["tile_mask"] == used
    assert row["resident"] == resident
    assert row["sparsity"] == round(float((trits == 0).mean()), 4)
    del keeper


def test_lockstep_gives_what_the_closed_form_gives() -> None:
    """Two layers, training and inference: outputs, gradients and counters; also of a pickled twin."""

    def life(engine: str) -> tuple[list[torch.Tensor], dict[str, Any]]:
        torch.manual_seed(5)
        fabric = Fabric(FabricConfig(2, 15, 60), engine=engine)
        assert fabric.engine == engine
        model = nn.Sequential(
            TFMBSLinear(30, 40, fabric=fabric, name="first", activation="int8"),
            nn.ReLU(),
            TFMBSLinear(40, 20, fabric=fabric, name="second"),
        )
        x = torch.randn(3, 30)
        seen = [model(x)]
        seen[0].sum().backward()
        seen += [p.grad for p in model.parameters() if p.grad is not None]
        model.eval()
        with torch.no_grad():
            seen += [model(x), model(x[:1])]
        twin = pickle.loads(pickle.dumps(fabric))
        assert twin.engine == engine
        assert twin.config == fabric.config
        return seen, fabric.profile_detailed()

    seen, profile = life("lockstep")
    expected, expected_profile = life("closed_form")
    assert len(seen) == len(expected) > 4
    assert all(same_bits(a, b) for a, b in zip(seen, expected, strict=True))
    assert profile == expected_profile
    assert profile["cycles"] > 0


def test_a_mismatch_is_an_error_of_the_fabric() -> None:
    assert issubclass(MismatchError, FabricError)
    assert not issubclass(MismatchError, ValueError)
    error = from_code("mismatch", "they differ", None)
    assert type(error) is MismatchError
    assert str(error) == "they differ"


def test_a_forward_on_paper() -> None:
    """The smallest example of the page, worked out by hand: 30 depths, 20 outputs, 2 samples, on 2
    tiles of 15 lanes."""
    config = FabricConfig(2, 15, 60)
    for engine in ("closed_form", "stepped", "lockstep"):
        fabric = Fabric(config, engine=engine)
        layer = TFMBSLinear(30, 20, False, fabric=fabric)
        x = torch.ones(2, 30)
        x[0, 5:15] = 0  # the first word keeps 5
        x[1, 15:] = 0  # the second word keeps none, and costs one cycle
        with torch.no_grad():
            layer.weight.fill_(1.0)
            layer.weight[:15, 16:] = 0  # tile 0: of the second word only depth 15 is occupied
            layer(x)
        got = fabric.profile()
        # Tile 0: 5 + 1 and 15 + 1; tile 1: 5 + 15 and 15 + 1. The tiles meet: 20 and 16.
        engine_0, engine_1 = 4 + 20 + 3, 4 + 16 + 3
        assert got["compute_cycles"] == engine_0 + engine_1
        # Stages: 60 weight words; 2 activation words; job 0 beside 2; job 1 beside 20 results; 20
        # results.
        assert got["cycles"] == 60 + 2 + engine_0 + engine_1 + 20
        assert got["dma_cycles"] == 60 + 2 + 2 + 20 + 20
        assert got["dense_cycles"] == 60 + 2 + 37 + 37 + 20
        assert got["active_ops"] == 15 * (5 + 1) + 5 * 20 + 15 * 15 + 5 * 15
        assert got["active_ops"] + got["zero_skips"] == 2 * 30 * 20
        assert (got["mem_reads"], got["mem_writes"], got["broadcasts"]) == (64, 40, 4)
        assert got["sram_writes"] == 60 + 2 * 4
        assert got["sram_reads"] == 2 * 4 + (6 + 20 + 15 + 15)
        assert [t["stall_cycles"] for t in fabric.profile_detailed()["tiles"]] == [14, 0]
