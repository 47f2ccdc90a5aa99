"""Faults that were found once, each by its shortest case."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import pytfmbs
import torch
from pytfmbs import TFMBSLinear
from torch import nn


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize(("inputs", "outputs"), [(0, 5), (5, 0), (0, 0)])
def test_an_empty_layer_has_nothing_to_load(inputs: int, outputs: int) -> None:
    layer = TFMBSLinear(inputs, outputs)
    assert layer.prefetch()
    layer.pin()


def test_a_compiled_graph_may_use_a_weights_buffer_again() -> None:
    layer = TFMBSLinear(40, 40, bias=False).eval()

    def products(x: torch.Tensor, w: torch.Tensor) -> list[torch.Tensor]:
        call = torch.func.functional_call
        return [call(layer, {"weight": g}, (x,)) for g in (w * 2, w.flip(0))]

    x, w = torch.randn(3, 40), torch.randn(40, 40)
    with torch.no_grad():
        first, second = torch.compile(products)(x, w)
    assert torch.equal(first, torch.sign(x) @ torch.sign(w).T)
    assert torch.equal(second, torch.sign(x) @ torch.sign(w.flip(0)).T)


def test_a_forward_does_not_hold_the_parameter() -> None:
    layer, other = TFMBSLinear(8, 4), TFMBSLinear(8, 4)
    for one in (layer, other):
        one(torch.randn(2, 8)).sum().backward()
    torch.utils.swap_tensors(layer.weight, other.weight)  # refuses tensors that others hold
    old = weakref.ref(layer.weight)
    layer.weight = nn.Parameter(torch.randn(4, 8))
    gc.collect()
    assert old() is None


def test_a_call_waits_for_what_was_submitted_before_it_and_no_more() -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig())
    stop = threading.Event()

    def submit() -> None:
        while not stop.is_set():
            fabric.submit(pytfmbs.TFD(1000, 15, tile_mask=15))

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        time.sleep(0.05)
        done = threading.Event()
        threading.Thread(target=lambda: (fabric.profile(), done.set()), daemon=True).start()
        assert done.wait(60)
    finally:
        stop.set()
        thread.join()
    fabric.close()


def test_the_gradient_scales_as_the_forward_does() -> None:
    class Ramp:
        name = "ramp"

        def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scale = torch.arange(1.0, weight.shape[0] + 1)[None, :]
            return torch.sign(weight).to(torch.int8), scale

    layer = TFMBSLinear(4, 4, bias=False, weight_quantizer=Ramp())
    x = torch.full((1, 4), 0.5, requires_grad=True)
    layer(x).backward(torch.eye(4)[1:2])
    assert x.grad is not None
    assert torch.equal(x.grad[0], 2 * torch.sign(layer.weight[1]).detach())


def test_a_refused_layer_is_not_kept_by_its_error() -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig())
    pinned = TFMBSLinear(1020, 60, fabric=fabric, name="pinned")
    pinned.pin()
    refused = TFMBSLinear(2000, 60, fabric=fabric, name="refused")
    gc.disable()
    try:
        with pytest.raises(pytfmbs.PlacementError):
            refused(torch.ones(1, 2000))
        del refused
        assert list(fabric.profile_detailed()["layers"]) == ["pinned"]
    finally:
        gc.enable()
    fabric.close()


def test_hint_and_profile_agree_before_a_forward_and_after_a_change() -> None:
    layer = TFMBSLinear(30, 20, weight_quantizer="absmean", name="agree")
    fabric = layer.fabric
    for _ in range(2):
        hint = layer.telemetry_hint
        assert fabric.profile_detailed()["layers"][layer.name]["sparsity"] == hint["sparsity"]
        with torch.no_grad():
            layer.weight.mul_(torch.rand_like(layer.weight) > 0.6)
