"""Derivatives beyond backward(): torch.func's transforms equal it, forward mode is refused, and autograd
keeps no more than backward reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytfmbs import (
    Fabric,
    TFMBSLinear,
    TFMBSLinearFunction,
    TFMBSLinearReLU,
    TFMBSPackedLinear,
)
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vjp, vmap


class Doubled:
    """A quantizer of the user's."""

    name = "doubled"

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.sign().to(torch.int8), torch.tensor([2.0])


def layers() -> list[Any]:
    kinds: list[tuple[str, Callable[[], nn.Module]]] = [
        ("sign", lambda: TFMBSLinear(8, 5, fabric=Fabric())),
        (
            "absmean-int8",
            lambda: TFMBSLinear(8, 5, weight_quantizer="absmean", activation="int8"),
        ),
        ("twn", lambda: TFMBSLinear(8, 5, False, weight_quantizer="twn")),
        ("custom", lambda: TFMBSLinear(8, 5, weight_quantizer=Doubled())),
        ("relu", lambda: TFMBSLinearReLU(8, 5)),
    ]
    return [pytest.param(make, id=name) for name, make in kinds]


def loss_of(layer: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(layer, parameters, (x,)).pow(2).sum()

    return loss


def backward_gradients(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    layer.zero_grad()
    layer(x).pow(2).sum().backward()
    return {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("make", layers())
def test_func_grad_equals_backward(make: Callable[[], nn.Module]) -> None:
    layer, x = make(), torch.randn(3, 8)
    found = grad(loss_of(layer))(dict(layer.named_parameters()), x)
    expected = backward_gradients(layer, x)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("make", layers())
def test_per_sample_gradients_equal_a_loop(make: Callable[[], nn.Module]) -> None:
    layer, x = make(), torch.randn(4, 8)
    found = vmap(grad(loss_of(layer)), in_dims=(None, 0))(dict(layer.named_parameters()), x)
    for i, sample in enumerate(x):
        for name, value in backward_gradients(layer, sample).items():
            torch.testing.assert_close(found[name][i], value)


@pytest.mark.parametrize("make", layers())
@pytest.mark.parametrize("training", [True, False])
def test_jacobian_of_the_input(make: Callable[[], nn.Module], training: bool) -> None:
    layer, x = make().train(training), torch.randn(8) * 0.5
    expected = torch.autograd.functional.jacobian(layer, x)
    assert torch.equal(jacrev(layer)(x), expected)
    pulled = vjp(layer, x)[1](torch.eye(5)[2])[0]
    torch.testing.assert_close(pulled, expected[2])


def test_transforms_of_packed_layers_and_the_function() -> None:
    trits = torch.randint(-1, 2, (5, 8), dtype=torch.int8)
    packed = TFMBSPackedLinear.from_trits(trits, 0.5, torch.randn(5))
    x = torch.randn(3, 8)
    assert torch.equal(
        grad(lambda v: packed(v).sum())(x), (torch.ones(3, 5) @ (trits * 0.5)).float()
    )
    weight = torch.randn(5, 8).clamp(-1, 1)
    found = grad(lambda w: TFMBSLinearFunction.apply(x, w).pow(2).sum())(weight)
    leaf = weight.clone().requires_grad_()
    TFMBSLinearFunction.apply(x, leaf).pow(2).sum().backward()
    assert torch.equal(found, leaf.grad)


REFUSED = r"forward-mode derivative.*reverse mode"


@pytest.mark.parametrize("make", layers())
@pytest.mark.parametrize("training", [True, False])
def test_forward_mode_is_refused(make: Callable[[], nn.Module], training: bool) -> None:
    layer, x = make().train(training), torch.randn(8)
    with pytest.raises(NotImplementedError, match=REFUSED):
        jvp(layer, (x,), (x,))
    with pytest.raises(NotImplementedError, match=REFUSED):
        jacfwd(layer)(x)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), forward_ad.dual_level():
            with pytest.raises(NotImplementedError, match=REFUSED):
                layer(forward_ad.make_dual(x, x))
            weight = layer.weight.detach()
            dual = {"weight": forward_ad.make_dual(weight, weight)}
            with pytest.raises(NotImplementedError, match=REFUSED):
                functional_call(layer, dual, (x,))
            assert torch.equal(layer(x), layer(x.clone()))  # what has no tangent is no concern


def test_forward_mode_of_packed_layers_and_the_function_is_refused() -> None:
    packed = TFMBSPackedLinear.from_trits(torch.ones(5, 8, dtype=torch.int8))
    weight, x = torch.randn(5, 8), torch.randn(3, 8)
    with pytest.raises(NotImplementedError, match=REFUSED):
        jvp(packed, (x,), (x,))
    with pytest.raises(NotImplementedError, match=REFUSED):
        jvp(lambda v: TFMBSLinearFunction.apply(v, weight), (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match=REFUSED):
        packed(forward_ad.make_dual(x, x))


# --- what autograd keeps --------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("activation", ["int8", "ternary"])
def test_an_input_may_be_written_after_the_call(activation: str, frozen: bool) -> None:
    layer = TFMBSLinear(8, 5, activation=activation)
    layer.weight.requires_grad_(not frozen)
    leaf = torch.randn(3, 8, requires_grad=True)
    twin = leaf.detach().clone().requires_grad_()
    layer(twin).sum().backward()
    expected = layer.weight.grad
    layer.weight.grad = None
    x = leaf * 1
    y = layer(x)
    x.zero_()
    y.sum().backward()
    assert torch.equal(leaf.grad, twin.grad)
    assert leaf.grad.any()
    assert frozen or torch.equal(layer.weight.grad, expected)


def test_a_frozen_layer_keeps_nothing_of_its_input() -> None:
    layer, saved = TFMBSLinear(8, 5, activation="int8").requires_grad_(False), []
    layer.bias.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(torch.randn(3, 8)).sum().backward()
    assert not [t for t in saved if t.shape == (3, 8)]
    assert torch.equal(layer.bias.grad, torch.full((5,), 3.0))


@pytest.mark.parametrize("activation", ["int8", "ternary"])
def test_a_layer_made_in_inference_mode_runs_outside(activation: str) -> None:
    with torch.inference_mode():
        layer = TFMBSLinear(8, 5, activation=activation)
    x = torch.randn(3, 8)
    expected = TFMBSLinear(8, 5, activation=activation)
    expected.load_state_dict({k: v.clone() for k, v in layer.state_dict().items()})
    assert torch.equal(layer(x), expected(x))
    leaf = x.clone().requires_grad_()
    layer.requires_grad_(False)(leaf).sum().backward()
    assert leaf.grad is not None
