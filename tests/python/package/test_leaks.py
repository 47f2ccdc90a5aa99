"""Memory of the process over many calls, good and bad: nothing leaks."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest
import torch
from bad_calls import BANK_A, CONFIG, Stage
from pytfmbs import TFD, DescriptorError, EncodingError, Fabric, TFMBSLinear, TFMBSLinearFunction


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
    # One leaked object a turn would be 16 bytes at least, each time; noise of allocators is below
    # 2 MiB, but for pages that the kernel joins to huge ones now and then.
    growths = []
    while len(growths) < 3:
        before = resident_bytes()
        work(stage, turns)
        gc.collect()
        growths.append(resident_bytes() - before)
        if growths[-1] < max(2 << 20, 8 * turns):
            return
    pytest.fail(f"{growths} bytes after {turns} turns each")
