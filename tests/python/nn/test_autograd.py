"""Gradients: equal to those of the same expression composed of plain torch ops."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import pytfmbs
import torch
from pytfmbs import TFMBSLinear, TFMBSLinearFunction
from torch import Tensor

IN, OUT = 37, 19
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
ACTIVATIONS = ("ternary", "int8")


class HalfMax:
    """A quantizer of a user's: trits above half the largest weight, one scale an output."""

    name = "half-max"

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        trits = torch.sign(weight) * (weight.abs() > 0.5 * weight.abs().max())
        wide = weight.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
        return trits.to(torch.int8), wide.abs().amax(dim=1)


def wide(tensor: Tensor) -> Tensor:
    return tensor.double()


def sign(weight: Tensor) -> Tensor:
    return torch.sign(weight)


def absmean(weight: Tensor) -> Tensor:
    scale = wide(weight).abs().mean().clamp(min=1e-5)
    return (wide(weight) / scale).round().clamp(-1, 1) * scale


def twn(weight: Tensor) -> Tensor:
    size = wide(weight).abs()
    kept = size > 0.7 * size.mean(dim=1, keepdim=True)
    scale = (size * kept).sum(dim=1, keepdim=True) / kept.sum(dim=1, keepdim=True)
    return torch.sign(wide(weight)) * kept * scale


def half_max(weight: Tensor) -> Tensor:
    trits, scale = HalfMax()(weight)
    return wide(trits) * wide(scale).unsqueeze(1)


def int8(input: Tensor) -> Tensor:
    # The scale and the quotient are rounded to the arithmetic's own precision, as BitNet does.
    single = input if input.dtype == torch.float64 else input.float()
    scale = single.abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
    return wide((single * (127.0 / scale)).round().clamp(-128, 127)) * wide(scale) / 127.0


WEIGHTS: dict[str, tuple[object, Callable[[Tensor], Tensor]]] = {
    "sign": ("sign", sign),
    "absmean": ("absmean", absmean),
    "twn": ("twn", twn),
    "custom": (HalfMax(), half_max),
}
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {"ternary": torch.sign, "int8": int8}


def pass_through(value: Tensor, quantized: Tensor, window: float | None) -> Tensor:
    """quantized forward; in the backward the identity where |value| <= window."""
    inside = torch.ones_like(value) if window is None else (value.abs() <= window).to(value.dtype)
    through = value * inside.detach()
    return quantized.to(value.dtype).detach() + through - through.detach()


def composed(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    quantizer: str,
    activation: str,
    clip: float | None,
) -> Tensor:
    x = pass_through(input, INPUTS[activation](input.detach()), clip)
    w = pass_through(weight, WEIGHTS[quantizer][1](weight.detach()), 1.0)
    y = x @ w.t()
    return y if bias is None else y + bias


