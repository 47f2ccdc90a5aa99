"""Forwards without torch's dispatcher: taken where nobody watches, and equal to the op's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pytfmbs import Fabric, TFMBSLinear, TFMBSLinearReLU
from pytfmbs.nn import linear
from pytfmbs.ops import observers, torch_ops
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


class OpCalls:
    """Counts forwards that go through the dispatcher."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, op: Any) -> Any:
        def call(*args: Any) -> Tensor:
            self.count += 1
            result: Tensor = op(*args)
            return result

        return call


@pytest.fixture
def op_calls(monkeypatch: pytest.MonkeyPatch) -> OpCalls:
    calls = OpCalls()
    monkeypatch.setattr(linear, "_eager_linear", calls.counted(linear._eager_linear))
    monkeypatch.setattr(linear, "_linear", calls.counted(linear._linear))
    monkeypatch.setattr(torch_ops, "linear_relu", calls.counted(torch_ops.linear_relu))
    return calls


class Watcher(TorchFunctionMode):
    """Sees everything and changes nothing: where it is on, forwards are dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def small(activation: str = "ternary", **kwargs: Any) -> TFMBSLinear:
    """In eval mode, packed."""
    torch.manual_seed(1)
    layer = TFMBSLinear(60, 10, activation=activation, fabric=Fabric(), **kwargs).eval()
    with torch.no_grad():
        layer(torch.ones(1, 60, dtype=layer.weight.dtype))
    return layer


@pytest.mark.parametrize("kind", [TFMBSLinear, TFMBSLinearReLU])
@pytest.mark.parametrize("activation", ["ternary", "int8"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("features", [(60, 10), (61, 67), (700, 129)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_op(
    op_calls: OpCalls,
    kind: type[TFMBSLinear],
    activation: str,
    bias: bool,
    features: tuple[int, int],
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(3)
    shapes = [(), (1,), (7,), (2, 3), (1, 1, 2, 2, 1), (0,)]
    inputs = [torch.randn(*shape, features[0], dtype=dtype) for shape in shapes]
    inputs[1][0, 5] = torch.nan
    layers = [
        kind(*features, bias, activation=activation, dtype=dtype, fabric=Fabric(), name="one")
    ]
    layers.append(
        kind(*features, bias, activation=activation, dtype=dtype, fabric=Fabric(), name="one")
    )
    layers[1].load_state_dict(layers[0].state_dict())
    outputs: list[list[Tensor]] = []
    with torch.inference_mode():
        for layer in layers:
            layer.eval()(inputs[0])  # packs
        op_calls.count = 0
        outputs.append([layers[0](x) for x in inputs])
        assert op_calls.count == 0
        with Watcher():
            outputs.append([layers[1](x) for x in inputs])
        assert op_calls.count == len(inputs)
    for found, expected in zip(*outputs, strict=True):
        assert found.dtype == expected.dtype
        assert found.stride() == expected.stride()
        assert found.is_inference()
        assert type(found) is Tensor
        assert torch.equal(found.nan_to_num(), expected.nan_to_num())
        assert torch.equal(found.isnan(), expected.isnan())
    assert layers[0].fabric.profile_detailed() == layers[1].fabric.profile_detailed()


def test_outputs_are_tensors_of_their_own(op_calls: OpCalls) -> None:
    layer, x = small(), torch.randn(3, 60)
    op_calls.count = 0
    with torch.no_grad():
        first = layer(x)
        kept = first.clone()
        second = layer(-x)
        first_again = layer(x)
    assert op_calls.count == 0
    assert not first.requires_grad
    assert first.is_leaf
    assert not first.is_inference()
    assert torch.equal(first, kept)
    assert torch.equal(first, first_again)
    assert second.data_ptr() != first.data_ptr()
    first.add_(1)
    assert first._version == 1


def test_weights_that_change_are_seen(op_calls: OpCalls) -> None:
    for features in ((60, 10), (900, 40)):  # compared by content, and by version
        layer = TFMBSLinear(*features, fabric=Fabric()).eval()
        x = torch.randn(4, features[0])
        with torch.no_grad():
            before = layer(x)
            op_calls.count = 0
            assert torch.equal(layer(x), before)
            assert op_calls.count == 0
            layer.weight.neg_()
            bias = layer.bias
            assert torch.allclose(layer(x) - bias, bias - before, atol=1e-4)
            layer.weight.data = -layer.weight.data
            assert torch.equal(layer(x), before)
            assert op_calls.count == 2
            layer.weight = nn.Parameter(-layer.weight)
            assert torch.allclose(layer(x) - bias, bias - before, atol=1e-4)


def test_who_watches_sees_the_op(op_calls: OpCalls) -> None:
    layer, x = small(), torch.randn(3, 60)

    class Dispatched(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.names.append(str(func))
            return func(*args, **(kwargs or {}))

    with torch.no_grad():
        expected = layer(x)
        op_calls.count = 0
        with Dispatched() as mode:
            assert torch.equal(layer(x), expected)
        assert "tfmbs.linear.default" in mode.names
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        with torch.autograd.profiler.profile() as profile:
            layer(x)
        assert "tfmbs::linear" in {event.key for event in profile.key_averages()}
        traced = torch.jit.trace(layer, x, check_trace=False)
        assert "tfmbs::linear" in str(traced.graph)
        assert torch.equal(
            torch.func.functional_call(layer, dict(layer.named_parameters()), x), expected
        )
    # functional_call changes who holds the weights, nothing else.
    assert op_calls.count == 4


@pytest.mark.parametrize(
    "case", ["grad", "training", "subclass", "strided", "no parameter", "meta"]
)
def test_what_only_the_op_can_do(op_calls: OpCalls, case: str) -> None:
    layer, x = small(), torch.randn(3, 60)
    with torch.no_grad():
        expected = layer(x)

    class Tagged(Tensor):
        pass

    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight / 2  # of the same trits

    op_calls.count = 0
    with torch.set_grad_enabled(case == "grad"):
        if case == "training":
            layer.train()
        elif case == "subclass":
            x = x.as_subclass(Tagged)
        elif case == "strided":
            x = x.t().contiguous().t()
        elif case == "no parameter":
            torch.nn.utils.parametrize.register_parametrization(layer, "weight", Halved())
        found = layer.to("meta")(x.to("meta")) if case == "meta" else layer(x)
    if case == "meta":
        assert found.is_meta
        assert found.shape == expected.shape
    else:
        assert torch.equal(found.detach(), expected)
        assert found.requires_grad == (case == "grad")
    assert op_calls.count == 1


def test_tensors_that_are_not_their_memory(op_calls: OpCalls) -> None:
    layer = small()
    one = TFMBSLinear(1, 1, bias=False, fabric=Fabric()).eval()
    x = torch.randn(3, 60)
    with torch.no_grad():
        one(torch.ones(1, 1))
        op_calls.count = 0
        assert torch.equal(layer(torch._neg_view(x)), layer(-x))
        assert torch.equal(layer(torch._efficientzerotensor((3, 60))), layer(torch.zeros(3, 60)))
        imaginary = torch.tensor([[2 + 3j]]).conj().imag
        assert torch.equal(one(imaginary), one(torch.tensor([[-3.0]])))
        layer(torch._to_functional_tensor(x))
        assert op_calls.count == 4
        negated = nn.Parameter(torch._neg_view(layer.weight.detach().clone()), requires_grad=False)
        expected = layer(x) - layer.bias
        layer.weight = negated
        for _ in range(2):
            assert torch.allclose(layer(x) - layer.bias, -expected, atol=1e-5)


@pytest.mark.parametrize("which", ["input", "weight", "bias"])
@pytest.mark.parametrize("features", [(60, 10), (300, 40)])
def test_freed_storage_raises(which: str, features: tuple[int, int]) -> None:
    layer = TFMBSLinear(*features, fabric=Fabric()).eval()
    x = torch.randn(3, features[0])
    with torch.no_grad():
        layer(x)
        freed = x if which == "input" else getattr(layer, which)
        freed.untyped_storage().resize_(0)
        for watched in (False, True):
            with Watcher() if watched else torch.no_grad(), pytest.raises(RuntimeError):
                layer(x)


def test_transforms_see_the_op(op_calls: OpCalls) -> None:
    layer, x = small(), torch.randn(5, 60)
    with torch.no_grad():
        expected = layer(x)
        op_calls.count = 0
        assert torch.equal(torch.func.functionalize(layer)(x), expected)
    assert op_calls.count == 1


def test_transforms_of_others_see_the_op(op_calls: OpCalls) -> None:
    layer, x = small(), torch.randn(5, 60)
    with torch.no_grad():
        expected = layer(x).sum()
        op_calls.count = 0
        sums = torch.vmap(lambda y: y + layer(x).sum())(torch.zeros(3))
    assert op_calls.count == 1
    assert torch.equal(sums, expected.expand(3))


def test_what_torch_lacks_counts_as_watching() -> None:
    assert observers._private("_C._len_torch_dispatch_stack")() == 0
    assert observers._private("_C.absent")() is True
    assert observers._private("_C.absent.too")() is True


def test_more_dimensions_than_are_read(op_calls: OpCalls) -> None:
    layer = small()
    with torch.inference_mode():
        for dimensions, dispatched in ((6, 0), (7, 1)):
            op_calls.count = 0
            layer(torch.ones(*[1] * (dimensions - 1), 60))
            assert op_calls.count == dispatched


@pytest.mark.parametrize("activation", ["int8", "ternary"])
@pytest.mark.parametrize("samples", [1, 1000])
def test_large_products_equal_the_op(op_calls: OpCalls, activation: str, samples: int) -> None:
    """Enough work for every thread, and outputs of 9 MB, which ask for huge pages."""
    torch.manual_seed(5)
    layer = TFMBSLinear(1024, 2300, activation=activation, fabric=Fabric()).eval()
    x = torch.randn(samples, 1024)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode(), Watcher():
            expected = layer(x)
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            op_calls.count = 0
            with torch.inference_mode():
                assert torch.equal(layer(x), expected)
            assert op_calls.count == 0
    finally:
        torch.set_num_threads(threads)


_OWN_POOL = """
import os, torch
from pytfmbs import TFMBSLinear
from pytfmbs.nn import linear
torch.set_num_threads(1)
layer, x = TFMBSLinear(1024, 2300).eval(), torch.ones(16, 1024)
with torch.inference_mode():
    layer(x)  # packs
    linear._eager_linear = None  # no forward below is an op
    count = lambda: len(os.listdir("/proc/self/task"))
    before = count()
    layer(x)
    assert count() == before, (count(), before)
    torch.set_num_threads(3)
    layer(x)
    layer(x)
    assert count() == before + 2, (count(), before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_threads_are_torchs_own() -> None:
    subprocess.run([sys.executable, "-c", _OWN_POOL], check=True, timeout=100)


def test_errors_are_the_ops() -> None:
    layer = small()
    with torch.no_grad():
        for bad in (torch.ones(3, 61), torch.ones(()), torch.ones(3, 60, dtype=torch.int32)):
            with pytest.raises(RuntimeError):
                layer(bad)
        with pytest.raises(TypeError):
            layer("60")
        counters = layer.fabric.profile_detailed()
        assert layer._layer.direct_forward("60", layer.weight, None) is None
        assert layer._layer.direct_forward(torch.ones(3, 61), layer.weight, None) is None
        assert layer._layer.direct_forward(torch.ones(3, 60), torch.ones(10, 60), None) is None
        assert layer.fabric.profile_detailed() == counters
