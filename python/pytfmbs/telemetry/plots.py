"""Pictures of a fabric and of what its layers learned. Needs matplotlib (``pip install
pytfmbs[demo]``).

Each function returns a matplotlib Figure; ``figure.savefig("sram.png", dpi=160)`` writes it. The
colours keep apart for colour-blind readers (Okabe and Ito).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from .._fabric import TRITS_PER_WORD, Fabric
from ..nn.fabric_layer import FabricLayer
from ..quantization.packing import unpack_pt5

try:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
except ImportError as error:
    raise ImportError("pytfmbs.plots needs matplotlib: pip install matplotlib") from error

Trits = npt.NDArray[np.int8]

_INK = "#333333"
_QUIET = "#8C8C8C"
_MINUS, _ZERO, _PLUS = "#0072B2", "#F7F7F7", "#D55E00"
_FREE = "#E3E3E3"
_LAYERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A")
_DENSE, _SKIP = "#C4C4C4", "#0072B2"
_TRIT_COLOURS = ListedColormap([_MINUS, _ZERO, _PLUS]).with_extremes(bad=_FREE)


def sram_map(layers: Iterable[FabricLayer]) -> Figure:
    """Bank A of every tile, as it is: each trit that it holds, and which layer it belongs to.

    layers: of one device; those that are not resident are left out.
    Raises ValueError for no layers, or for layers of several devices.
    """
    layers = list(layers)
    if not layers or any(layer.fabric != layers[0].fabric for layer in layers):
        raise ValueError("sram_map takes the layers of one device, at least one")
    fabric = layers[0].fabric
    config = fabric.config
    regions = [region for layer in layers for region in _regions(layer)]
    colours = {layer.name: _LAYERS[i % len(_LAYERS)] for i, layer in enumerate(layers)}

    height = max(0.25, min(0.95, 16 / config.tiles))  # inches a tile
    figure = Figure(figsize=(11, 1.5 + height * config.tiles), layout="constrained")
    axes = figure.subplots(config.tiles, 1, sharex=True, squeeze=False)[:, 0]
    for tile, ax in enumerate(axes):
        _plain(ax)
        ax.set_facecolor(_FREE)
        ax.set_xlim(0, config.bank_depth)
        ax.set_ylim(config.lanes, -0.2 * config.lanes)
        ax.set_yticks([])
        ax.set_ylabel(f"tile {tile}", rotation=0, ha="right", va="center", color=_INK)
        for region in (r for r in regions if r.tile == tile):
            extent = (region.start, region.stop, config.lanes, 0)
            _draw_trits(ax, _read(fabric, region), extent=extent)
            ax.barh(
                -0.11 * config.lanes,
                region.stop - region.start,
                0.13 * config.lanes,
                left=region.start,
                color=colours[region.layer],
                edgecolor="white",
                linewidth=0.8,
            )
    axes[-1].set_xticks(np.linspace(0, config.bank_depth, 5).round())
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes[-1].set_xlabel("depth in Bank A")
    used = sum(region.stop - region.start for region in regions)
    capacity = config.tiles * config.bank_depth
    _title(
        figure,
        f"Bank A holds {_names(r.layer for r in regions)}: {used / capacity:.0%} full",
        f"Every trit of the {config.tiles} tiles: {config.lanes} lanes (downwards) × "
        f"{config.bank_depth:,} depths",
    )
    resident = dict.fromkeys(region.layer for region in regions)
    handles = [
        Patch(color=colours[layer.name], label=_describe(layer))
        for layer in layers
        if layer.name in resident
    ]
    free = Patch(facecolor=_FREE, edgecolor=_QUIET, linewidth=0.5, label="free")
    _legend(figure, [*handles, *_trit_patches(), free])
    return figure


def cycles_bar(profile: Mapping[str, Any], *, samples: int = 1, noun: str = "sample") -> Figure:
    """Cycles of each layer with and without zero-skip, from ``Fabric.profile_detailed()``.

    samples: what the counters are divided by, for cycles a sample. noun: what one sample is.
    Raises ValueError for a profile without layers.
    """
    layers = profile["layers"]
    if not layers:
        raise ValueError("the profile has no layers: run a model before Fabric.profile_detailed()")
    rows = [*layers.items(), ("device", profile)]
    dense = np.array([counters["dense_cycles"] for _, counters in rows]) / samples
    skip = np.array([counters["cycles"] for _, counters in rows]) / samples
    y = np.arange(len(rows), dtype=float)
    y[-1] += 0.25  # the total stands apart

    figure = Figure(figsize=(9, 1.6 + 0.85 * len(rows)), layout="constrained")
    ax = figure.subplots()
    _plain(ax)
    ax.barh(y - 0.19, dense, 0.36, color=_DENSE, label="without zero-skip")
    ax.barh(y + 0.19, skip, 0.36, color=_SKIP, label="with zero-skip")
    for row, d, s in zip(y, dense, skip, strict=True):
        ax.annotate(
            f"{d:,.0f}",
            (d, row - 0.19),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=_QUIET,
        )
        note = f"{s:,.0f}" + (f"   −{1 - s / d:.0%}" if d else "")
        ax.annotate(
            note,
            (s, row + 0.19),
            (5, 0),
            textcoords="offset points",
            va="center",
            color=_SKIP,
            weight="bold",
        )
    ax.set_yticks(y, [name for name, _ in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * max(dense.max(), skip.max(), 1))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    ax.set_xlabel("cycles" if samples == 1 else f"cycles a {noun}")
    saved = 1 - skip[-1] / dense[-1] if dense[-1] else 0.0
    what = "whole run" if samples == 1 else f"mean over {samples:,} {noun}s"
    _title(
        figure,
        f"Zero-skip saves {saved:.0%} of the cycles",
        f"Cycles of the whole time line, DMA included; {what}",
    )
    _legend(figure, ax.get_legend_handles_labels()[0])
    return figure


def trit_weights(
    layer: FabricLayer,
    image_shape: tuple[int, int] | None = None,
    *,
    columns: int = 15,
    limit: int = 150,
) -> Figure:
    """A layer's weights as the trits that it learned, an output a panel.

    image_shape: (height, width) of the input where it is an image; None is one row of trits an
    output, all in one panel. columns: panels a row. limit: outputs shown, the first ones.
    Raises ValueError where height · width is not in_features.
    """
    trits: Trits = layer.quantized_weight()[0].cpu().numpy()
    zeros = 1 - np.count_nonzero(trits) / max(trits.size, 1)
    shown = trits[:limit]
    outputs = f"{len(trits)} outputs"
    if len(shown) < len(trits):
        outputs = f"first {len(shown)} of {outputs}"
    heading = f"What “{layer.name}” learned: {zeros:.0%} of the trits are zero"
    if image_shape is None:
        figure = Figure(figsize=(11, 2.2 + min(0.12 * len(shown), 6)), layout="constrained")
        ax = figure.subplots()
        _draw_trits(ax, shown)
        _plain(ax)
        ax.set_xlabel("input")
        ax.set_ylabel("output")
        subtitle = f"{outputs} × {layer.in_features} inputs"
    else:
        height, width = image_shape
        if height * width != layer.in_features:
            raise ValueError(
                f"image_shape is {image_shape}, {height * width} pixels; layer {layer.name!r} has "
                f"{layer.in_features} inputs"
            )
        columns = max(1, min(columns, len(shown)))
        mosaic = _mosaic(shown.reshape(-1, height, width), columns)
        scale = 11 / mosaic.shape[1]  # inches an input
        figure = Figure(figsize=(11, 1.1 + mosaic.shape[0] * scale), layout="constrained")
        ax = figure.subplots()
        _draw_trits(ax, mosaic, aspect="equal")
        ax.set_axis_off()
        subtitle = f"{outputs}, each over its {height} × {width} inputs"
    _title(figure, heading, subtitle)
    _legend(figure, _trit_patches())
    return figure


@dataclass(frozen=True)
class _Region:
    """Depths start to stop of a tile's Bank A."""

    layer: str
    tile: int
    start: int
    stop: int


