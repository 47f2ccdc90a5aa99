"""Calls with bad input: the devices that they are made on, and what a refusal must leave alone."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytfmbs import TFD, Fabric, FabricConfig, TFMBSLinear
from torch import Tensor

CONFIG = FabricConfig(tiles=2, lanes=4, bank_depth=64)
BANK_A, BANK_B = CONFIG.bank_a_base(0), CONFIG.bank_b_base(0)
WORD = b"\1\2\3\0"
HUGE = 1 << 20_000  # more digits than Python writes in decimal
NAN = float("nan")
TRITS = torch.zeros(7, 20, dtype=torch.int8)  # of a layer of 20 inputs and 7 outputs
ONE = torch.ones(1)


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


class Broken:
    """A quantizer that gives what it is told to."""

    name = "broken"

    def __init__(self, result: Any) -> None:
        self.result = result

    def __call__(self, weight: Tensor) -> Any:
        return self.result


#: What, the call, what it raises, what the message says.
Case = tuple[str, Callable[[Stage], Any], type[BaseException], str]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    """A test for each case, of its call, its error and its words."""
    return pytest.mark.parametrize(
        ("call", "error", "words"), [pytest.param(*case[1:], id=case[0]) for case in cases]
    )


def assert_refused(
    stage: Stage, call: Callable[[Stage], Any], error: type[BaseException], words: str
) -> None:
    """The call raises the error with these words, and everything of the stage is as before."""
    gc.collect()  # layers that earlier errors still held
    before = stage.state()
    with pytest.raises(error) as raised:
        call(stage)
    assert re.search(words, str(raised.value), re.DOTALL), str(raised.value)
    assert str(raised.value)
    gc.collect()
    assert stage.state() == before


def setter(thing: Callable[[Stage], Any], name: str, value: Any) -> Callable[[Stage], None]:
    return lambda stage: setattr(thing(stage), name, value)
