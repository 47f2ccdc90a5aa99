"""Changes of a weight that raise no version: through other views of its memory, and from other
processes. Results of a user's quantizer that are kept while nothing changes."""

from __future__ import annotations

import copy
import logging
import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytfmbs import Fabric, TFMBSLinear, TFMBSLinearReLU
from torch import Tensor, nn
from torch.multiprocessing import get_context

SIZE = (256, 64)


def reference(layer: nn.Module, x: Tensor) -> Tensor:
    y = torch.sign(x) @ torch.sign(layer.weight.detach()).T
    return torch.relu(y) if isinstance(layer, TFMBSLinearReLU) else y


class Sign:
    """ "sign" as a user writes it; counts its calls."""

    name = "mine"

    def __init__(self) -> None:
        self.calls = 0
        self.scale = torch.ones(1)

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        type(self).total += 1
        return weight.sign().to(torch.int8), self.scale

    total = 0


KINDS: dict[str, Callable[[], nn.Module]] = {
    "sign": lambda: TFMBSLinear(*SIZE, bias=False, fabric=Fabric()),
    "relu": lambda: TFMBSLinearReLU(*SIZE, bias=False),
    "custom": lambda: TFMBSLinear(*SIZE, bias=False, weight_quantizer=Sign()),
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_views_of_a_flat_vector(kind: str, gradients: bool) -> None:
    model = nn.Sequential(KINDS[kind](), nn.Identity()).eval()
    x = torch.randn(3, SIZE[0])
    with torch.set_grad_enabled(gradients):
        model(x)
        flat = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        nn.utils.vector_to_parameters(flat, model.parameters())
        for i in range(12):
            flat[i * 1000 + 7] *= -1
            if i % 3:
                nn.utils.vector_to_parameters(flat, model.parameters())
            assert torch.equal(model(x), reference(model[0], x)), i


def test_a_view_among_others_and_its_copies(caplog: pytest.LogCaptureFixture) -> None:
    layers = [TFMBSLinear(*SIZE, bias=False).eval() for _ in range(3)]
    flat = torch.randn(3 * SIZE[0] * SIZE[1])
    for layer, part in zip(layers, flat.chunk(3), strict=True):
        layer.weight.data = part.view(SIZE[1], SIZE[0])
    layers += copy.deepcopy(layers)
    x = torch.randn(3, SIZE[0])
    with torch.no_grad(), caplog.at_level(logging.INFO, "pytfmbs"):
        for _ in range(3):
            flat.neg_()
            for layer in layers:
                assert torch.equal(layer(x), reference(layer, x))
    told = [record.getMessage() for record in caplog.records if "share" in record.getMessage()]
    assert len(told) >= 3
    assert "freeze" in told[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_made_of_a_tensor_is_seen_by_version(kind: str) -> None:
    """It counts the tensor's versions: no contents are read, and no write is missed."""
    layer, x = KINDS[kind]().eval(), torch.randn(3, SIZE[0])
    source = torch.randn(SIZE[1], SIZE[0])
    layer.weight = nn.Parameter(source, requires_grad=False)
    with torch.no_grad():
        for _ in range(3):
            source.neg_()
            assert torch.equal(layer(x), reference(layer, x))
            assert not layer._is_shared(layer.weight)


def _negate(weight: Tensor) -> None:
    weight.neg_()


@pytest.mark.parametrize("how", ["share_memory", "parameter"])
def test_another_process_writes(how: str) -> None:
    layer, x = TFMBSLinear(*SIZE, bias=False).eval(), torch.randn(3, SIZE[0])
    if how == "share_memory":
        layer.share_memory()
    else:
        layer.weight = nn.Parameter(layer.weight.detach().clone().share_memory_())
    context = get_context("fork")
    with torch.no_grad():
        layer(x)
        for _ in range(2):
            child = context.Process(target=_negate, args=(layer.weight.data,))
            child.start()
            child.join()
            assert child.exitcode == 0
            assert torch.equal(layer(x), reference(layer, x))


@pytest.mark.parametrize("private", [False, True])
def test_memory_mapped_weights(private: bool, tmp_path: Path) -> None:
    """A shared mapping is read at each call; a private one, as of a checkpoint, is not."""
    path = tmp_path / "weight"
    np.random.default_rng(0).standard_normal(SIZE[0] * SIZE[1]).astype(np.float32).tofile(path)
    flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=flags)
    layer, x = TFMBSLinear(*SIZE, bias=False).eval(), torch.randn(3, SIZE[0])
    layer.weight = nn.Parameter(torch.frombuffer(mapped, dtype=torch.float32).view(SIZE[1], -1))
    with torch.no_grad():
        before = layer(x)
        assert torch.equal(before, reference(layer, x))
        array = np.fromfile(path, dtype=np.float32)
        with path.open("r+b") as file:
            file.write((-array).tobytes())
            file.flush()
            os.fsync(file.fileno())
        if not private:
            assert torch.equal(layer(x), reference(layer, x))
            assert torch.equal(layer(x), -before)


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_does_not_compare_contents(strict: bool) -> None:
    program = torch.export.export(
        nn.Sequential(KINDS["sign"]()).eval(), (torch.randn(3, SIZE[0]),), strict=strict
    )
    (call,) = [n for n in program.graph.nodes if "tfmbs.linear" in str(n.target)]
    assert call.args[-1] is False, "by content"


# --- a user's quantizer ---------------------------------------------------------------------------


@pytest.fixture
def counted() -> tuple[nn.Module, Sign]:
    quantizer = Sign()
    Sign.total = 0
    return TFMBSLinear(*SIZE, bias=False, weight_quantizer=quantizer).eval(), quantizer


@pytest.mark.parametrize("gradients", [False, True])
def test_a_quantizer_runs_once_in_eval_mode(
    counted: tuple[TFMBSLinear, Sign], gradients: bool
) -> None:
    layer, _ = counted
    with torch.set_grad_enabled(gradients):
        for _ in range(4):
            x = torch.randn(3, SIZE[0])
            assert torch.equal(layer(x), reference(layer, x))
    assert Sign.total == 1


def test_a_result_of_inference_mode_is_not_used_with_gradients(
    counted: tuple[TFMBSLinear, Sign],
) -> None:
    layer, _ = counted
    x = torch.randn(3, SIZE[0], requires_grad=True)
    with torch.inference_mode():
        layer(x)
    for _ in range(2):
        layer(x).sum().backward()
    assert x.grad is not None
    assert Sign.total == 2


CHANGES: dict[str, Callable[[Any, Sign], Any]] = {
    "in place": lambda layer, _: layer.weight.neg_(),
    "data": lambda layer, _: setattr(layer.weight, "data", -layer.weight.data),
    "parameter": lambda layer, _: setattr(layer, "weight", nn.Parameter(-layer.weight)),
    "state": lambda layer, _: layer.load_state_dict({"weight": -layer.weight}),
    "refresh": lambda layer, _: layer.weight.data.neg_() is not None and layer.refresh(),
    "training": lambda layer, _: (
        layer.train()(torch.ones(1, SIZE[0])), layer.weight.data.neg_(), layer.eval()
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_weight_is_quantized_anew(counted: tuple[TFMBSLinear, Sign], how: str) -> None:
    layer, quantizer = counted
    x = torch.randn(3, SIZE[0])
    with torch.no_grad():
        before = layer(x)
        for _ in range(2):
            CHANGES[how](layer, quantizer)
            before = -before
            assert torch.equal(layer(x), before)
            assert torch.equal(layer(x), reference(layer, x))


def test_a_changed_quantizer_runs_again(counted: tuple[TFMBSLinear, Sign]) -> None:
    layer, quantizer = counted
    x = torch.randn(3, SIZE[0])
    with torch.no_grad():
        before = layer(x)
        quantizer.scale.mul_(3)
        assert torch.equal(layer(x), before * 3)
        quantizer.scale = torch.tensor([5.0])
        assert torch.equal(layer(x), before * 5)


# --- random sequences ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_no_change_goes_unseen(seed: int) -> None:
    """Random changes by every way but writes into ``.data``, in every mode of autograd."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    inputs, outputs = choose.choice([(8, 4), (64, 64), (256, 40)])
    size = {"in_features": inputs, "out_features": outputs, "bias": False}

    def made() -> TFMBSLinear:
        kind = choose.choice([TFMBSLinear, TFMBSLinearReLU, TFMBSLinear])
        own = {} if choose.random() < 0.7 else {"weight_quantizer": Sign()}
        return kind(**size, **own)

    model = nn.ModuleList([made(), made()]).eval()
    x = torch.randn(3, inputs)
    flat: Tensor | None = None
    held: list[Tensor] = []

    def change(layer: TFMBSLinear, how: str) -> None:
        nonlocal model, flat
        shape = (outputs, inputs)
        if how == "in place":
            layer.weight.mul_(-1)
        elif how == "data":
            layer.weight.data = torch.randn(shape)
        elif how == "parameter":
            layer.weight = nn.Parameter(torch.randn(shape))
        elif how == "part":
            held.append(torch.randn(2 * outputs, inputs))
            layer.weight = nn.Parameter(held[-1][outputs:])
        elif how == "flat":
            flat = nn.utils.parameters_to_vector(model.parameters()).clone()
            nn.utils.vector_to_parameters(flat, model.parameters())
        elif how == "write flat" and flat is not None:
            flat[choose.randrange(flat.numel())] *= -1
        elif how in ("load", "assign"):
            state = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
            model.load_state_dict(state, assign=how == "assign")
            held.extend(state.values())
        elif how == "write held":
            for tensor in held:
                tensor.neg_()
        elif how == "train":
            model.train()
            layer(x)
            layer.weight.data.neg_()
            model.eval()
        elif how == "copy":
            model, flat = copy.deepcopy(model), None
            held.clear()

    ways = ["in place", "data", "parameter", "part", "flat", "write flat", "load", "assign"]
    ways += ["write held", "train", "copy", "write flat", "nothing"]
    for _ in range(25):
        with torch.no_grad():
            change(choose.choice(list(model)), choose.choice(ways))
        for _ in range(choose.choice([1, 2])):
            with choose.choice([torch.no_grad, torch.enable_grad, torch.inference_mode])():
                for layer in model:
                    assert torch.equal(layer(x), reference(layer, x))