def _regions(layer: FabricLayer) -> list[_Region]:
    """Where a resident layer lies (docs/fabric-layers.md)."""
    hint = layer.telemetry_hint
    if not hint["resident"]:
        return []
    config = layer.fabric.config
    tiles = [tile for tile in range(config.tiles) if hint["tile_mask"] >> tile & 1]
    groups = ceil(layer.out_features / config.lanes)
    offset = hint["weight_addr"] - config.bank_a_base(0)
    start = offset // (4 * config.words_per_depth)
    regions = []
    for position, tile in enumerate(tiles):
        passes = len(range(position, groups, len(tiles)))
        if passes:
            stop = start + passes * layer.in_features
            regions.append(_Region(hint["layer"], tile, start, stop))
    return regions


def _read(fabric: Fabric, region: _Region) -> Trits:
    """The trits of a region, [lanes, depths], out of the device's memory."""
    config = fabric.config
    depth_bytes = 4 * config.words_per_depth
    address = config.bank_a_base(region.tile) + region.start * depth_bytes
    raw = fabric.read(address, (region.stop - region.start) * depth_bytes)
    packed = np.frombuffer(raw, np.uint8).reshape(-1, 4)[:, :3]
    trits: Trits = unpack_pt5(np.ascontiguousarray(packed))
    return trits.reshape(-1, config.words_per_depth * TRITS_PER_WORD)[:, : config.lanes].T


