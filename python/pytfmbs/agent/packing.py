"""Layers to tiles and words of Bank A: who is to be kept lies at one offset in each of its tiles, and
two layers overlap only where their masks share no tile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Packing:
    """How rectangles of tiles × words are laid.

    by_words: the tallest first, else the widest. level: on the tiles that are filled least, at the
    lowest offset; else on those that are filled most, so that others stay free.
    """

    by_words: bool
    level: bool


PACKINGS = tuple(Packing(by_words, level) for level in (True, False) for by_words in (True, False))


@dataclass(frozen=True)
class Kept:
    layer: int
    tiles: int
    words: int


def pack(
    kept: Iterable[Kept], tiles: int, bank_words: int, packing: Packing
) -> tuple[dict[int, tuple[int, int]], list[int]] | None:
    """Tile mask and first word of each layer, and the words in use of each tile, counted to the
    highest; None where they do not fit this way."""
    everywhere = (1 << tiles) - 1
    placed: list[tuple[int, int, int]] = []  # mask, first word, end
    top = [0] * tiles
    where: dict[int, tuple[int, int]] = {}
    for item in sorted(kept, key=lambda item: _rank(item, packing)):
        starts = sorted({0, *(end for _, _, end in placed)}, reverse=not packing.level)
        for start in starts:
            end = start + item.words
            if end > bank_words:
                continue
            free = everywhere
            for mask, first, last in placed:
                if first < end and start < last:
                    free &= ~mask
            if free.bit_count() < item.tiles:
                continue
            candidates = [tile for tile in range(tiles) if free >> tile & 1]
            candidates.sort(key=lambda tile: (top[tile] if packing.level else -top[tile], tile))
            mask = 0
            for tile in candidates[: item.tiles]:
                mask |= 1 << tile
                top[tile] = max(top[tile], end)
            placed.append((mask, start, end))
            where[item.layer] = (mask, start)
            break
        else:
            return None
    return where, top


def spread(floating: Sequence[Kept], top: Sequence[int]) -> dict[int, int]:
    """Tile masks of layers that are given no words: each on the tiles with most room above what is
    kept, and of those on the ones that the layers before it ask least of."""
    asked = [0] * len(top)
    masks: dict[int, int] = {}
    for item in floating:
        mask = 0
        for tile in sorted(range(len(top)), key=lambda t: (top[t], asked[t], t))[: item.tiles]:
            mask |= 1 << tile
            asked[tile] += item.words
        masks[item.layer] = mask
    return masks


def _rank(item: Kept, packing: Packing) -> tuple[int, int, int]:
    size = (-item.words, -item.tiles) if packing.by_words else (-item.tiles, -item.words)
    return (*size, item.layer)
