"""Exported models against the PyTorch models that they were: bit for bit in ONNX Runtime (portable
mode), and through an evaluator of the custom operator that is written here from its definition."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pytest
import pytfmbs
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

import pytfmbs.onnx as tfmbs_onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx.reference.op_run import OpRun  # noqa: E402
from pytfmbs.onnx import metadata, schema  # noqa: E402
from pytfmbs.onnx._quiet import torch_noise_hidden  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch's, of models in training mode
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # torch's own, of its pytrees
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LEAF_SPEC = "`isinstance(treespec, LeafSpec)` is deprecated"


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


QUANTIZERS = (*cases.QUANTIZERS, Halves(), Halves(True), Halves(True, torch.float64))


@cases.campaign(40)
@given(
    lead=st.lists(st.integers(1, 4), max_size=3),
    depth=st.integers(1, 70),
    outputs=st.integers(1, 40),
    dtype=st.sampled_from(cases.DTYPES),
    quantizer=st.sampled_from(QUANTIZERS),
    activation=st.sampled_from(cases.ACTIVATIONS),
    bias=st.booleans(),
    training=st.booleans(),
    how=st.sampled_from(("own", "torch", "program")),
    spoiled=st.sampled_from((None, float("nan"), float("inf"), float("-inf"))),
    nan_weight=st.booleans(),
    magnitude=st.sampled_from((1e-12, 1e-3, 1.0, 1e4)),
    seed=st.integers(0, 10**6),
)
def test_portable_gives_the_models_bits(
    lead: list[int],
    depth: int,
    outputs: int,
    dtype: torch.dtype,
    quantizer: Any,
    activation: str,
    bias: bool,
    training: bool,
    how: str,
    spoiled: float | None,
    nan_weight: bool,
    magnitude: float,
    seed: int,
) -> None:
    rng = cases.generator(seed)
    layer = pytfmbs.TFMBSLinear(
        depth,
        outputs,
        bias=bias,
        dtype=dtype,
        weight_quantizer=quantizer,
        activation=activation,
    )
    with torch.no_grad():
        layer.weight.copy_(cases.tensor(rng, (outputs, depth), dtype))
        if nan_weight:
            layer.weight[rng.integers(outputs), rng.integers(depth)] = float("nan")
    model: nn.Module = layer if dtype != torch.bfloat16 else Float32Ends(layer, dtype)
    model.train(training)
    outer = torch.float32 if dtype == torch.bfloat16 else dtype
    x = cases.sparse(rng, cases.tensor(rng, (*lead, depth), outer) * magnitude, 0.2)
    if spoiled is not None:
        x.view(-1)[rng.integers(x.numel())] = spoiled
    proto = checked(export(model, x, how))
    assert {node.domain for node in proto.graph.node} == {""}
    assert_same(run(proto, x), model, x)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("how", ["own", "torch", "program"])
def test_batch_dimensions_vary_at_run_time(activation: str, how: str) -> None:
    layer = pytfmbs.TFMBSLinear(33, 7, activation=activation, weight_quantizer="absmean").eval()
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
    rng = cases.generator(1)
    program = export(
        layer, cases.tensor(rng, (2, 3, 33), torch.float32), how, dynamic_shapes=(dims,)
    )
    proto = checked(program)
    for lead in ((1, 1), (5, 1), (1, 64), (7, 9), (0, 3)):
        x = cases.tensor(rng, (*lead, 33), torch.float32)
        assert_same(run(proto, x), layer, x)


@pytest.mark.parametrize("activation", cases.ACTIVATIONS)
@pytest.mark.parametrize("depth", [1023, 4096, 40_000])
def test_product_is_exact_where_sums_are_largest(activation: str, depth: int) -> None:
    layer = pytfmbs.TFMBSLinear(depth, 5, bias=False, activation=activation).eval()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[1].fill_(-1.0)
        layer.weight[2, ::2] = -1.0
    x = torch.ones(3, depth)
    x[1] = -1.0
    x[2, ::2] = -1.0
    found = run(checked(export(layer, x)), x)
    assert_same(found, layer, x)
    assert found[0, 0] == depth  # every product 1, or 127 · 1/127


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_int8_rounds_as_the_layer_does(dtype: torch.dtype) -> None:
    """Activations next to the ties of their rows, where the order of the operations decides."""
    rng = cases.generator(10)
    largest = torch.from_numpy(rng.random((32, 1)) + 0.01).to(dtype)
    steps = torch.arange(-127, 127, dtype=dtype) + 0.5
    x = torch.cat([largest, largest * steps / 127], dim=1)
    layer = pytfmbs.TFMBSLinear(255, 60, dtype=dtype, activation="int8").eval()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(rng.integers(-1, 2, (60, 255))))
    assert_same(run(checked(export(layer, x)), x), layer, x)


@pytest.mark.parametrize("batch", [1, 4])
def test_deep_model(batch: int) -> None:
    sizes = (784, 61, 1030, 2000, 33, 17, 60, 10)
    layers: list[nn.Module] = []
    for i, (depth, outputs) in enumerate(pairwise(sizes)):
        layers += [
            pytfmbs.TFMBSLinear(
                depth,
                outputs,
                name=f"deep{i}",
                weight_quantizer=cases.QUANTIZERS[i % 3],
                activation=cases.ACTIVATIONS[i % 2],
            ),
            nn.ReLU(),
        ]
    model = nn.Sequential(*layers[:-1]).eval()
    x = cases.tensor(cases.generator(2), (batch, 784), torch.float32)
    proto = checked(export(model, x))
    assert_same(run(proto, x), model, x)
    hints = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert [h["layer"] for h in hints] == [m.name for m in model[::2]]


class Twice(nn.Module):
    """One layer called twice, and one whose weight is tied to it."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.a = pytfmbs.TFMBSLinear(12, 12, name="twice.a", activation=activation)
        self.b = pytfmbs.TFMBSLinear(12, 12, name="twice.b", activation=activation)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(self.a(x))) + self.a(x)


