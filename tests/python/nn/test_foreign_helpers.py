"""Tools that take any nn.Linear: those that would compute with its float weight are refused by name, the
others see a ternary layer."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from pytfmbs import TFMBSLinear, TFMBSLinearReLU, TFMBSPackedLinear
from torch import nn
from torch.profiler import profile
from torch.utils import mkldnn
from torch.utils.flop_counter import FlopCounterMode

KINDS = [TFMBSLinear, TFMBSLinearReLU]


@pytest.mark.parametrize("kind", KINDS)
def test_fusing_a_batch_norm_is_refused(kind: type[TFMBSLinear]) -> None:
    layer, norm = kind(8, 4).eval(), nn.BatchNorm1d(4).eval()
    before = layer.weight.clone()
    with pytest.raises(TypeError, match=r"fuse_linear_bn_eval.*Keep the batch norm"):
        nn.utils.fusion.fuse_linear_bn_eval(layer, norm)
    assert torch.equal(layer.weight, before)
    fused = nn.utils.fusion.fuse_linear_bn_eval(nn.Linear(8, 4).eval(), norm)
    assert type(fused) is nn.Linear  # which is no concern of ours


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nested", [False, True])
def test_mkldnn_is_refused(kind: type[TFMBSLinear], nested: bool) -> None:
    layer = kind(8, 4, name="model.proj").eval()
    with pytest.raises(TypeError, match=r"to_mkldnn cannot take layer 'model\.proj"):
        mkldnn.to_mkldnn(nn.Sequential(layer) if nested else layer)
    dense = mkldnn.to_mkldnn(nn.Sequential(nn.Linear(8, 4)))
    assert dense(torch.randn(2, 8).to_mkldnn()).to_dense().shape == (2, 4)


@pytest.mark.parametrize("kind", [*KINDS, TFMBSPackedLinear])
def test_script_is_refused_and_trace_works(kind: type[nn.Module]) -> None:
    layer, x = kind(8, 4).eval(), torch.randn(2, 8)
    for module in (layer, nn.Sequential(layer)):
        with pytest.raises(
            NotImplementedError, match=r"torch\.jit\.script cannot.*torch\.jit\.trace"
        ):
            torch.jit.script(module)
    assert torch.equal(torch.jit.trace(layer, x)(x), layer(x))


@pytest.mark.parametrize("kind", [*KINDS, TFMBSPackedLinear])
def test_a_compiled_layer_is_saved_and_copied(kind: type[nn.Module]) -> None:
    layer, x = kind(8, 4).eval(), torch.randn(2, 8)
    layer.compile(backend="eager")
    expected = layer(x)
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), expected)
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert torch.equal(layer(x), expected)


def test_a_weight_of_another_shape_is_refused_by_name() -> None:
    layer = TFMBSLinear(8, 4, bias=False, name="proj").eval()
    layer.weight = nn.Parameter(torch.randn(5, 8))
    with pytest.raises(Exception, match=r"'proj.*4 x 8.*5 x 8.*needs a new layer"):
        layer(torch.randn(2, 8))
    layer.weight = nn.Parameter(torch.randn(4, 8))
    assert layer(torch.randn(2, 8)).shape == (2, 4)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, TFMBSPackedLinear])
def test_flops_are_counted_as_nn_linears(kind: type[nn.Module], gradients: bool) -> None:
    found = []
    for cls in (nn.Linear, kind):
        layer, x = cls(64, 32).eval(), torch.randn(2, 8, 64, requires_grad=gradients)
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(gradients):
            y = layer(x)
            if gradients and cls is not TFMBSPackedLinear and kind is not TFMBSPackedLinear:
                y.sum().backward()
        found.append(counter.get_total_flops())
    assert found[0] == found[1] > 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", [*KINDS, TFMBSPackedLinear])
def test_a_profile_names_the_layer(kind: type[nn.Module], training: bool) -> None:
    layer = kind(8, 4, name="model.layers.3.proj").train(training)
    with profile() as profiler, torch.set_grad_enabled(training):
        layer(torch.randn(2, 8))
    names = [event.key for event in profiler.key_averages()]
    assert [name for name in names if layer.name in name]
    assert [name for name in names if name.startswith("tfmbs::")]
