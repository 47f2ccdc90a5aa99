"""set_weight_storage: how the packed copy of a layer's weights lies changes its size, and no number,
no counter and no place."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import reference
import torch
from cases import ACTIVATIONS, generator, sparse, tensor
from pytfmbs import ArgumentError, Fabric, FabricConfig, TFMBSLinear
from torch import nn

from benchmarks.suite.variants import VARIANTS

MODES = ("auto", "cached", "streamed")

#: A variant's layouts, cached and streamed, as the list of variants has them.
LAYOUTS = {
    (name, activation): layouts
    for name, variant in VARIANTS.items()
    for activation, layouts in (("ternary", variant.trit_layouts), ("int8", variant.int8_layouts))
}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    storage, kernels = pytfmbs.weight_storage(), pytfmbs.active_kernels()
    yield
    pytfmbs.set_weight_storage(storage)
    pytfmbs.select_kernels(kernels)


@pytest.fixture(params=pytfmbs.isa_variants())
def kernels(request: pytest.FixtureRequest) -> str:
    pytfmbs.select_kernels(request.param)
    return str(request.param)


class HalfZeros:
    """A quantizer in Python, whose trits come to the layer as they are."""

    name = "half_zeros"

    def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (weight.sign() * (weight.abs() > 0.7)).to(torch.int8), torch.full((1,), 0.5)


def bank_images(fabric: Fabric) -> list[bytes]:
    config = fabric.config
    size = 4 * config.bank_depth * config.words_per_depth
    return [fabric.read(config.bank_a_base(t), size) for t in range(config.tiles)]


# --- the numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["closed_form", "stepped"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_number_and_no_counter_depends_on_it(kernels: str, activation: str, engine: str) -> None:
    rng = generator(50)
    config = FabricConfig(tiles=3, lanes=15, bank_depth=128)
    for inputs, outputs, samples in [(1, 1, 1), (83, 70, 3), (97, 130, 9)]:
        x = tensor(rng, (samples, inputs), torch.float32)
        weight = sparse(rng, tensor(rng, (outputs, inputs), torch.float32), 0.4)
        bias = tensor(rng, (outputs,), torch.float32)
        seen: list[Any] = []
        for mode in MODES:
            pytfmbs.set_weight_storage(mode)
            with Fabric(config, engine=engine) as fabric, torch.no_grad():
                layer = TFMBSLinear(
                    inputs, outputs, fabric=fabric, activation=activation, name="layer",
                    weight_quantizer="twn",
                ).eval()  # fmt: skip
                layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
                for rows in (x, x[:1]):
                    want = reference.linear(rows, weight, bias, "twn", activation)
                    assert reference.same_bits(layer(rows), want), mode
                seen.append((fabric.profile_detailed(), bank_images(fabric), fabric.results()))
        assert seen == seen[:1] * len(seen), f"{outputs} x {inputs}"


@pytest.mark.parametrize("quantizer", ["absmean", HalfZeros()], ids=["op", "custom"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_layer_that_trains_while_it_switches(
    kernels: str, activation: str, quantizer: Any
) -> None:
    """Weights change, so that a layout is read, repacked and compared with another."""
    rng = generator(51)
    layer = TFMBSLinear(90, 66, activation=activation, weight_quantizer=quantizer)
    x = tensor(rng, (5, 90), torch.float32)
    with torch.no_grad():
        for step in range(12):
            pytfmbs.set_weight_storage(MODES[step % 3])
            if step % 2:
                layer.weight.copy_(tensor(rng, (66, 90), torch.float32))
            how: Any = quantizer
            if isinstance(quantizer, HalfZeros):
                trits, scale = quantizer(layer.weight)
                how = reference.QuantizedWeight(
                    trits.numpy(), reference.exact(scale).repeat(66), torch.zeros(66).bool().numpy()
                )
            want = reference.linear(x, layer.weight.detach(), layer.bias, how, activation)
            assert reference.same_bits(layer(x), want), f"step {step}"


# --- the packed copy ------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_prepare_after_a_switch_repacks_and_loads_nothing(kernels: str, activation: str) -> None:
    outputs, inputs = 128, 320  # whole panels of either layout
    with Fabric(FabricConfig()) as fabric, torch.no_grad():
        layer = TFMBSLinear(inputs, outputs, fabric=fabric, activation=activation).eval()
        x = torch.ones(2, inputs)
        assert layer._layer.packed_layout is None
        assert layer.packed_bytes == 0
        before = None
        pytfmbs.set_weight_storage("cached")
        layer(x)
        first = fabric.profile_detailed()
        assert first["residency_misses"] == 1
        turns = [("streamed", 1), ("streamed", 1), ("cached", 0), ("streamed", 1), ("cached", 0)]
        for hits, (mode, place) in enumerate(turns, 1):
            pytfmbs.set_weight_storage(mode)
            assert pytfmbs.weight_storage() == mode
            fabric.reset_counters()
            layer(x)
            if before is not None:  # no forward pass packs anew what has not changed
                assert (layer._layer.packed_layout, layer.packed_bytes) == before
            pytfmbs.prepare(layer)
            layout = LAYOUTS[kernels, activation][place]
            trits_a_byte = 5 if layout.endswith("fives") else 4
            before = (layout, outputs * inputs // trits_a_byte)
            assert (layer._layer.packed_layout, layer.packed_bytes) == before, mode
            layer(x)
            profile = fabric.profile_detailed()
            assert (profile["residency_hits"], profile["residency_misses"]) == (2, 0), hits
            assert layer.weight_addr == first["layers"][layer.name]["weight_addr"]
            if hits == 1:
                hit = profile
            assert profile == hit
        layer.refresh()
        assert (layer._layer.packed_layout, layer.packed_bytes) == (None, 0)


def test_a_set_of_kernels_brings_its_layout() -> None:
    layer, x = TFMBSLinear(40, 20).eval(), torch.ones(3, 40)
    pytfmbs.set_weight_storage("streamed")
    with torch.no_grad():
        want = layer(x)
        for kernels in (*pytfmbs.isa_variants(), *reversed(pytfmbs.isa_variants())):
            pytfmbs.select_kernels(kernels)
            assert torch.equal(layer(x), want), kernels
            pytfmbs.prepare(layer)
            assert torch.equal(layer(x), want), kernels
            assert layer._layer.packed_layout == LAYOUTS[kernels, "ternary"][1]


# --- "auto" ---------------------------------------------------------------------------------------

#: Above, the test would take more than a second and 400 MB.
LARGEST_CACHE = 256 << 20


def last_level_cache() -> int:
    """Bytes of the largest cache of the first CPU; skips where the system does not say."""
    units = {"K": 1 << 10, "M": 1 << 20}
    sizes = [
        int(text[:-1]) * units[text[-1]]
        for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        if (text := path.read_text().strip())[-1] in units
    ]
    if not sizes:
        pytest.skip("the system does not say how large its caches are")
    return max(sizes)


def test_auto_streams_what_three_quarters_of_the_cache_do_not_hold() -> None:
    cache = last_level_cache()
    if cache > LARGEST_CACHE:
        pytest.skip(f"a cache of {cache >> 20} MiB takes long to overfill")
    # In a process of its own, where no other test's layers count.
    subprocess.run(
        [sys.executable, "-c", f"import {__name__} as tests; tests.overfill({cache})"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )


def overfill(cache: int) -> None:
    """Layers up to more than three quarters of a cache of so many bytes, and back."""
    pytfmbs.select_kernels("portable")  # whose layouts differ everywhere
    # At two bits a weight seven layers fill 70% of the cache and eight 80%.
    side = math.isqrt(4 * cache // 10) // 64 * 64
    weight = nn.Parameter(tensor(generator(52), (side, side), torch.bfloat16))
    x = torch.ones(1, side, dtype=torch.bfloat16)

    def layer() -> TFMBSLinear:
        made = TFMBSLinear(
            side, side, False, device="meta", dtype=torch.bfloat16, fabric=fabric, activation="int8"
        )
        made.weight = weight
        return made.eval()

    with Fabric(FabricConfig()) as fabric, torch.no_grad():
        fabric.telemetry = False
        layers = [layer() for _ in range(8)]
        want = layers[0](x)
        for one in layers[1:7]:
            assert torch.equal(one(x), want)
        assert [one._layer.packed_layout for one in layers] == ["int8_quads"] * 7 + [None]
        held = sum(one.packed_bytes for one in layers)
        assert held < 0.75 * cache < held + layers[0].packed_bytes

        assert torch.equal(layers[7](x), want)
        assert layers[7]._layer.packed_layout == "int8_fives"
        assert torch.equal(layers[0](x), want)
        assert layers[0]._layer.packed_layout == "int8_quads"  # no forward pass packs it anew
        pytfmbs.prepare(nn.ModuleList(layers))
        assert {one._layer.packed_layout for one in layers} == {"int8_fives"}
        assert torch.equal(layers[0](x), want)
        # The answer does not go back and forth with the bytes that it saves,
        assert sum(one.packed_bytes for one in layers) < 0.8 * cache
        pytfmbs.prepare(layers[0])
        assert layers[0]._layer.packed_layout == "int8_fives"
        # nor with one layer more or less.
        del one, layers[7]
        gc.collect()
        pytfmbs.prepare(nn.ModuleList(layers))
        assert {one._layer.packed_layout for one in layers} == {"int8_fives"}
        del layers[4:]  # 40% of the cache
        gc.collect()
        pytfmbs.prepare(nn.ModuleList(layers))
        assert {one._layer.packed_layout for one in layers} == {"int8_quads"}
        # A model that is prepared is packed alike, and counts before it is packed.
        layers = [layer() for _ in range(8)]
        pytfmbs.prepare(nn.ModuleList(layers))
        assert {one._layer.packed_layout for one in layers} == {"int8_fives"}


# --- names ----------------------------------------------------------------------------------------


def test_names() -> None:
    for mode in MODES:
        pytfmbs.set_weight_storage(mode)
        assert pytfmbs.weight_storage() == mode
    for name in ("", "Auto", "cached ", "fives", "auto\0"):
        with pytest.raises(ArgumentError) as raised:
            pytfmbs.set_weight_storage(name)
        assert f"weight storage is '{name}'" in str(raised.value)
        for mode in MODES:
            assert f"'{mode}'" in str(raised.value)
    assert pytfmbs.weight_storage() == MODES[-1]