@pytest.mark.parametrize("mode", ["portable", "custom"])
@pytest.mark.parametrize("how", ["own", "torch", "program"])
def test_layers_called_twice_and_tied_weights(mode: str, how: str) -> None:
    model = Twice("int8").eval()
    x = cases.tensor(cases.generator(3), (4, 12), torch.float32)
    proto = checked(export(model, x, how, mode=mode))
    names = [h["layer"] for node in proto.graph.node if (h := metadata.read(node)) is not None]
    # a(x) is there once
    assert sorted(names) == [model.a.name, model.a.name, model.b.name]
    weights = [t for t in proto.graph.initializer if t.data_type in (2, 3)]
    assert len(weights) == 1  # the trits, once
    found = run(proto, x) if mode == "portable" else evaluate(proto, x)
    assert_same(found, model, x)


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 2 - 0.25


@pytest.mark.parametrize("how", ["own", "program"])
def test_parametrized_weight(how: str) -> None:
    layer = pytfmbs.TFMBSLinear(9, 4, weight_quantizer="twn").eval()
    parametrize.register_parametrization(layer, "weight", Doubled())
    x = cases.tensor(cases.generator(4), (2, 9), torch.float32)
    assert_same(run(checked(export(layer, x, how)), x), layer, x)


def test_autocast_chooses_the_outputs_type() -> None:
    layer = pytfmbs.TFMBSLinear(20, 6, activation="int8", weight_quantizer="twn").eval()

    class Autocast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.layer(x).float()

    x = cases.tensor(cases.generator(5), (3, 20), torch.float32)
    model = Autocast().eval()
    with torch.autocast("cpu", torch.bfloat16):
        program = tfmbs_onnx.export(Float32Out(layer), (x,))
        custom = tfmbs_onnx.export(Float32Out(layer), (x,), mode="custom")
    assert_same(run(checked(program), x), model, x)
    assert_same(evaluate(checked(custom), x), model, x)


class Float32Out(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).to(torch.float32)


# --- the custom operator --------------------------------------------------------------------------


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


@cases.campaign(15)
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    depth=st.integers(1, 50),
    outputs=st.integers(1, 30),
    dtype=st.sampled_from((torch.float32, torch.float64)),
    quantizer=st.sampled_from(QUANTIZERS),
    activation=st.sampled_from(cases.ACTIVATIONS),
    bias=st.booleans(),
    how=st.sampled_from(("own", "torch", "program")),
    nan_weight=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_custom_holds_the_model(
    lead: list[int],
    depth: int,
    outputs: int,
    dtype: torch.dtype,
    quantizer: Any,
    activation: str,
    bias: bool,
    how: str,
    nan_weight: bool,
    seed: int,
) -> None:
    rng = cases.generator(seed)
    layer = pytfmbs.TFMBSLinear(
        depth, outputs, bias, dtype=dtype, weight_quantizer=quantizer, activation=activation
    ).eval()
    with torch.no_grad():
        if nan_weight:
            layer.weight[rng.integers(outputs), rng.integers(depth)] = float("nan")
    x = cases.tensor(rng, (*lead, depth), dtype)
    proto = checked(export(layer, x, how, mode="custom"))
    assert [node.op_type for node in proto.graph.node] == ["TernaryLinear"]
    assert_same(evaluate(proto, x), layer, x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_custom_takes_16_bit_floats_as_they_are(dtype: torch.dtype) -> None:
    layer = pytfmbs.TFMBSLinear(8, 3, dtype=dtype).eval()
    proto = checked(export(layer, torch.ones(2, 8, dtype=dtype), mode="custom"))
    assert [node.op_type for node in proto.graph.node] == ["TernaryLinear"]


def test_custom_node_says_what_the_layer_is() -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig(tiles=64))
    layer = pytfmbs.TFMBSLinear(
        20, 9, name="fc·1", fabric=fabric, tile_mask=(1 << 63) | 5, weight_addr=0x2040
    ).eval()
    proto = checked(export(layer, torch.ones(1, 20), mode="custom"))
    (node,) = proto.graph.node
    given_attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert schema.unsigned_mask(given_attributes.pop("tile_mask")) == (1 << 63) | 5
    assert given_attributes == {
        "in_features": 20,
        "out_features": 9,
        "activation": b"ternary",
        "weight_quantizer": b"sign",
        "layer": "fc·1".encode(),
        "sparsity": 0.0,
        "weight_addr": 0x2040,
    }
    assert {o.domain: o.version for o in proto.opset_import}["pytfmbs"] == 1


