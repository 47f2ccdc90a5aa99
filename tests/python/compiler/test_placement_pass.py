"""tfmbs-place against an account of Bank A of its own, and against a device that runs the layers."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytfmbs
import torch
from pytfmbs.compiler import Toolchain

NETWORKS = 60


@dataclass(frozen=True)
class Geometry:
    tiles: int
    lanes: int
    bank_depth: int

    @property
    def words_per_depth(self) -> int:
        return -(-self.lanes // 15)

    @property
    def bank_words(self) -> int:
        return self.bank_depth * self.words_per_depth

    @property
    def bank_a(self) -> int:
        """Tile 0's Bank A (docs/fabric.md, Address map)."""
        results = -(-4 * self.lanes // 0x40) * 0x40
        return -(-(0x100 + results * self.tiles) // 0x1000) * 0x1000

    def words(self, layer: Layer) -> int:
        groups = -(-layer.outputs // self.lanes)
        passes = -(-groups // layer.mask.bit_count())
        return layer.depth * self.words_per_depth * passes


@dataclass(frozen=True)
class Layer:
    name: str
    outputs: int
    depth: int
    mask: int
    given: int | None = None


def module(layers: list[Layer]) -> str:
    lines = []
    for i, layer in enumerate(layers):
        n, k = layer.outputs, layer.depth
        address = "" if layer.given is None else f"weight_addr = {layer.given} : ui64, "
        lines.append(
            f"func.func @f{i}(%q: memref<?x{k}xi8>, %a: memref<?x{n}xi32>) {{\n"
            f"  %w = tfmbs.weights dense<{i % 243}> : tensor<{-(-n * k // 5)}xi8>"
            f" -> memref<{n}x{k}x!tfmbs.trit>\n"
            f"  tfmbs.gemv {{tile_mask = {layer.mask} : ui64, {address}"
            f'telemetry = {{layer = "{layer.name}", sparsity = 0.5}}}}\n'
            f"    ins(%q, %w : memref<?x{k}xi8>, memref<{n}x{k}x!tfmbs.trit>)"
            f" outs(%a : memref<?x{n}xi32>)\n  return\n}}"
        )
    return "\n".join(lines)


def place(
    tools: Toolchain, folder: Path, networks: list[tuple[Geometry, list[Layer]]]
) -> list[list[int | None]]:
    """The addresses that the pass gives the layers of each network."""
    found = []
    for geometry, layers in networks:
        source, report = folder / "network.mlir", folder / "report.json"
        source.write_text(module(layers))
        options = f"tiles={geometry.tiles} lanes={geometry.lanes} bank-depth={geometry.bank_depth}"
        tools.run(
            "mlir-opt", *tools.plugin_flags(), str(source), "-o", str(folder / "out.mlir"),
            f"--pass-pipeline=builtin.module(tfmbs-place{{{options}}},"
            f"tfmbs-report-telemetry{{output={report}}})",
        )  # fmt: skip
        entries = json.loads(report.read_text())
        assert [entry["layer"] for entry in entries] == [layer.name for layer in layers]
        assert [entry["tile_mask"] for entry in entries] == [layer.mask for layer in layers]
        for entry in entries:
            assert ("weight_addr" in entry) == ("placement" not in entry)
        found.append([entry.get("weight_addr") for entry in entries])
    return found


def random_geometry(rng: random.Random) -> Geometry:
    return Geometry(
        rng.choice([1, 2, 4, 7, 64]), rng.choice([1, 15, 16, 40]), rng.choice([15, 64, 100, 1024])
    )


def random_layers(rng: random.Random, geometry: Geometry, fill: float, given: bool) -> list[Layer]:
    layers: list[Layer] = []
    for i in range(rng.randint(1, 12)):
        layer = Layer(
            f"l{i}",
            rng.randint(1, 3 * geometry.lanes),
            rng.randint(1, max(1, int(fill * geometry.bank_depth))),
            rng.randint(1, (1 << geometry.tiles) - 1),
        )
        words = geometry.words(layer)
        if given and rng.random() < 0.25 and words <= geometry.bank_words // 4:
            word = rng.randint(0, geometry.bank_words - words)
            where = geometry.bank_a + 4 * word
            if not any(
                other.given is not None
                and other.mask & layer.mask
                and where < other.given + 4 * geometry.words(other)
                and other.given < where + 4 * words
                for other in layers
            ):
                layer = Layer(layer.name, layer.outputs, layer.depth, layer.mask, where)
        layers.append(layer)
    return layers


def occupied(geometry: Geometry, tile: int, placed: list[tuple[Layer, int]]) -> list[bool]:
    """Bank A of a tile, word by word. Fails where two layers lie on one word."""
    words = [False] * geometry.bank_words
    for layer, address in placed:
        if layer.mask >> tile & 1:
            first, offset = divmod(address - geometry.bank_a, 4)
            assert offset == 0
            assert first >= 0
            last = first + geometry.words(layer)
            assert last <= geometry.bank_words
            assert not any(words[first:last]), f"{layer} overlaps another layer in tile {tile}"
            words[first:last] = [True] * (last - first)
    return words


def longest_free(geometry: Geometry, mask: int, placed: list[tuple[Layer, int]]) -> int:
    banks = [occupied(geometry, t, placed) for t in range(geometry.tiles) if mask >> t & 1]
    longest = run = 0
    for taken in (any(column) for column in zip(*banks, strict=True)):
        run = 0 if taken else run + 1
        longest = max(longest, run)
    return longest


def windows(geometry: Geometry) -> tuple[int, int]:
    """The fewest words that a layer can stream through, and what it wants."""
    least = 15 * geometry.words_per_depth
    return least, max(geometry.bank_depth // 2 * geometry.words_per_depth, least)


def test_no_word_is_shared_and_a_window_stays_free(
    dialect_tools: Toolchain, tmp_path: Path
) -> None:
    rng = random.Random(4)
    networks = []
    while len(networks) < NETWORKS:
        geometry = random_geometry(rng)
        layers = random_layers(rng, geometry, rng.choice([0.2, 0.6, 1.5]), given=True)
        given = [(layer, layer.given) for layer in layers if layer.given is not None]
        least, _ = windows(geometry)
        if all(longest_free(geometry, layer.mask, given) >= least for layer in layers):
            networks.append((geometry, layers))
    streamed = resident = 0
    for (geometry, layers), addresses in zip(
        networks, place(dialect_tools, tmp_path, networks), strict=True
    ):
        placed = [(x, a) for x, a in zip(layers, addresses, strict=True) if a is not None]
        given = [(layer, layer.given) for layer in layers if layer.given is not None]
        assert [a for layer, a in placed if layer.given is not None] == [a for _, a in given]
        for tile in range(geometry.tiles):
            occupied(geometry, tile, placed)
        least, wanted = windows(geometry)
        for layer, address in zip(layers, addresses, strict=True):
            resident += address is not None
            if address is None:
                streamed += 1
                words = geometry.words(layer)
                possible = longest_free(geometry, layer.mask, given) >= min(wanted, words)
                window = min(wanted if possible else least, words)
                assert longest_free(geometry, layer.mask, placed) >= window, layer
    assert streamed > 50  # both kinds were there to be checked
    assert resident > 50


def test_addresses_are_those_that_a_device_gives(dialect_tools: Toolchain, tmp_path: Path) -> None:
    rng = random.Random(5)
    networks = []
    for _ in range(NETWORKS):
        geometry = random_geometry(rng)
        networks.append((geometry, random_layers(rng, geometry, 0.1, given=rng.random() < 0.5)))
    compared = 0
    for (geometry, layers), addresses in zip(
        networks, place(dialect_tools, tmp_path, networks), strict=True
    ):
        if None in addresses:
            continue
        config = pytfmbs.FabricConfig(
            tiles=geometry.tiles, lanes=geometry.lanes, bank_depth=geometry.bank_depth
        )
        with pytfmbs.Fabric(config) as fabric:
            modules = [
                pytfmbs.TFMBSLinear(
                    layer.depth, layer.outputs, name=layer.name, tile_mask=layer.mask,
                    weight_addr=layer.given, fabric=fabric,
                )
                for layer in layers
            ]  # fmt: skip
            for layer in modules:
                layer(torch.ones(1, layer.in_features))
            assert fabric.profile()["evictions"] == 0
            assert [layer.telemetry_hint["weight_addr"] for layer in modules] == addresses
        compared += len(layers)
    assert compared > 100
