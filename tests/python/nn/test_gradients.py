"""The gradient ops against plain torch, within a bound from the rounding of the products; and what
autograd keeps."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytfmbs import Fabric, TFMBSLinear, TFMBSPackedLinear, ops
from pytfmbs.ops import torch_ops
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

QUANTIZERS = ("sign", "absmean", "twn")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class HalfMax:
    name = "half-max"

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        trits = torch.sign(weight) * (weight.abs() > 0.5 * weight.abs().max())
        return trits.to(torch.int8), weight.double().abs().amax(dim=1).float() + 1


def precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def scaled(values: Tensor, scale: Tensor) -> Tensor:
    """In float64, where products of integers and scales are exact enough to compare with."""
    scale = scale.unsqueeze(1) if scale.dim() == 1 else scale
    return values.double() * scale.double()


def composed(
    x: Tensor,
    weight: Tensor,
    trits: Tensor,
    scale: Tensor,
    grad: Tensor,
    activation: str,
    clip: Any,
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The documented formula in float64, and a bound of each gradient's error: a sum of n products is
    off by at most n + 2 roundings of the sum of their magnitudes, and the result is rounded once."""
    quantized = scaled(*ops.quantize_activation(x, activation))
    ternary, g = scaled(trits, scale), grad.double()
    inside = torch.ones_like(x) if clip is None else (~(x.abs() > clip)).to(x.dtype)
    kept = ~(weight.abs() > 1)
    exact = (g @ ternary * inside, g.t() @ quantized * kept, g.sum(0))
    sizes = (
        g.abs() @ ternary.abs() * inside,
        g.abs().t() @ quantized.abs() * kept,
        g.abs().sum(0),
    )
    unit = torch.finfo(precision(weight.dtype)).eps
    counts = (len(weight) + 2, len(x) + 2, len(x) + 2)
    out = (torch.finfo(x.dtype), *[torch.finfo(weight.dtype)] * 2)
    bounds = tuple(
        n * unit * size + info.eps * value.abs() + info.tiny
        for n, size, value, info in zip(counts, sizes, exact, out, strict=True)
    )
    return exact, bounds  # type: ignore[return-value]