# --- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["portable", "custom"])
@pytest.mark.parametrize("how", ["own", "torch", "program"])
@pytest.mark.parametrize("optimize", [True, False])
def test_metadata_is_the_hint(mode: str, how: str, optimize: bool) -> None:
    fabric = pytfmbs.Fabric(pytfmbs.FabricConfig(tiles=8))
    model = nn.Sequential(
        pytfmbs.TFMBSLinear(30, 70, name="first", fabric=fabric, weight_quantizer="twn"),
        nn.ReLU(),
        pytfmbs.TFMBSLinear(
            70, 12, name="placed", fabric=fabric, weight_addr=0x1800, tile_mask=0b10100
        ),
        pytfmbs.TFMBSLinear(
            12, 3, name="last; of=3", fabric=fabric, activation="int8", weight_quantizer="absmean"
        ),
    ).eval()
    x = cases.tensor(cases.generator(6), (2, 30), torch.float32)
    proto = checked(export(model, x, how, mode=mode, optimize=optimize))
    found = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    hints = [m.telemetry_hint for m in model if isinstance(m, pytfmbs.TFMBSLinear)]
    for hint in hints:
        assert hint.pop("resident") is False
    assert found == hints


def test_metadata_has_the_address_that_the_device_chose() -> None:
    layer = pytfmbs.TFMBSLinear(40, 8, fabric=pytfmbs.Fabric(pytfmbs.FabricConfig())).eval()
    assert layer.prefetch()
    proto = checked(export(layer, torch.ones(1, 40)))
    (hint,) = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert hint["weight_addr"] == layer.telemetry_hint["weight_addr"] is not None


def test_custom_quantizers_name_travels() -> None:
    layer = pytfmbs.TFMBSLinear(6, 4, weight_quantizer=Halves()).eval()
    proto = checked(export(layer, torch.ones(1, 6)))
    (hint,) = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert hint["weight_quantizer"] == "halves"
    assert hint["sparsity"] == layer.telemetry_hint["sparsity"]


@pytest.mark.parametrize("zeros", [1, 3, 31])  # 312.5, 937.5 and 9687.5 parts of 10,000
@pytest.mark.parametrize("how", ["own", "program"])
def test_sparsity_is_rounded_as_the_device_does(how: str, zeros: int) -> None:
    layer = pytfmbs.TFMBSLinear(8, 4).eval()
    with torch.no_grad():
        layer.weight.fill_(1.0).view(-1)[:zeros] = 0.0
    proto = checked(export(layer, torch.ones(1, 8), how))
    (hint,) = [h for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert hint["sparsity"] == layer.telemetry_hint["sparsity"]
    assert hint["sparsity"] == (zeros * 10_000 + 16) // 32 / 10_000


# --- the portable pattern (docs/onnx.md) ----------------------------------------------------------

TERNARY = ["IsNaN", "Cast", "ReduceMax", "Cast", "Where", "Sign", "Cast"]
INT8 = [
    *("IsNaN", "IsInf", "Or", "Cast", "ReduceMax", "Cast", "Where"),
    *("Abs", "ReduceMax", "Max", "Div", "Div", "Mul", "Round", "Clip", "Cast"),
]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("activation", "quantizer", "bias", "chains"),
    [
        ("ternary", "sign", True, (TERNARY, ["Where", "Cast", "Mul", "Add"])),
        ("ternary", "twn", False, (TERNARY, ["Where", "Cast", "Mul"])),
        ("int8", "sign", True, (INT8, ["Where", "Cast", "Mul", "Add"])),
        ("int8", "twn", True, (INT8, ["Mul", "Where", "Cast", "Mul", "Add"])),
    ],
)
def test_portable_pattern(
    activation: str, quantizer: str, bias: bool, chains: tuple[list[str], ...], optimize: bool
) -> None:
    layer = pytfmbs.TFMBSLinear(
        11, 6, bias, name="shape", activation=activation, weight_quantizer=quantizer
    ).eval()
    proto = checked(export(layer, torch.randn(2, 11), optimize=optimize))
    nodes = list(proto.graph.node)
    roles = {
        role: [n.op_type for n in nodes if metadata.role(n) == role]
        for role in (metadata.QUANTIZE, metadata.PRODUCT, metadata.DEQUANTIZE)
    }
    assert roles == {"quantize": chains[0], "product": ["MatMulInteger"], "dequantize": chains[1]}
    assert all(metadata.layer(n) == layer.name for n in nodes)  # "shape", or with a suffix
    (product,) = [n for n in nodes if metadata.role(n) == metadata.PRODUCT]
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    trits = constants[product.input[1]]
    assert trits.dtype == np.int8
    np.testing.assert_array_equal(trits, layer.quantized_weight()[0].numpy().T)


