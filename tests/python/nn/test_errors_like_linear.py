"""Input that nn.Linear refuses gets nn.Linear's own error, and what it takes is taken."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from bad_calls import NAN, ONE, TRITS, Broken, Stage
from pytfmbs import ArgumentError, TFMBSLinear, TFMBSLinearFunction, TFMBSLinearReLU
from torch import nn

WRONG_INPUTS: dict[str, Callable[[], Any]] = {
    "features": lambda: torch.ones(3, 19),
    "vector": lambda: torch.ones(19),
    "three dimensions": lambda: torch.ones(2, 3, 19),
    "empty and wrong": lambda: torch.ones(0, 19),
    "no dimension": lambda: torch.tensor(1.0),
    "float64": lambda: torch.ones(3, 20, dtype=torch.float64),
    "bfloat16": lambda: torch.ones(3, 20, dtype=torch.bfloat16),
    "int64": lambda: torch.ones(3, 20, dtype=torch.int64),
    "bool": lambda: torch.ones(3, 20, dtype=torch.bool),
    "complex": lambda: torch.ones(3, 20, dtype=torch.complex64),
    "meta": lambda: torch.ones(3, 20, device="meta"),
    "list": lambda: [[1.0] * 20],
    "array": lambda: np.ones((3, 20), np.float32),
    "None": lambda: None,
    "text": lambda: "x",
}


@pytest.mark.parametrize("quantizer", ["sign", Broken((TRITS, ONE))], ids=["op", "custom"])
@pytest.mark.parametrize("what", list(WRONG_INPUTS))
def test_wrong_input_gets_nn_linears_error(stage: Stage, what: str, quantizer: Any) -> None:
    ours = TFMBSLinear(20, 7, fabric=stage.fabric, weight_quantizer=quantizer, name="wrong")
    plain = nn.Linear(20, 7)
    calls: list[Callable[[Any], Any]] = [plain, ours]
    if quantizer == "sign":
        calls.append(lambda x: TFMBSLinearFunction.apply(x, plain.weight, plain.bias))
        calls.append(lambda x: TFMBSLinearFunction.apply(x, ours.weight, ours.bias, ours))
    gc.collect()  # layers that earlier errors still held
    before = stage.state()
    raised = []
    for call in calls:
        with pytest.raises((RuntimeError, TypeError)) as caught:
            call(WRONG_INPUTS[what]())
        raised.append((type(caught.value), str(caught.value)))
    assert raised == raised[:1] * len(raised)
    assert stage.state() == before


@pytest.mark.filterwarnings("ignore:Sparse .* support is in beta")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [TFMBSLinear, TFMBSLinearReLU])
def test_sparse_input_is_refused_with_what_is_taken(
    kind: type[TFMBSLinear], training: bool
) -> None:
    layer = kind(6, 3).train(training)
    dense = torch.eye(6)
    for x, layout in ((dense.to_sparse(), "sparse_coo"), (dense.to_sparse_csr(), "sparse_csr")):
        for grad in (True, False):
            with (
                torch.set_grad_enabled(grad),
                pytest.raises(ArgumentError, match=f"input: layout torch.{layout}; .*to_dense"),
            ):
                layer(x)
        with pytest.raises(ArgumentError, match=f"input: layout torch.{layout}"):
            TFMBSLinearFunction.apply(x, layer.weight, layer.bias)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_input_is_refused(layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2, 6), torch.ones(3, 6)], layout=layout)
    with torch.no_grad(), pytest.raises(ArgumentError, match="input: a nested tensor"):
        TFMBSLinear(6, 3).eval()(nested)


def test_a_function_takes_a_vector_as_linear_does() -> None:
    x, weight, bias = torch.randn(8), torch.randn(2, 8), torch.randn(2)
    found = TFMBSLinearFunction.apply(x, weight, bias)
    assert torch.equal(found, TFMBSLinearFunction.apply(x[None], weight, bias)[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_autocast_takes_no_bias_of_fp64(compiled: bool) -> None:
    for kind in (nn.Linear, TFMBSLinear):
        layer = kind(8, 5).eval()
        layer.bias = nn.Parameter(layer.bias.detach().double())
        call = torch.compile(layer, backend="aot_eager") if compiled else layer
        with (
            torch.no_grad(),
            torch.autocast("cpu", dtype=torch.bfloat16),
            pytest.raises(RuntimeError, match="dtype"),
        ):
            call(torch.ones(3, 8))


@pytest.mark.parametrize("arguments", [(-1, 2), (2, -1), ("2", 2), (2.5, 2), (None, 2), (2,)])
def test_wrong_sizes_get_nn_linears_error(arguments: tuple[Any, ...]) -> None:
    raised = []
    for kind in (nn.Linear, TFMBSLinear):
        with pytest.raises((RuntimeError, TypeError, ValueError)) as caught:
            kind(*arguments)
        raised.append((type(caught.value), str(caught.value).replace("TFMBSLinear", "Linear")))
    assert raised[0] == raised[1]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0), (np.int64(4), np.int32(2))])
@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_sizes_that_nn_linear_takes_are_taken(sizes: tuple[int, int], activation: str) -> None:
    layer = TFMBSLinear(*sizes, activation=activation)
    x = torch.ones(2, sizes[0], requires_grad=True)
    y = layer(x)
    assert y.shape == (2, sizes[1])
    if sizes[0] == 0:
        assert torch.equal(y, layer.bias.expand(2, -1))
    y.sum().backward()
    assert layer.bias.grad.tolist() == [2.0] * sizes[1]


def test_a_bias_of_another_dtype_gets_nn_linears_error() -> None:
    raised = []
    for layer in (nn.Linear(4, 2), TFMBSLinear(4, 2)):
        layer.bias = nn.Parameter(layer.bias.detach().double())
        with pytest.raises(RuntimeError) as caught:
            layer(torch.ones(1, 4))
        raised.append(str(caught.value))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_nan_and_infinity_are_never_hidden(activation: str) -> None:
    layer = TFMBSLinear(6, 3, activation=activation)
    x = torch.ones(4, 6)
    x[1, 2] = NAN
    x[2, 3] = math.inf
    with torch.no_grad():
        rows = layer(x).isnan()
        assert rows[1].all()
        assert not rows[0].any()
        assert rows[2].all() == (activation == "int8")
        layer.weight[1, 0] = NAN
        columns = layer(torch.ones(2, 6)).isnan()
    assert columns.tolist() == [[False, True, False]] * 2


def test_a_layer_with_the_same_error_twice_still_works(stage: Stage) -> None:
    with torch.no_grad():
        expected = stage.layer(stage.x)
        for _ in range(3):
            with pytest.raises(RuntimeError):
                stage.layer(stage.x[:, :5])
        assert torch.equal(stage.layer(stage.x), expected)