def _mosaic(images: Trits, columns: int) -> np.ma.MaskedArray[Any, np.dtype[np.int8]]:
    """Images [n, height, width] in rows of so many, with gaps between them masked."""
    count, height, width = images.shape
    gap = max(2, width // 9)
    rows = ceil(count / columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap)
    mosaic: np.ma.MaskedArray[Any, np.dtype[np.int8]] = np.ma.masked_all(shape, np.int8)
    for index, image in enumerate(images):
        top = index // columns * (height + gap)
        left = index % columns * (width + gap)
        mosaic[top : top + height, left : left + width] = image
    return mosaic


def _draw_trits(ax: Axes, trits: Trits, **options: Any) -> None:
    options = {"aspect": "auto", "interpolation": "nearest", **options}
    ax.imshow(trits, cmap=_TRIT_COLOURS, vmin=-1, vmax=1, **options)


def _trit_patches() -> list[Patch]:
    edge: dict[str, Any] = {"edgecolor": _QUIET, "linewidth": 0.5}
    return [
        Patch(facecolor=_MINUS, label="−1", **edge),
        Patch(facecolor=_ZERO, label="0", **edge),
        Patch(facecolor=_PLUS, label="+1", **edge),
    ]


def _describe(layer: FabricLayer) -> str:
    return f"{layer.name} ({layer.in_features} → {layer.out_features})"


def _names(names: Iterable[str]) -> str:
    unique = [f"“{name}”" for name in dict.fromkeys(names)]
    if len(unique) < 2:
        return unique[0] if unique else "nothing"
    return f"{', '.join(unique[:-1])} and {unique[-1]}"


def _plain(ax: Axes) -> None:
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(length=0, colors=_INK)
    ax.xaxis.label.set_color(_INK)


def _title(figure: Figure, title: str, subtitle: str) -> None:
    # The layout makes room for one heading of one style: it gets the subtitle below an empty line,
    # and the title is set onto that line.
    figure.suptitle(f"\n{subtitle}", x=0.008, ha="left", color=_QUIET, fontsize=10, linespacing=1.8)
    top = 1 - 0.04 / figure.get_figheight()
    figure.text(0.008, top, title, va="top", color=_INK, fontsize=13, weight="bold")


def _legend(figure: Figure, handles: Sequence[Any]) -> None:
    figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(handles),
        frameon=False,
        labelcolor=_INK,
        handlelength=1.2,
    )
