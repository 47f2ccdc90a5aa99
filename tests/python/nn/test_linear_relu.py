"""TFMBSLinearReLU and the op behind it against the layer and torch's ReLU, bit for bit."""

from __future__ import annotations

import copy

import pytest
import pytfmbs
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import TFMBSLinear, TFMBSLinearReLU, ops
from torch import nn

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def twins(
    depth: int, outputs: int, dtype: torch.dtype = torch.float32, activation: str = "ternary"
) -> tuple[TFMBSLinearReLU, nn.Sequential]:
    """A fused layer, and the same as two modules; each on a device of its own."""
    fused = TFMBSLinearReLU(
        depth,
        outputs,
        dtype=dtype,
        activation=activation,
        fabric=pytfmbs.Fabric(pytfmbs.FabricConfig()),
    )
    plain = TFMBSLinear(
        depth,
        outputs,
        dtype=dtype,
        activation=activation,
        fabric=pytfmbs.Fabric(pytfmbs.FabricConfig()),
    )
    plain.load_state_dict(fused.state_dict())
    return fused, nn.Sequential(plain, nn.ReLU())


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """But for the payload of a NaN, which torch's own ReLU changes in bfloat16."""
    if a.dtype != b.dtype or not torch.equal(a.isnan(), b.isnan()):
        return False
    a, b = a[~a.isnan()], b[~b.isnan()]
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@given(
    depth=st.integers(1, 300),
    outputs=st.integers(1, 150),
    samples=st.integers(0, 70),
    dtype=st.sampled_from(DTYPES),
    activation=st.sampled_from(["ternary", "int8"]),
    training=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_bits_and_telemetry(
    depth: int,
    outputs: int,
    samples: int,
    dtype: torch.dtype,
    activation: str,
    training: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    fused, plain = twins(depth, outputs, dtype, activation)
    fused.train(training)
    plain.train(training)
    x = torch.randn(samples, depth).to(dtype)
    if samples > 1:
        x[0, 0] = float("nan")
    with torch.no_grad():
        assert same_bits(fused(x), plain(x))
    profiles = [layer.fabric.profile_detailed() for layer in (fused, plain[0])]
    assert profiles[0] == profiles[1]
    assert samples == 0 or profiles[0]["cycles"] > 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    fused, plain = twins(40, 30, dtype)
    x = torch.randn(9, 40).to(dtype)
    for module in (fused, plain):
        module(x).square().sum().backward()
    assert torch.equal(fused.weight.grad, plain[0].weight.grad)
    assert torch.equal(fused.bias.grad, plain[0].bias.grad)
    assert fused.weight.grad.abs().max() > 0


def test_the_ops_own_gradients() -> None:
    """Of the fused op, which the module does not differentiate."""
    torch.manual_seed(0)
    fused, plain = twins(40, 30)
    inputs = [torch.randn(9, 40, requires_grad=True) for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    ops.linear_relu(
        inputs[0],
        fused.weight,
        fused.bias,
        fused.fabric_identity,
        "sign",
        fused.activation,
        fused._window,
        True,
    ).square().sum().backward()
    plain(inputs[1]).square().sum().backward()
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    assert torch.equal(fused.weight.grad, plain[0].weight.grad)
    assert torch.equal(fused.bias.grad, plain[0].bias.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype) -> None:
    fused, plain = twins(50, 20)
    x = torch.randn(4, 50)
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype):
        got, expected = fused(x), plain(x)
    assert got.dtype == dtype
    assert same_bits(got, expected)


def test_compile_and_export() -> None:
    fused, _ = twins(30, 12)
    fused.eval()
    x = torch.randn(5, 30)
    with torch.no_grad():
        expected = fused(x)
        assert torch.equal(torch.compile(fused, backend="aot_eager", fullgraph=True)(x), expected)
        program = torch.export.export(fused, (x,))
        assert torch.equal(program.module()(x), expected)
    assert not any(node.target is ops.linear_relu for node in program.graph.nodes)


def test_a_custom_quantizer() -> None:
    class Mine(pytfmbs.WeightQuantizer):
        name = "mine"

        def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.sign(weight).to(torch.int8), torch.ones(1)

    layer = TFMBSLinearReLU(16, 8, weight_quantizer=Mine())
    x = torch.randn(4, 16)
    with torch.no_grad():
        expected = torch.relu(torch.sign(x) @ torch.sign(layer.weight).T + layer.bias)
        assert torch.equal(layer(x), expected)


def test_copies_and_bad_input() -> None:
    fused, _ = twins(16, 8)
    twin = copy.deepcopy(fused)
    x = torch.randn(2, 16)
    with torch.no_grad():
        assert torch.equal(twin(x), fused(x))
        with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
            fused(torch.randn(2, 17))