def tensors(
    shape: tuple[int, ...], dtype: torch.dtype, bias: bool = True, scale: float = 0.9
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input and weight with values on both sides of every window, and some zeros."""
    generator = torch.Generator().manual_seed(len(shape) + shape[-1])
    x = torch.randn(*shape, generator=generator, dtype=torch.float64) * 1.5
    x = x * (torch.rand(x.shape, generator=generator) > 0.1)
    w = torch.randn(OUT, shape[-1], generator=generator, dtype=torch.float64) * scale
    b = torch.randn(OUT, generator=generator, dtype=torch.float64) if bias else None
    return x.to(dtype), w.to(dtype), None if b is None else b.to(dtype)


def upstream(y: Tensor) -> Tensor:
    return torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)


def gradients(
    function: Callable[..., Tensor], leaves: tuple[Tensor | None, ...], needs: tuple[bool, ...]
) -> list[Tensor | None]:
    inputs = [
        None if leaf is None else leaf.detach().clone().requires_grad_(need)
        for leaf, need in zip(leaves, needs, strict=True)
    ]
    y = function(*inputs)
    assert y.requires_grad == any(needs)
    if y.requires_grad:
        y.backward(upstream(y))
    return [None if leaf is None else leaf.grad for leaf in inputs]


def assert_same(found: list[Tensor | None], wanted: list[Tensor | None]) -> None:
    assert [g is None for g in found] == [g is None for g in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        if ours is None or theirs is None:
            continue
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        # A sum of n products in another order: n roundings of its largest terms.
        unit = torch.finfo(theirs.dtype).eps
        bound = 64 * unit * max(1.0, float(theirs.abs().max()))
        torch.testing.assert_close(ours, theirs, rtol=64 * unit, atol=bound)
    assert any(g is not None and g.abs().sum() > 0 for g in found)


def layer_function(
    quantizer: str, activation: str, clip: float | None, dtype: torch.dtype, bias: bool
) -> Callable[..., Tensor]:
    layer = TFMBSLinear(
        IN,
        OUT,
        bias,
        dtype=dtype,
        weight_quantizer=WEIGHTS[quantizer][0],  # type: ignore[arg-type]
        activation=activation,
        ste_clip=clip,
    )

    def call(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        values = {"weight": w} | ({} if b is None else {"bias": b})
        return torch.func.functional_call(layer, values, (x,))

    return call


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantizer", list(WEIGHTS))
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_the_composed_expression(
    activation: str, quantizer: str, dtype: torch.dtype, bias: bool
) -> None:
    leaves = tensors((11, IN), dtype, bias)
    needs = (True, True, bias)
    clip = 1.0 if activation == "ternary" else None  # the defaults

    def plain(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return composed(x, w, b, quantizer, activation, clip)

    ours = gradients(layer_function(quantizer, activation, None, dtype, bias), leaves, needs)
    assert_same(ours, gradients(plain, leaves, needs))


@pytest.mark.parametrize("clip", [0.25, 1.0, 2.5, float("inf")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_ste_clip_sets_the_window_of_the_input_gradient(activation: str, clip: float) -> None:
    leaves = tensors((11, IN), torch.float32)
    needs = (True, True, True)

    def plain(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return composed(x, w, b, "twn", activation, clip)

    ours = gradients(layer_function("twn", activation, clip, torch.float32, True), leaves, needs)
    assert_same(ours, gradients(plain, leaves, needs))
    x = leaves[0]
    assert ours[0] is not None
    outside = x.abs() > clip
    assert not ours[0][outside].any()
    assert ours[0][~outside].count_nonzero() == (~outside).sum()


def test_ste_clip_can_be_changed_between_forwards() -> None:
    layer = TFMBSLinear(2, 1, bias=False)
    x = torch.tensor([[0.5, 3.0]], requires_grad=True)
    for clip, passes in ((None, [True, False]), (4.0, [True, True]), (0.1, [False, False])):
        layer.ste_clip = clip
        x.grad = None
        layer(x).sum().backward()
        assert (x.grad != 0).tolist() == [passes]


def test_the_windows_hold_at_their_edges() -> None:
    x = torch.tensor([[1.0, -1.0, 1.0 + 2**-23, -2.0]], requires_grad=True)
    w = torch.tensor([[1.0, -1.0, 1.0 + 2**-23, 2.0]], requires_grad=True)
    TFMBSLinearFunction.apply(x, w).backward()
    assert (x.grad != 0).tolist() == [[True, True, False, False]]
    assert (w.grad != 0).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("shape", [(IN,), (1, IN), (2, 3, IN), (2, 1, 3, 2, IN), (2, 0, IN)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_leading_dimensions(activation: str, shape: tuple[int, ...]) -> None:
    leaves = tensors(shape, torch.float32)
    needs = (True, True, True)
    clip = 1.0 if activation == "ternary" else None

    def plain(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return composed(x, w, b, "absmean", activation, clip)

    call = layer_function("absmean", activation, None, torch.float32, True)
    if 0 in shape:  # nothing to compare but shapes: every gradient is there, and zero
        ours = gradients(call, leaves, needs)
        assert [None if g is None else tuple(g.shape) for g in ours] == [shape, (OUT, IN), (OUT,)]
        assert not any(g is not None and g.any() for g in ours)
    else:
        assert_same(gradients(call, leaves, needs), gradients(plain, leaves, needs))


@pytest.mark.parametrize("needs", list(itertools.product([True, False], repeat=3))[:-1])
@pytest.mark.parametrize("quantizer", ["twn", "custom"])
def test_only_what_is_needed_gets_a_gradient(
    quantizer: str, needs: tuple[bool, bool, bool]
) -> None:
    leaves = tensors((5, IN), torch.float32)

    def plain(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return composed(x, w, b, quantizer, "ternary", 1.0)

    call = layer_function(quantizer, "ternary", None, torch.float32, True)
    assert_same(gradients(call, leaves, needs), gradients(plain, leaves, needs))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantizer", ["none", *WEIGHTS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_function_with_and_without_a_layer(
    activation: str, quantizer: str, dtype: torch.dtype, bias: bool
) -> None:
    leaves = tensors((2, 3, IN), dtype, bias)
    needs = (True, True, bias)
    layer = None
    rule, kind, clip = "sign", "ternary", 1.0
    if quantizer != "none":
        rule, kind, clip = quantizer, activation, 2.0
        layer = TFMBSLinear(
            IN,
            OUT,
            dtype=dtype,
            weight_quantizer=WEIGHTS[quantizer][0],  # type: ignore[arg-type]
            activation=activation,
            ste_clip=clip,
        )

    def call(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return TFMBSLinearFunction.apply(x, w, b, layer)

    def plain(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return composed(x, w, b, rule, kind, clip)

    assert_same(gradients(call, leaves, needs), gradients(plain, leaves, needs))


@pytest.mark.parametrize(
    "needs", [(True, False, False), (False, True, False), (False, False, True)]
)
def test_the_function_gives_only_what_is_needed(needs: tuple[bool, bool, bool]) -> None:
    leaves = tensors((5, IN), torch.float32)

    def plain(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return composed(x, w, b, "sign", "ternary", 1.0)

    assert_same(
        gradients(TFMBSLinearFunction.apply, leaves, needs), gradients(plain, leaves, needs)
    )


def test_the_function_and_the_layer_are_one() -> None:
    layer = TFMBSLinear(IN, OUT, weight_quantizer="twn", activation="int8")
    x = torch.randn(4, IN, requires_grad=True)
    layer(x).square().sum().backward()
    wanted = [x.grad, layer.weight.grad, layer.bias.grad]
    x.grad = layer.weight.grad = layer.bias.grad = None
    TFMBSLinearFunction.apply(x, layer.weight, layer.bias, layer).square().sum().backward()
    for ours, theirs in zip([x.grad, layer.weight.grad, layer.bias.grad], wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_gradients_accumulate_and_pass_through_a_network() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(TFMBSLinear(6, 8), torch.nn.ReLU(), TFMBSLinear(8, 3))
    x = torch.randn(4, 6)
    target = torch.randn(4, 3)

    def loss() -> Tensor:
        return torch.nn.functional.mse_loss(model(x), target)

    loss().backward()
    once = [p.grad.clone() for p in model.parameters()]
    loss().backward()
    assert all(torch.equal(p.grad, 2 * g) for p, g in zip(model.parameters(), once, strict=True))
    assert all(g.any() for g in once)


def test_a_weight_shared_by_two_layers_gets_the_sum() -> None:
    first, second = TFMBSLinear(5, 5, bias=False), TFMBSLinear(5, 5, bias=False)
    x = torch.randn(3, 5)
    parts = []
    for layer in (first, second):
        layer.weight = torch.nn.Parameter(first.weight.detach().clone())
        layer(x).sum().backward()
        parts.append(layer.weight.grad)
    second.weight = first.weight
    first.weight.grad = None
    (first(x) + second(x)).sum().backward()
    assert torch.equal(first.weight.grad, parts[0] + parts[1])


def test_the_gradient_can_be_differentiated_again() -> None:
    """The straight-through gradient of the input is linear in the upstream one: g ŵ."""
    layer = TFMBSLinear(4, 3, bias=False, weight_quantizer="twn")
    x = (torch.rand(2, 4) - 0.5).requires_grad_()
    g = torch.randn(2, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x), x, g, create_graph=True)
    (back,) = torch.autograd.grad(grad.sum(), g)
    trits, scale = layer.quantized_weight()
    expected = (trits * scale.unsqueeze(1)).sum(dim=1).expand(2, 3)
    torch.testing.assert_close(back, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_nn_linears_dtypes(dtype: torch.dtype) -> None:
    layer = TFMBSLinear(8, 4, weight_quantizer="absmean", activation="int8")
    plain = torch.nn.Linear(8, 4)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 8, requires_grad=True)
    with torch.autocast("cpu", dtype=dtype):
        ours, theirs = layer(x), plain(x)
        function = TFMBSLinearFunction.apply(x, layer.weight, layer.bias, layer)
    assert ours.dtype == theirs.dtype == function.dtype == dtype
    assert torch.equal(ours, function)
    # Exact product, fp32 epilogue, one rounding: what the layer gives outside, rounded.
    assert torch.equal(ours, layer(x).to(dtype))
    ours.sum().backward()
    theirs.sum().backward()
    for name in ("weight", "bias"):
        assert getattr(layer, name).grad.dtype == getattr(plain, name).grad.dtype
    assert x.grad.dtype == torch.float32
    assert layer.weight.grad.any()


def test_gradscaler_loop_trains() -> None:
    torch.manual_seed(0)
    layer = TFMBSLinear(16, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.05)
    x = torch.randn(64, 16)
    y = torch.sign(x) @ torch.sign(torch.randn(16, 1))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.nn.functional.mse_loss(layer(x).float(), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.5 * losses[0]


def test_no_graph_where_none_is_wanted() -> None:
    layer = TFMBSLinear(4, 2)
    x = torch.randn(3, 4, requires_grad=True)
    with torch.no_grad():
        assert layer(x).grad_fn is None
    with torch.inference_mode():
        y = layer(x)
    assert y.is_inference()
    assert layer(x).grad_fn is not None
    layer.requires_grad_(False)
    assert layer(x.detach()).grad_fn is None


def test_the_device_counts_a_backward_pass_as_nothing() -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig())
    layer = TFMBSLinear(20, 10, fabric=fabric)
    y = layer(torch.randn(4, 20, requires_grad=True))
    before = fabric.profile_detailed()
    y.sum().backward()
    assert fabric.profile_detailed() == before
