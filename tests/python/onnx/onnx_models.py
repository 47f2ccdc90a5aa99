"""Export for the tests, in each way that there is; and what an exported model computes: in ONNX
Runtime, and through an evaluator of the custom operator that is written here from its definition."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx
import onnxruntime as ort
import pytfmbs.onnx as tfmbs_onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from pytfmbs.onnx import schema

TORCH_WARNINGS = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch's, of models in training mode
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # torch's own, of its pytrees
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class Halves:
    """A quantizer of the user's: one scale, or one an output, in a dtype."""

    name = "halves"

    def __init__(self, each: bool = False, dtype: torch.dtype = torch.float32) -> None:
        self.each, self.dtype = each, dtype

    def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        trits = (torch.sign(weight) * (weight.abs() > 0.5)).nan_to_num(0).to(torch.int8)
        scales = weight.shape[0] if self.each else 1
        return trits, torch.linspace(0.3, 1.7, scales, dtype=self.dtype)


class Float32Ends(nn.Module):
    """Takes and gives float32 around a model of another dtype: NumPy has no bfloat16."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self.model(input.to(self.dtype)).to(torch.float32)


QUANTIZERS = (*cases.QUANTIZERS, Halves(), Halves(True), Halves(True, torch.float64))


def export(model: nn.Module, x: torch.Tensor, how: str = "own", **options: Any) -> Any:
    """By pytfmbs.onnx.export, by torch.onnx.export with the table, or from an exported program."""
    if how == "own":
        return tfmbs_onnx.export(model, (x,), **options)
    dynamic = options.pop("dynamic_shapes", None)
    if how == "program":
        program = torch.export.export(model, (x,), dynamic_shapes=dynamic)
        return tfmbs_onnx.export(program, **options)
    table = tfmbs_onnx.translation_table(model, mode=options.pop("mode", "portable"))
    return torch.onnx.export(
        model,
        (x,),
        custom_translation_table=table,
        dynamic_shapes=dynamic,
        verbose=False,
        **options,
    )


def checked(program: Any) -> Any:
    proto = program.model_proto
    onnx.checker.check_model(proto, full_check=True)
    return proto


def run(proto: Any, x: torch.Tensor) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


def assert_same(found: np.ndarray, model: nn.Module, x: torch.Tensor) -> None:
    """Equal to the bit, NaNs where NaNs are."""
    with torch.no_grad():
        wanted = model(x).numpy()
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    bits = f"u{found.dtype.itemsize}"
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(found[numbers].view(bits), wanted[numbers].view(bits))


class TernaryLinear(OpRun):
    """pytfmbs.TernaryLinear from its definition, for float and double."""

    op_domain = schema.DOMAIN

    def _run(self, x: Any, weights: Any, scale: Any, *rest: Any, **attributes: Any) -> Any:
        depth, outputs = attributes["in_features"], attributes["out_features"]
        digits = np.stack([weights // 3**i % 3 for i in range(5)], axis=1).reshape(-1)
        trits = np.array([0, 1, -1])[digits[: depth * outputs]].reshape(outputs, depth)
        real = x.dtype
        if attributes["activation"] == "int8":
            good = np.isfinite(x).all(-1, keepdims=True)
            clean = np.where(good, x, 0).astype(real)
            top = np.maximum(np.abs(clean).max(-1, keepdims=True), real.type(1e-5))
            q = np.clip(np.rint(clean * (real.type(127) / top)), -127, 127)
            row_scale = top / real.type(127)
        else:
            good = ~np.isnan(x).any(-1, keepdims=True)
            q, row_scale = np.sign(np.where(good, x, 0)), np.ones_like(x[..., :1])
        product = (q.astype(np.int64) @ trits.T).astype(real)
        y = product * (row_scale * scale.astype(real))
        if rest and rest[0] is not None:
            y = y + rest[0]
        return (np.where(good, y, real.type("nan")).astype(real),)


def evaluate(proto: Any, x: torch.Tensor) -> np.ndarray:
    name = proto.graph.input[0].name
    return ReferenceEvaluator(proto, new_ops=[TernaryLinear]).run(None, {name: x.numpy()})[0]
