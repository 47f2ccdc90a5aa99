"""What cannot be exported: an error that says why, and what can be done."""

from __future__ import annotations

import warnings

import pytest
import pytfmbs
import torch
from torch import nn

pytest.importorskip("onnx")

import pytfmbs.onnx as tfmbs_onnx
from onnx_models import TORCH_WARNINGS, assert_same, checked, run

pytestmark = TORCH_WARNINGS


def test_unknown_mode() -> None:
    layer = pytfmbs.TFMBSLinear(4, 4).eval()
    for call in (
        lambda: tfmbs_onnx.export(layer, (torch.ones(1, 4),), mode="qdq"),
        lambda: tfmbs_onnx.export(torch.export.export(layer, (torch.ones(1, 4),)), mode="qdq"),
        lambda: tfmbs_onnx.translation_table(layer, mode="qdq"),
    ):
        with pytest.raises(ValueError, match="mode is 'qdq'; allowed are 'portable', 'custom'"):
            call()


def test_what_is_no_model() -> None:
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, not int"):
        tfmbs_onnx.export(3)  # type: ignore[arg-type]


def test_options_that_are_taken() -> None:
    layer = pytfmbs.TFMBSLinear(4, 4).eval()
    with pytest.raises(ValueError, match="dynamo is pytfmbs"):
        tfmbs_onnx.export(layer, (torch.ones(1, 4),), dynamo=False)


def test_table_of_another_model() -> None:
    layer, other = pytfmbs.TFMBSLinear(4, 4, name="here"), pytfmbs.TFMBSLinear(4, 4)
    table = tfmbs_onnx.translation_table(other)
    with pytest.raises(torch.onnx.OnnxExporterError, match="layer 'here' is none of the model"):
        torch.onnx.export(layer, (torch.ones(1, 4),), custom_translation_table=table, verbose=False)


class Foreign(nn.Module):
    """A layer that runs on another weight than its own."""

    def __init__(self, computed: bool) -> None:
        super().__init__()
        self.layer = pytfmbs.TFMBSLinear(4, 4, name="foreign")
        self.other = nn.Parameter(torch.randn(4, 4))
        self.computed = computed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = x @ self.other if self.computed else self.other
        return torch.func.functional_call(self.layer, {"weight": weight}, (x,))


@pytest.mark.parametrize("computed", [True, False])
def test_weight_that_is_not_the_layers_own(computed: bool) -> None:
    model = Foreign(computed).eval()
    with pytest.raises(tfmbs_onnx.ExportError, match="weight of layer 'foreign' is computed from"):
        tfmbs_onnx.export(model, (torch.randn(4, 4),))


def test_program_says_which_weight_is_there() -> None:
    x = torch.randn(4, 4)
    constant = Foreign(False).eval()
    program = torch.export.export(constant, (x,))
    assert_same(run(checked(tfmbs_onnx.export(program)), x), constant, x)
    program = torch.export.export(Foreign(True).eval(), (x,))
    with pytest.raises(tfmbs_onnx.ExportError, match=r"'foreign.*' is computed from input 'x'"):
        tfmbs_onnx.export(program)


def test_decomposed_program() -> None:
    layer = pytfmbs.TFMBSLinear(4, 4).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(layer, (torch.ones(1, 4),)).run_decompositions({})
    with pytest.raises(tfmbs_onnx.ExportError, match="was decomposed"):
        tfmbs_onnx.export(program)


class Functional(nn.Module):
    """The op without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pytfmbs.TFMBSLinearFunction.apply(x, self.weight)


def test_ops_without_a_layer_go_through_a_program() -> None:
    model, x = Functional(), torch.randn(2, 4)
    with pytest.raises(tfmbs_onnx.ExportError, match=r"torch\.export\.export"):
        tfmbs_onnx.export(model, (x,))
    program = torch.export.export(model, (x,))
    assert_same(run(checked(tfmbs_onnx.export(program)), x), model, x)
