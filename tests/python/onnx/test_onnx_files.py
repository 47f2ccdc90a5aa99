"""The files that an export writes."""

from __future__ import annotations

from pathlib import Path

import cases
import pytest
import pytfmbs
import torch

pytest.importorskip("onnx")

import onnx
import pytfmbs.onnx as tfmbs_onnx
from onnx_models import TORCH_WARNINGS, assert_same, evaluate, run

pytestmark = TORCH_WARNINGS


@pytest.mark.parametrize(("mode", "bits"), [("portable", 8), ("custom", 1.6)])
@pytest.mark.parametrize("optimize", [True, False])
def test_file_holds_quantized_weights_alone(
    tmp_path: Path, mode: str, bits: float, optimize: bool
) -> None:
    layer = pytfmbs.TFMBSLinear(512, 1000, weight_quantizer="absmean").eval()
    path = tmp_path / "model.onnx"
    x = cases.tensor(cases.generator(7), (2, 512), torch.float32)
    tfmbs_onnx.export(
        layer, (x,), path, mode=mode, optimize=optimize, external_data=False,
        input_names=["pixels"], output_names=["scores"],
    )  # fmt: skip
    assert path.stat().st_size < 512 * 1000 * bits / 8 + 16_384
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.graph.input[0].name, proto.graph.output[0].name) == ("pixels", "scores")
    found = run(proto, x) if mode == "portable" else evaluate(proto, x)
    assert_same(found, layer, x)


def test_torchs_own_call_leaves_no_float_weights(tmp_path: Path) -> None:
    layer = pytfmbs.TFMBSLinear(300, 200).eval()
    path = tmp_path / "model.onnx"
    table = tfmbs_onnx.translation_table(layer, mode="custom")
    torch.onnx.export(
        layer, (torch.ones(1, 300),), path, custom_translation_table=table, verbose=False,
        external_data=False,
    )  # fmt: skip
    assert path.stat().st_size < 300 * 200 / 5 + 16_384