def assert_within(found: Tensor, exact: Tensor, bound: Tensor) -> None:
    assert found.shape == exact.shape
    assert torch.equal(found.isnan(), exact.isnan())
    off = (found.double() - exact).abs() > bound
    assert not off.any(), ((found.double() - exact).abs() - bound).nan_to_num().max()


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(0, 70),
    depth=st.integers(1, 300),
    outputs=st.integers(1, 150),
    quantizer=st.sampled_from([*QUANTIZERS, "custom"]),
    activation=st.sampled_from(["ternary", "int8"]),
    dtype=st.sampled_from(DTYPES),
    clip=st.sampled_from([None, 0.1, 1.0, 2.5]),
    layout=st.sampled_from(["contiguous", "transposed", "expanded", "strided"]),
    nan=st.booleans(),
    moved=st.booleans(),
    needs=st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any),
    seed=st.integers(0, 2**31),
)
def test_gradients_within_rounding(
    samples: int,
    depth: int,
    outputs: int,
    quantizer: str,
    activation: str,
    dtype: torch.dtype,
    clip: float | None,
    layout: str,
    nan: bool,
    moved: bool,
    needs: tuple[bool, bool, bool],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    layer = TFMBSLinear(
        depth,
        outputs,
        dtype=dtype,
        weight_quantizer=HalfMax() if quantizer == "custom" else quantizer,
        activation=activation,
        ste_clip=clip,
    )
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, depth) * 0.9)
        if nan:
            layer.weight[-1, depth // 2] = float("nan")
    x = (torch.randn(samples, depth) * 1.5 * (torch.rand(samples, depth) > 0.1)).to(dtype)
    if nan and samples:
        x[0, 0], x[-1, -1] = float("nan"), float("inf")
    layer.weight.requires_grad_(needs[1])
    layer.bias.requires_grad_(needs[2])
    x.requires_grad_(needs[0])
    y = layer(x)
    grad = torch.randn(samples, outputs).to(dtype)
    if layout == "transposed":
        grad = grad.t().contiguous().t()
    elif layout == "expanded":
        grad = grad[:, :1].expand(samples, outputs)
    elif layout == "strided":
        grad = torch.randn(samples, 2 * outputs).to(dtype)[:, ::2]
    trits, scale = layer.quantized_weight()
    window = clip if clip is not None or activation == "int8" else 1.0
    exact, bounds = composed(
        x.detach(), layer.weight.detach(), trits, scale, grad, activation, window
    )
    if (
        moved
    ):  # the layer has packed other weights since: the gradient is of the forward's all the same
        other = torch.randn(outputs, depth).to(dtype)
        with torch.no_grad():
            torch.func.functional_call(layer, {"weight": other}, (x.detach(),))
    y.backward(grad)
    leaves = (x, layer.weight, layer.bias)
    for leaf, need, value, bound in zip(leaves, needs, exact, bounds, strict=True):
        assert (leaf.grad is not None) == need
        if leaf.grad is not None:
            assert leaf.grad.dtype == dtype
            assert_within(leaf.grad, value, bound)


@pytest.mark.parametrize("shape", [(70, 2000, 130), (600, 1500, 70), (1100, 50, 3), (3, 4000, 300)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_many_tiles(shape: tuple[int, int, int], dtype: torch.dtype, activation: str) -> None:
    """Tiles of the weight, of the input's rows and columns, and of the weight's gradient."""
    samples, depth, outputs = shape
    torch.manual_seed(0)
    layer = TFMBSLinear(
        depth, outputs, dtype=dtype, weight_quantizer="twn", activation=activation, ste_clip=1.0
    )
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, depth) * 0.6)
    x = torch.randn(samples, depth).to(dtype).requires_grad_()
    grad = torch.randn(samples, outputs).to(dtype)
    layer(x).backward(grad)
    exact, bounds = composed(
        x.detach(), layer.weight.detach(), *layer.quantized_weight(), grad, activation, 1.0
    )
    for leaf, value, bound in zip((x, layer.weight, layer.bias), exact, bounds, strict=True):
        assert_within(leaf.grad, value, bound)
    again = [leaf.grad.clone() for leaf in (x, layer.weight)]
    x.grad = layer.weight.grad = None
    layer(x).backward(grad)
    assert torch.equal(x.grad, again[0])
    assert torch.equal(layer.weight.grad, again[1])


@pytest.mark.parametrize("group", [None, 32, 128])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_packed_layers(group: int | None, clip: float | None, activation: str) -> None:
    torch.manual_seed(0)
    trits = torch.randint(-1, 2, (150, 260), dtype=torch.int8)
    scale = torch.rand(150, -(-260 // group)) if group else torch.rand(150)
    layer = TFMBSPackedLinear.from_trits(
        trits, scale, torch.randn(150), group_size=group, activation=activation
    )
    layer.ste_clip = clip
    x = torch.randn(9, 260, requires_grad=True)
    grad = torch.randn(9, 150)
    layer(x).backward(grad)
    window = clip if clip is not None or activation == "int8" else 1.0
    exact = grad.double() @ layer.dequantized_weight(torch.float64)
    if window is not None:
        exact = exact * ~(x.detach().abs() > window)
    torch.testing.assert_close(x.grad.double(), exact, rtol=1e-5, atol=1e-4)


# --- what is kept --------------------------------------------------------------------------------


def kept_bytes(model: nn.Module, x: Tensor) -> int:
    """Of tensors that autograd holds, but for those that the model holds anyway."""
    names = [m._own_identity for m in model.modules() if isinstance(m, TFMBSLinear)]
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers(), *names)}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
    del y
    return sum(held.values())


@pytest.mark.parametrize(
    ("activation", "clip", "most"),
    [("int8", None, 0.26), ("int8", 3.0, 0.30), ("ternary", 1.0, 0.08)],
)
def test_bytes_kept_against_nn_linear(activation: str, clip: float | None, most: float) -> None:
    def deep(make: Any) -> nn.Sequential:
        return nn.Sequential(*[make() for _ in range(6)])

    x = torch.randn(64, 784, requires_grad=True)
    plain = kept_bytes(deep(lambda: nn.Linear(784, 784)), x)
    ours = kept_bytes(deep(lambda: TFMBSLinear(784, 784, activation=activation, ste_clip=clip)), x)
    assert plain == 6 * 64 * 784 * 4
    assert 0 < ours <= most * plain


@pytest.mark.parametrize("clip", [None, 1.0])
def test_frozen_weights_keep_the_window_alone(clip: float | None) -> None:
    layer = TFMBSLinear(800, 64, activation="int8", ste_clip=clip)
    layer.weight.requires_grad_(False)
    x = torch.randn(10, 800, requires_grad=True)
    assert kept_bytes(layer, x) == (0 if clip is None else 10 * 100)
    layer.weight.requires_grad_(True)
    assert kept_bytes(layer, x.detach()) == 10 * 808  # no gradient of the input, so no window


@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_checkpoint_save_on_cpu_and_hooks(activation: str) -> None:
    def layer() -> TFMBSLinear:
        torch.manual_seed(0)
        return TFMBSLinear(30, 20, weight_quantizer="absmean", activation=activation, ste_clip=1.0)

    x = torch.randn(7, 30)

    def run(call: Any) -> list[Tensor]:
        model = layer()
        leaf = x.clone().requires_grad_()
        call(model, leaf).square().sum().backward()
        return [leaf.grad, model.weight.grad, model.bias.grad]

    def offloaded(model: nn.Module, leaf: Tensor) -> Tensor:
        with torch.autograd.graph.save_on_cpu():
            return model(leaf)

    def copied(model: nn.Module, leaf: Tensor) -> Tensor:
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
            return model(leaf)

    expected = run(lambda model, leaf: model(leaf))
    for call in (
        lambda model, leaf: checkpoint(model, leaf, use_reentrant=False),
        lambda model, leaf: checkpoint(model, leaf, use_reentrant=True),
        offloaded,
        copied,
    ):
        for found, wanted in zip(run(call), expected, strict=True):
            assert torch.equal(found, wanted)


def test_two_backward_passes_of_one_graph() -> None:
    layer = TFMBSLinear(30, 20)
    x = torch.randn(7, 30, requires_grad=True)
    y = layer(x).sum()
    y.backward(retain_graph=True)
    once = x.grad.clone()
    y.backward()
    assert torch.equal(x.grad, 2 * once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_a_layer_used_twice_gives_the_sum() -> None:
    layer = TFMBSLinear(30, 30)
    twin = copy.deepcopy(layer)
    x = torch.randn(7, 30)
    layer(layer(x)).sum().backward()
    once = twin(x)
    middle = once.detach().requires_grad_()
    twin(middle).sum().backward()
    first = twin.weight.grad.clone()
    twin.weight.grad = None
    once.backward(middle.grad)
    torch.testing.assert_close(layer.weight.grad, first + twin.weight.grad)


def test_a_weight_written_before_backward_is_refused() -> None:
    layer = TFMBSLinear(30, 20)
    y = layer(torch.randn(7, 30, requires_grad=True))
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_backward_after_the_layer_is_gone() -> None:
    layer = TFMBSLinear(300, 20, fabric=Fabric())
    x = torch.randn(7, 300, requires_grad=True)
    trits, scale = layer.quantized_weight()
    y = layer(x)
    del layer
    gc.collect()
    y.sum().backward()
    expected = (torch.ones(7, 20) @ (trits * scale)) * (x.detach().abs() <= 1)
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("activation", ["ternary", "int8"])
@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("depth", [1, 7, 23, 24, 25, 64, 191, 512, 777])
def test_what_is_kept_comes_back(activation: str, clip: float | None, depth: int) -> None:
    torch.manual_seed(depth)
    x = torch.randn(5, depth)
    x[0, 0], x[1, -1], x[2, depth // 2] = 0.0, float("inf"), float("nan")
    kept = torch_ops.kept_activation(x, activation, clip, True)
    values, inside = torch_ops.unkept(
        kept, activation, clip is not None, True, depth, torch.float32
    )
    quantized, scale = ops.quantize_activation(x, activation)
    assert torch.equal(values, quantized * scale)
    if clip is not None:
        assert torch.equal(inside, (~(x.abs() > clip)).float())
        alone = torch_ops.kept_activation(x, activation, clip, False)
        assert alone.shape == (5, -(-depth // 8))
        _, again = torch_ops.unkept(alone, activation, True, False, depth, torch.float32)
        assert torch.equal(again, inside)


@pytest.mark.parametrize(
    "call",
    [
        lambda g, k, w, i: torch_ops.weight_gradient(g, k[:2], w, "int8", False),
        lambda g, k, w, i: torch_ops.weight_gradient(g[:, :3], k, w, "int8", False),
        lambda g, k, w, i: torch_ops.weight_gradient(g.double(), k, w, "int8", False),
        lambda g, k, w, i: torch_ops.weight_gradient(g.half(), k, w, "int8", False),
        lambda g, k, w, i: torch_ops.weight_gradient(g, k.float(), w, "int8", False),
        lambda g, k, w, i: torch_ops.weight_gradient(g, k, w[0], "int8", False),
        lambda g, k, w, i: torch_ops.input_gradient(
            g, w, k, i, "sign", "int8", True, torch.float32
        ),
        lambda g, k, w, i: torch_ops.input_gradient(
            g, w, None, i, "custom", "int8", True, torch.float32
        ),
        lambda g, k, w, i: torch_ops.input_gradient(
            g, w, None, i, "sign", "int8", True, torch.float64
        ),
        lambda g, k, w, i: torch_ops.input_gradient_trits(
            g, w, torch.ones(1), None, "int8", True, torch.float32
        ),
        lambda g, k, w, i: torch_ops.kept_activation(w, "int8", -1.0, True),
        lambda g, k, w, i: torch_ops.unkept(k, "int8", False, True, 11, torch.float32),
    ],
)
def test_bad_operands_are_refused(call: Any) -> None:
    layer = TFMBSLinear(10, 4, activation="int8")
    x = torch.randn(3, 10)
    kept = torch_ops.kept_activation(x, "int8", None, True)
    grad, weight = torch.randn(3, 4), layer.weight.detach()
    assert torch_ops.weight_gradient(grad, kept, weight, "int8", False).shape == (4, 10)
    with pytest.raises(RuntimeError, match="tfmbs"):
        call(grad, kept, weight, layer.fabric_identity)