# --- files ----------------------------------------------------------------------------------------


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


def test_program_is_not_changed_by_its_export() -> None:
    layer = pytfmbs.TFMBSLinear(10, 4).eval()
    x = torch.randn(2, 10)
    program = torch.export.export(layer, (x,))
    before = str(program.graph_module.code)
    tfmbs_onnx.export(program)
    assert str(program.graph_module.code) == before
    torch.testing.assert_close(program.module()(x), layer(x), rtol=0, atol=0)


def test_model_without_the_layer_exports_plainly() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU()).eval()
    x = torch.randn(3, 5)
    proto = checked(tfmbs_onnx.export(model, (x,), mode="custom"))
    assert all(metadata.layer(node) is None for node in proto.graph.node)
    np.testing.assert_allclose(run(proto, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


# --- errors ---------------------------------------------------------------------------------------


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


def test_loaded_program(tmp_path: Path) -> None:
    layer = pytfmbs.TFMBSLinear(14, 5, weight_quantizer="twn", activation="int8").eval()
    x = cases.tensor(cases.generator(8), (2, 14), torch.float32)
    torch.export.save(torch.export.export(layer, (x,)), tmp_path / "layer.pt2")
    program = torch.export.load(tmp_path / "layer.pt2")
    assert_same(run(checked(tfmbs_onnx.export(program)), x), layer, x)


class Heads(nn.Module):
    """Three layers of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(pytfmbs.TFMBSLinear(16, 8, activation="int8") for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (head(x) for head in self.heads)
        return q * k + v


def test_layers_of_one_input_share_its_quantization() -> None:
    model, x = Heads().eval(), cases.tensor(cases.generator(9), (3, 16), torch.float32)
    proto = checked(export(model, x))
    assert [n.op_type for n in proto.graph.node].count("Round") == 1
    names = [h["layer"] for node in proto.graph.node if (h := metadata.read(node)) is not None]
    assert sorted(names) == sorted(head.name for head in model.heads)
    assert_same(run(proto, x), model, x)


# --- what the user sees ---------------------------------------------------------------------------


def test_an_export_is_silent(tmp_path: Path) -> None:
    """In a process of its own, since torch says some things once."""
    script = tmp_path / "export.py"
    script.write_text(
        "import torch, pytfmbs, pytfmbs.onnx\n"
        "model = torch.nn.Sequential(pytfmbs.TFMBSLinear(8, 4)).eval()\n"
        "x = torch.randn(2, 8)\n"
        "pytfmbs.onnx.export(model, (x,), dynamic_shapes=({0: 'batch'},))\n"
        "pytfmbs.onnx.export(torch.export.export(model, (x,)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_only_torchs_two_messages_are_hidden(caplog: pytest.LogCaptureFixture) -> None:
    """And only while an export runs."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addHandler(caplog.handler)
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for hidden in (torch_noise_hidden(), nullcontext()):
                with hidden:
                    logger.warning("torchvision is not installed. Skipping %s", "torchvision::nms")
                    logger.warning("another")
                    warnings.warn(f"{LEAF_SPEC}, and more", FutureWarning, stacklevel=1)
                    warnings.warn(f"{LEAF_SPEC}", UserWarning, stacklevel=1)
                    warnings.warn(f"another: {LEAF_SPEC}", FutureWarning, stacklevel=1)
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.get_records("call")]
    skipping = "torchvision is not installed. Skipping torchvision::nms"
    assert list(dict.fromkeys(said)) == ["another", skipping]
    assert said.count("another") == 2 * said.count(skipping)
    assert [str(w.message) for w in warned] == [
        LEAF_SPEC, f"another: {LEAF_SPEC}",
        f"{LEAF_SPEC}, and more", LEAF_SPEC, f"another: {LEAF_SPEC}",
    ]  # fmt: skip
