"""TFMBSPackedLinear: the numbers and the telemetry of the trainable layer with its trits, and the
formula of group scales; state, pickles, and what bad input gets."""

from __future__ import annotations

import copy
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch
from cases import ACTIVATIONS, DTYPES, campaign, generator, tensor
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import Fabric, FabricConfig, TFMBSLinear, TFMBSPackedLinear
from reference import QuantizedWeight, linear, same_bits
from torch import Tensor, nn

EDGES = (1, 2, 4, 5, 6, 15, 16, 17, 20, 21, 63, 64, 65, 79, 80, 81, 127, 128, 129, 319, 320, 321)
SIZES = st.one_of(st.sampled_from(EDGES), st.integers(1, 400))
LEADING = st.sampled_from([(), (0,), (1,), (5,), (2, 3), (3, 0), (33,)])
GROUPS = (32, 64, 128, 256)
CONFIG = FabricConfig(tiles=2, lanes=15, bank_depth=256)


def trits_of(rng: np.random.Generator, outputs: int, inputs: int) -> Tensor:
    return torch.from_numpy(rng.integers(-1, 2, (outputs, inputs)).astype(np.int8))


def made(
    outputs: int = 17,
    inputs: int = 43,
    group_size: int | None = None,
    seed: int = 0,
    **options: Any,
) -> TFMBSPackedLinear:
    rng = generator(seed, outputs, inputs)
    shape: tuple[int, ...] = (outputs,)
    if group_size is not None:
        shape = (outputs, -(-inputs // group_size))
    scale = torch.from_numpy(rng.random(shape)).float() + 0.1
    bias = options.pop("bias", tensor(rng, (outputs,), torch.float32))
    trits = trits_of(rng, outputs, inputs)
    return TFMBSPackedLinear.from_trits(trits, scale, bias, group_size=group_size, **options)


def x_of(layer: TFMBSPackedLinear, rows: int = 3) -> Tensor:
    return tensor(generator(rows, 1), (rows, layer.in_features), torch.float32)


# --- the trainable layer's numbers and telemetry --------------------------------------------------


@campaign(60)
@given(
    inputs=SIZES,
    outputs=SIZES,
    leading=LEADING,
    dtype=st.sampled_from(DTYPES),
    activation=st.sampled_from(ACTIVATIONS),
    each=st.booleans(),
    bias=st.booleans(),
    packing=st.sampled_from(("auto", "packed2", "packed_base3")),
    seed=st.integers(0, 10**6),
)
def test_outputs_and_telemetry_are_the_trainable_layers(
    inputs: int,
    outputs: int,
    leading: tuple[int, ...],
    dtype: torch.dtype,
    activation: str,
    each: bool,
    bias: bool,
    packing: str,
    seed: int,
) -> None:
    rng = generator(seed)
    trits = trits_of(rng, outputs, inputs)
    scale = torch.from_numpy(rng.random(outputs if each else 1)).float() + 0.01
    b = tensor(rng, (outputs,), dtype) if bias else None
    x = tensor(rng, (*leading, inputs), dtype)
    with Fabric(CONFIG) as one, Fabric(CONFIG) as two:
        packed = TFMBSPackedLinear.from_trits(
            trits, scale, b, activation=activation, fabric=one, name="layer", packing=packing
        )
        trained = TFMBSLinear.from_trits(
            trits, scale, b, dtype=dtype, activation=activation, fabric=two, name="layer"
        ).eval()
        with torch.no_grad():
            y, wanted = packed(x), trained(x)
        assert same_bits(y, wanted)
        # and what neither of the two says
        quantized = QuantizedWeight(
            trits.numpy(),
            scale.numpy().astype(np.float64 if dtype == torch.float64 else np.float32),
            np.zeros(outputs, bool),
        )
        assert same_bits(y, linear(x, trained.weight, b, quantized, activation))
        assert one.profile_detailed() == two.profile_detailed()
        ours, theirs = packed.telemetry_hint, trained.telemetry_hint
        assert ours.pop("weight_quantizer") == "packed"
        assert theirs.pop("weight_quantizer") == "fixed"
        assert ours == theirs
        size = CONFIG.bank_depth * 4
        for tile in range(CONFIG.tiles):
            for base in (CONFIG.bank_a_base(tile), CONFIG.bank_b_base(tile)):
                assert bytes(one.read(base, size)) == bytes(two.read(base, size))
        found, found_scale = packed.quantized_weight()
        assert torch.equal(found, trits)
        assert torch.equal(found_scale, scale)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_gradients_are_the_trainable_layers(activation: str, clip: float | None) -> None:
    rng = generator(2)
    trits, scale = trits_of(rng, 9, 33), torch.from_numpy(rng.random(9)).float() + 0.1
    bias = tensor(rng, (9,), torch.float32).requires_grad_()
    options: dict[str, Any] = {"activation": activation, "ste_clip": clip}
    grads = []
    for kind in (TFMBSPackedLinear, TFMBSLinear):
        layer = kind.from_trits(trits, scale, bias, **options)
        layer.bias.requires_grad_(True)
        x = tensor(generator(3), (4, 33), torch.float32).requires_grad_()
        (layer(x) ** 2).sum().backward()
        assert x.grad is not None
        grads.append((x.grad, layer.bias.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.equal(grads[0][1], grads[1][1])


def test_a_bias_trains_and_the_rest_does_not() -> None:
    layer = made()
    assert [name for name, _ in layer.named_parameters()] == ["bias"]
    assert not layer.bias.requires_grad  # as the tensor that was given
    layer.requires_grad_(True)
    layer(x_of(layer)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((17,), 3.0))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("group_size", [None, 32])
def test_compiled_gives_eagers_numbers_and_telemetry(backend: str, group_size: int | None) -> None:
    torch._dynamo.reset()
    with Fabric(CONFIG) as fabric:
        model = nn.Sequential(
            made(33, 43, group_size, fabric=fabric, name="one"),
            nn.ReLU(),
            made(5, 33, group_size, fabric=fabric, name="two", bias=None),
        )
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        x = x_of(model[0])
        with torch.no_grad():
            compiled(x), model(x)
            fabric.reset_counters()
            wanted = model(x)
            eager = fabric.profile_detailed()
            fabric.reset_counters()
            assert torch.equal(compiled(x), wanted)
            assert fabric.profile_detailed() == eager
            state = made(33, 43, group_size, seed=9).state_dict()
            model[0].load_state_dict(state)
            assert torch.equal(compiled(x), model(x))
            assert not torch.equal(compiled(x), wanted)


def test_opcheck() -> None:
    for group, shape in ((None, (3, 43)), (32, (2, 2, 43)), (None, (0, 43)), (None, (43,))):
        layer = made(group_size=group)
        x = torch.randn(*shape, requires_grad=True)
        torch.library.opcheck(
            torch.ops.tfmbs.packed_linear.default,
            (
                x,
                layer._panels,
                layer._scales,
                layer.bias,
                layer.fabric_identity,
                layer._layout,
                17,
                43,
                group or 0,
                "int8",
                None,
                None,
            ),
        )


# --- group scales ---------------------------------------------------------------------------------


def grouped(
    x: Tensor, trits: Tensor, scale: Tensor, bias: Tensor | None, group: int, act: str
) -> Tensor:
    """Plain torch: int sums inside a group, fp32 across groups in their order, mul and then add."""
    wide = x.dtype == torch.float64
    real = torch.float64 if wide else torch.float32
    q, row_scale = torch.ops.tfmbs.quantize_activation(x, act)
    total = torch.zeros(*x.shape[:-1], trits.shape[0], dtype=real)
    for g in range(scale.shape[1]):
        part = slice(g * group, (g + 1) * group)
        sums = q[..., part].double() @ trits[:, part].double().T
        total = total + sums.to(real) * scale[:, g].to(real)
    y = total * row_scale.to(real)
    if bias is not None:
        y = y + bias.to(real)
    return y.to(x.dtype)


@campaign(60)
@given(
    inputs=st.one_of(
        st.sampled_from((1, 31, 32, 33, 64, 255, 256, 257, 511, 513)), st.integers(1, 600)
    ),
    outputs=SIZES,
    leading=LEADING,
    group=st.sampled_from(GROUPS),
    dtype=st.sampled_from(DTYPES),
    activation=st.sampled_from(ACTIVATIONS),
    bias=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_group_scales_follow_the_formula(
    inputs: int,
    outputs: int,
    leading: tuple[int, ...],
    group: int,
    dtype: torch.dtype,
    activation: str,
    bias: bool,
    seed: int,
) -> None:
    rng = generator(seed)
    trits = trits_of(rng, outputs, inputs)
    scale = torch.from_numpy(rng.random((outputs, -(-inputs // group)))).float() * 3 + 0.01
    b = tensor(rng, (outputs,), dtype) if bias else None
    x = tensor(rng, (*leading, inputs), dtype)
    layer = TFMBSPackedLinear.from_trits(trits, scale, b, group_size=group, activation=activation)
    with torch.no_grad():
        assert same_bits(layer(x), grouped(x, trits, scale, b, group, activation))
    found, found_scale = layer.quantized_weight()
    assert torch.equal(found, trits)
    assert torch.equal(found_scale, scale)
    each = scale.repeat_interleave(group, 1)[:, :inputs]
    assert torch.equal(layer.dequantized_weight(), trits.float() * each)


@pytest.mark.parametrize("where", ["tensor", "row", "group"])
def test_a_nan_scale_makes_its_output_nan(where: str) -> None:
    trits, group = torch.zeros(5, 70, dtype=torch.int8), None
    scale = torch.ones({"tensor": (1,), "row": (5,), "group": (5, 3)}[where])
    if where == "group":
        group = 32
        scale[3, 2] = float("nan")
    else:
        scale[-2 if where == "row" else 0] = float("nan")
    y = TFMBSPackedLinear.from_trits(trits, scale, group_size=group)(torch.randn(2, 70))
    wanted = torch.ones(5, dtype=torch.bool) if where == "tensor" else torch.arange(5) == 3
    assert torch.equal(y.isnan(), wanted.expand(2, 5))


@pytest.mark.parametrize(("outputs", "inputs"), [(0, 0), (0, 7), (7, 0)])
@pytest.mark.parametrize("group_size", [None, 32])
def test_sizes_of_zero(outputs: int, inputs: int, group_size: int | None) -> None:
    layer = made(outputs, inputs, group_size)
    y = layer(torch.randn(3, inputs))
    assert torch.equal(y, layer.bias.detach().expand(3, outputs))
    twin = TFMBSPackedLinear(inputs, outputs, group_size=group_size)
    twin.load_state_dict(layer.state_dict())
    assert torch.equal(twin(torch.randn(3, inputs)), y)
    assert layer.quantized_weight()[0].shape == (outputs, inputs)
    assert copy.deepcopy(layer)(torch.randn(3, inputs)).shape == (3, outputs)


def test_scales_are_float32_while_a_dtype_changes() -> None:
    """A thread that calls the layer meanwhile finds nothing else."""
    layer = made(8, 40, None)
    kinds: list[torch.dtype] = []

    class Watched(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if key == "_scales":
                kinds.append(value.dtype)
            super().__setitem__(key, value)

    layer.__dict__["_buffers"] = Watched(layer._buffers)
    layer.half().double()
    assert set(kinds) == {torch.float32}


# --- what is refused ------------------------------------------------------------------------------

BAD_CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no trit": (
        lambda: TFMBSPackedLinear.from_trits(torch.tensor([[0, 1], [2, 0]])),
        pytfmbs.ArgumentError,
        "trits hold 2 at row 1, column 0",
    ),
    "a fraction": (
        lambda: TFMBSPackedLinear.from_trits(torch.tensor([[0.5]])),
        pytfmbs.ArgumentError,
        r"trits hold 0\.5 at row 0, column 0; allowed are -1, 0 and",
    ),
    "a NaN": (
        lambda: TFMBSPackedLinear.from_trits(torch.tensor([[float("nan")]])),
        pytfmbs.ArgumentError,
        "trits hold nan",
    ),
    "257, which int8 holds as 1": (
        lambda: TFMBSPackedLinear.from_trits(torch.tensor([[257]])),
        pytfmbs.ArgumentError,
        "trits hold 257",
    ),
    "255, which int8 holds as -1": (
        lambda: TFMBSPackedLinear.from_trits(torch.tensor([[1, 255]], dtype=torch.uint8)),
        pytfmbs.ArgumentError,
        "trits hold 255 at row 0, column 1",
    ),
    "a fraction in a trainable layer": (
        lambda: TFMBSLinear.from_trits(torch.tensor([[0.5, 1.9]]), 2.0),
        pytfmbs.ArgumentError,
        r"trits hold 0\.5 at row 0, column 0",
    ),
    "256 in a trainable layer": (
        lambda: TFMBSLinear.from_trits(torch.tensor([[256]])),
        pytfmbs.ArgumentError,
        "trits hold 256",
    ),
    "an infinite scale of a trainable layer": (
        lambda: TFMBSLinear.from_trits(torch.zeros(2, 2), torch.tensor([1.0, torch.inf])),
        pytfmbs.ArgumentError,
        "scale holds inf; it must be finite and above 0",
    ),
    "trainable: scale that the dtype rounds to 0": (
        lambda: TFMBSLinear.from_trits(torch.ones(3, 4), 1e-9, dtype=torch.float16),
        pytfmbs.ArgumentError,
        "a weight of float16 does not hold the scale",
    ),
    "trainable: scale beyond the dtype": (
        lambda: TFMBSLinear.from_trits(torch.ones(3, 4), 1e5, dtype=torch.float16),
        pytfmbs.ArgumentError,
        "a weight of float16 does not hold the scale",
    ),
    "trainable: bias of another shape": (
        lambda: TFMBSLinear.from_trits(torch.zeros(3, 4), bias=torch.ones(4)),
        pytfmbs.ArgumentError,
        r"bias is of shape \(4,\).*\(3,\)",
    ),
    "a vector": (
        lambda: TFMBSPackedLinear.from_trits(torch.zeros(3)),
        pytfmbs.ArgumentError,
        "must be a matrix",
    ),
    "no tensor": (
        lambda: TFMBSPackedLinear.from_trits([[0]]),  # type: ignore[arg-type]
        pytfmbs.ArgumentError,
        "must be a matrix",
    ),
    "scale of another shape": (
        lambda: TFMBSPackedLinear.from_trits(torch.zeros(3, 4), torch.ones(4)),
        pytfmbs.ArgumentError,
        r"shape \(4,\).*\(3,\)",
    ),
    "group scale of another shape": (
        lambda: TFMBSPackedLinear.from_trits(torch.zeros(3, 70), torch.ones(3, 2), group_size=32),
        pytfmbs.ArgumentError,
        r"\(3, 2\).*groups of 32.*\(3, 3\)",
    ),
    "bias of another shape": (
        lambda: TFMBSPackedLinear.from_trits(torch.zeros(3, 4), bias=torch.ones(4)),
        pytfmbs.ArgumentError,
        r"bias is of shape \(4,\).*\(3,\)",
    ),
    "bias of integers": (
        lambda: TFMBSPackedLinear.from_trits(torch.zeros(3, 4), bias=torch.ones(3).int()),
        TypeError,
        "bias",
    ),
    "group size": (
        lambda: TFMBSPackedLinear(64, 3, group_size=48),
        ValueError,
        "group_size is 48; allowed are 32, 64, 128, 256",
    ),
    "group size 0": (lambda: TFMBSPackedLinear(64, 3, group_size=0), ValueError, "group_size is 0"),
    "packing": (
        lambda: TFMBSPackedLinear(64, 3, packing="packed3"),
        ValueError,
        "packing.*packed3",
    ),
    "base-3 groups": (
        lambda: TFMBSPackedLinear(64, 3, packing="packed_base3", group_size=32),
        pytfmbs.ArgumentError,
        "takes no group scales; use 'packed2'",
    ),
    "dtype": (
        lambda: TFMBSPackedLinear(4, 3, dtype=torch.int32),
        TypeError,
        "dtype is torch.int32",
    ),
    "negative size": (lambda: TFMBSPackedLinear(-4, 3), (ValueError, RuntimeError), "-4"),
    "activation": (lambda: TFMBSPackedLinear(4, 3, activation="int4"), ValueError, "int4"),
    "not a layer": (
        lambda: TFMBSPackedLinear.from_linear(nn.Conv2d(1, 1, 1)),  # type: ignore[arg-type]
        TypeError,
        "must be an nn.Linear or a TFMBSLinear, not Conv2d",
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_calls(case: str) -> None:
    call, kind, words = BAD_CALLS[case]
    before = set(Fabric().profile_detailed()["layers"])
    with pytest.raises(kind, match=words):
        call()
    assert set(Fabric().profile_detailed()["layers"]) == before


def test_bad_input_raises_what_linear_raises() -> None:
    layer, plain = made(), nn.Linear(43, 17)
    for bad in (torch.randn(3, 42), torch.tensor(1.0), torch.randn(3, 43, device="meta"), "text"):
        with pytest.raises(Exception) as wanted:  # noqa: PT011
            plain(bad)
        with pytest.raises(wanted.type):
            layer(bad)
    with pytest.raises(RuntimeError):
        layer(torch.ones(3, 43, dtype=torch.int32))
    x = x_of(layer)
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("kernel", ["portable", None])
def test_garbage_panels_are_refused(kernel: str | None) -> None:
    """Bytes that are no code, and other padding than zeros, in every layout."""
    code = """
import sys, torch, pytfmbs
torch.manual_seed(5)
refused = 0
for activation in ("ternary", "int8"):
    for packing, group in (("packed2", None), ("packed_base3", None), ("packed2", 32)):
        for outputs, inputs in ((1, 1), (17, 43), (70, 333)):
            layer = pytfmbs.TFMBSPackedLinear(
                inputs, outputs, activation=activation, packing=packing, group_size=group)
            for _ in range(5):
                layer._panels = torch.randint(0, 256, layer._panels.shape, dtype=torch.uint8)
                try:
                    layer(torch.randn(5, inputs))
                except pytfmbs.EncodingError as error:
                    assert "is no code" in str(error), error
                    refused += 1
print(refused)
"""
    environment = dict(os.environ)
    environment.pop("TFMBS_KERNEL", None)
    if kernel is not None:
        environment["TFMBS_KERNEL"] = kernel
    assert int(python(code, env=environment)) == 2 * 3 * 3 * 5


# --- state ----------------------------------------------------------------------------------------


def python(code: str, *arguments: Any, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def twin_of(layer: TFMBSPackedLinear, **options: Any) -> TFMBSPackedLinear:
    return TFMBSPackedLinear(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        activation=layer.activation,
        group_size=layer.group_size,
        **options,
    )


@pytest.mark.parametrize("group_size", [None, *GROUPS])
@pytest.mark.parametrize("packing", ["packed2", "packed_base3"])
def test_state_dict_goes_round(group_size: int | None, packing: str) -> None:
    if group_size and packing == "packed_base3":
        packing = "auto"
    layer = made(70, 333, group_size)
    state = layer.state_dict()
    assert set(state) == {"packed", "scale", "bias"}
    assert (state["packed"].dtype, state["packed"].shape) == (torch.uint8, (70, 67))
    rows = [pytfmbs.pack_pt5(row) for row in layer.quantized_weight()[0]]
    assert torch.equal(state["packed"], torch.stack(rows))
    twin = twin_of(layer, packing=packing)
    x = x_of(layer)
    zero = twin(x)
    assert zero.abs().max() == 0
    assert str(twin.load_state_dict(state)) == "<All keys matched successfully>"
    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("byte", range(243, 256))
def test_encoding_faults_are_named(byte: int) -> None:
    layer, x = made(), x_of(made())
    before = layer(x)
    state = {k: v.clone() for k, v in made(seed=1).state_dict().items()}
    state["packed"][13, 4] = byte
    with pytest.raises(RuntimeError, match=rf"byte {byte} in row 13 at offset 4"):
        layer.load_state_dict(state)
    assert torch.equal(layer(x), before)


def test_padding_that_is_not_zero_is_named() -> None:
    layer = made()
    state = layer.state_dict()
    state["packed"][16, 8] = 27 + 0  # the fourth trit of three
    with pytest.raises(RuntimeError, match=r"byte 27 in row 16 at offset 8"):
        layer.load_state_dict(state)


STATES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no packed": (lambda s: s.pop("packed"), 'Missing key.*"0.packed"'),
    "no scale": (lambda s: s.pop("scale"), 'Missing key.*"0.scale"'),
    "no bias": (lambda s: s.pop("bias"), 'Missing key.*"0.bias"'),
    "more": (lambda s: s.update(weight=torch.ones(1)), 'Unexpected key.*"0.weight"'),
    "fewer rows": (lambda s: s.update(packed=s["packed"][:-1]), r"\(16, 9\).*\(17, 9\)"),
    "shorter rows": (lambda s: s.update(packed=s["packed"][:, :-1]), r"\(17, 8\)"),
    "longer rows": (lambda s: s.update(packed=torch.zeros(17, 10).byte()), r"\(17, 10\)"),
    "a vector": (lambda s: s.update(packed=s["packed"][0]), "packed"),
    "of floats": (lambda s: s.update(packed=s["packed"].float()), "uint8"),
    "on meta": (lambda s: s.update(packed=s["packed"].to("meta")), "meta"),
    "no tensor": (lambda s: s.update(packed=[1, 2]), "packed"),
    "scale of another shape": (
        lambda s: s.update(scale=torch.ones(3)),
        r"scale is of shape \(3,\)",
    ),
    "scale of integers": (lambda s: s.update(scale=torch.ones(17).int()), "scale.*int32"),
    "scale no tensor": (lambda s: s.update(scale=1.0), "scale"),
    "bias of another shape": (lambda s: s.update(bias=torch.ones(3)), "size mismatch for 0.bias"),
}


@pytest.mark.parametrize("case", STATES)
@pytest.mark.parametrize("assign", [False, True])
def test_wrong_states_leave_the_layer(case: str, assign: bool) -> None:
    change, words = STATES[case]
    model = nn.Sequential(made())
    x = x_of(model[0])
    before, bias = model(x).clone(), model[0].bias.detach().clone()
    state = dict(made(seed=1).state_dict())
    change(state)
    with pytest.raises(RuntimeError, match=words):
        model.load_state_dict({f"0.{key}": value for key, value in state.items()}, assign=assign)
    if case != "more":  # which nn.Module says when all is loaded
        assert torch.equal(model[0].bias, bias), "half loaded"
        assert torch.equal(model(x), before)


def test_not_strict() -> None:
    layer, other = made(), made(seed=1)
    state = dict(other.state_dict())
    del state["packed"]
    state["more"] = torch.ones(1)
    found = layer.load_state_dict(state, strict=False)
    assert found.missing_keys == ["packed"]
    assert found.unexpected_keys == ["more"]
    assert torch.equal(layer.quantized_weight()[0], made().quantized_weight()[0])


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("how", ["plain", "mmap", "safetensors"])
def test_files(tmp_path: Path, how: str, assign: bool) -> None:
    layer = made(70, 333, 64)
    x, wanted = x_of(layer), layer(x_of(layer))
    if how == "safetensors":
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file(layer.state_dict(), tmp_path / "f")
        state = safetensors.load_file(tmp_path / "f")
    else:
        torch.save(layer.state_dict(), tmp_path / "f")
        state = torch.load(tmp_path / "f", weights_only=True, mmap=how == "mmap")
    twin = twin_of(layer, device="meta")
    twin = twin if assign else twin.to_empty(device="cpu")
    twin.load_state_dict(state, assign=assign)
    assert torch.equal(twin(x), wanted)
    for value in state.values():  # the layer holds nothing of the file's
        if how == "plain":
            value.zero_()
    if not assign:
        assert torch.equal(twin(x), wanted)


def test_loading_is_seen() -> None:
    layer, other = made(), made(seed=1)
    x = x_of(layer)
    with torch.inference_mode():
        layer(x)
    layer.load_state_dict(other.state_dict())
    with torch.inference_mode():
        assert torch.equal(layer(x), other(x))


def test_panels_written_in_place_are_seen_by_numbers_and_banks() -> None:
    with Fabric(CONFIG) as one, Fabric(CONFIG) as two:
        layer, other = made(fabric=one, name="a"), made(seed=1, fabric=two, name="a")
        x = x_of(layer)
        layer(x), other(x)
        layer._panels.copy_(other._panels)
        layer._scales.copy_(other._scales)
        with torch.no_grad():
            layer.bias.copy_(other.bias)
        assert torch.equal(layer(x), other(x))
        base, size = CONFIG.bank_a_base(0), CONFIG.bank_depth * 4
        assert bytes(one.read(base, size)) == bytes(two.read(base, size))
        layer._scales.mul_(2)
        with torch.no_grad():
            layer.bias.zero_()
            other.bias.zero_()
        assert torch.equal(layer(x), other(x) * 2)


@pytest.mark.parametrize("change", ["another tensor", "shared memory"])
def test_panels_that_changed_between_calls_are_seen_by_the_device(change: str) -> None:
    """Other trits written in place, and then a tensor with the same trits at another place: what the
    memory of the last call holds by now is not what the device has."""
    with Fabric(CONFIG) as one, Fabric(CONFIG) as two:
        layer, other = made(fabric=one, name="a"), made(seed=1, fabric=two, name="a")
        x = x_of(layer)
        layer(x), other(x)
        layer._panels.copy_(other._panels)
        layer._scales.copy_(other._scales)
        if change == "another tensor":
            layer._panels = layer._panels.clone()
        else:
            layer.share_memory()
        one.reset_counters(), two.reset_counters()
        layer(x), other(x)
        found, wanted = one.profile(), two.profile()
        for key in ("active_ops", "zero_skips", "compute_cycles"):
            assert found[key] == wanted[key]
        base, size = CONFIG.bank_a_base(0), CONFIG.bank_depth * 4
        assert bytes(one.read(base, size)) == bytes(two.read(base, size))


def test_panels_that_moved_are_the_same_to_the_device() -> None:
    with Fabric(CONFIG) as fabric:
        layer = made(fabric=fabric)
        x = x_of(layer)
        layer(x)
        fabric.reset_counters()
        layer._panels = layer._panels.clone()
        layer(x)
        assert fabric.profile()["residency_misses"] == 0
        assert fabric.profile()["residency_hits"] == 1


def test_memory_that_moved_after_a_call_is_not_read() -> None:
    """share_memory() frees the memory that the last call read: large, so that reading it crashes."""
    with Fabric() as fabric, torch.no_grad():
        layer = TFMBSPackedLinear.from_trits(
            torch.randint(-1, 2, (2048, 4096), dtype=torch.int8), fabric=fabric
        )
        x = torch.randn(1, 4096)
        wanted = layer(x)
        base, size = fabric.config.bank_a_base(0), fabric.config.bank_depth * 4
        layer.share_memory()
        words = bytes(fabric.read(base, size))  # written now, of the last call
        assert torch.equal(layer(x), wanted)
        assert bytes(fabric.read(base, size)) == words


def test_gradients_through_a_layer_made_in_inference_mode() -> None:
    for group_size in (None, 32):
        with torch.inference_mode():
            layer = made(group_size=group_size, activation="ternary")
        plain = copy.deepcopy(layer)
        gradients = []
        for one in (layer, plain):
            x = x_of(layer).requires_grad_()
            one.requires_grad_(False)(x).sum().backward()
            gradients.append(x.grad)
        assert gradients[0] is not None
        assert torch.equal(gradients[0], gradients[1])


# --- life -----------------------------------------------------------------------------------------


def reloaded(layer: TFMBSPackedLinear) -> Any:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": reloaded,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("group_size", [None, 32])
@pytest.mark.parametrize("packing", ["auto", "packed2", "packed_base3"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_copies(how: str, group_size: int | None, packing: str, activation: str) -> None:
    if group_size:
        packing = "auto"
    layer = made(group_size=group_size, packing=packing, activation=activation, ste_clip=2.0)
    twin = COPIES[how](layer)
    x = x_of(layer)
    assert torch.equal(twin(x), layer(x))
    for name in ("activation", "ste_clip", "group_size", "packing", "packed_bytes", "training"):
        assert getattr(twin, name) == getattr(layer, name), name
    twin.load_state_dict(made(group_size=group_size, seed=4).state_dict())
    assert not torch.equal(twin(x), layer(x))


def test_pickles_go_between_kernel_variants(tmp_path: Path) -> None:
    code = """
import sys, torch, pytfmbs
torch.manual_seed(0)
layers = [pytfmbs.TFMBSPackedLinear.from_trits(torch.randint(-1, 2, (70, 333)), scale,
              activation=activation, group_size=group)
          for activation in ("ternary", "int8")
          for group, scale in ((None, torch.rand(70)), (64, torch.rand(70, 6)))]
x = torch.randn(3, 333)
torch.save((layers, x, [layer(x) for layer in layers]), sys.argv[1])
"""
    environment = {**os.environ, "TFMBS_KERNEL": "portable"}
    python(code, tmp_path / "f", env=environment)
    layers, x, wanted = torch.load(tmp_path / "f", weights_only=False)
    for layer, y in zip(layers, wanted, strict=True):
        assert torch.equal(layer(x), y)


def test_moves_keep_scales_and_numbers() -> None:
    for group_size in (None, 32):
        layer = made(group_size=group_size)
        x, scale = x_of(layer), layer.scale.clone()
        wanted = layer(x)
        for dtype in (torch.float64, torch.bfloat16, torch.float16, torch.float32):
            layer.to(dtype)
            assert layer.bias.dtype == dtype
            assert layer.scale.dtype == torch.float32
            assert torch.equal(layer.scale, scale)
            assert layer(x.to(dtype)).dtype == dtype
        layer = made(group_size=group_size)
        layer.double().float()
        assert torch.equal(layer(x), wanted)
        layer.share_memory()
        assert torch.equal(layer(x), wanted)
        layer.to("meta")
        assert all(t.device.type == "meta" for t in (layer._panels, layer._scales, layer.bias))
        layer.to_empty(device="cpu")
        layer.load_state_dict(made(group_size=group_size).state_dict())
        assert torch.equal(layer(x), wanted)


def test_on_meta_shapes_come_out() -> None:
    layer = TFMBSPackedLinear(43, 17, device="meta")
    assert layer(torch.empty(2, 3, 43, device="meta")).shape == (2, 3, 17)
    state = layer.state_dict()
    assert {key: value.device.type for key, value in state.items()} == dict.fromkeys(state, "meta")
    assert copy.deepcopy(layer)._panels.device.type == "meta"


def test_inference_mode_and_autocast() -> None:
    layer = made()
    x = x_of(layer)
    wanted = layer(x).detach()
    with torch.inference_mode():
        assert torch.equal(layer(x), wanted)
        fresh = made()
        assert torch.equal(fresh(x), wanted)
    assert torch.equal(fresh(x), wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        assert torch.equal(y, wanted.bfloat16())
        assert layer(x.double()).dtype == torch.float64


def test_vmap_is_refused_or_right() -> None:
    layer = made()
    x = torch.randn(4, 3, 43)
    try:
        y = torch.func.vmap(layer)(x)
    except RuntimeError as error:
        assert "vmap" in str(error) or "batching" in str(error)  # noqa: PT017
    else:
        assert torch.equal(y, layer(x))


def test_fork() -> None:
    code = """
import os, sys, torch
torch.set_num_threads(1)
import pytfmbs
layer = pytfmbs.TFMBSPackedLinear.from_trits(torch.randint(-1, 2, (17, 43)))
x = torch.randn(3, 43)
wanted = layer(x)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(layer(x), wanted) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    python(code)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    import torch.distributed as dist

    if not dist.is_available():
        pytest.skip("torch was built without torch.distributed")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        layer = made().requires_grad_(True)
        x = x_of(layer)
        wanted = layer(x)
        wrapped = nn.parallel.DistributedDataParallel(layer)
        y = wrapped(x)
        y.sum().backward()
        assert torch.equal(y, wanted)
        assert layer.bias.grad is not None
    finally:
        dist.destroy_process_group()


# --- exported programs ----------------------------------------------------------------------------

_RUN_EXPORTED = """
import sys, torch, pytfmbs
model = torch.export.load(sys.argv[1]).module()
for x, expected in torch.load(sys.argv[2]):
    assert torch.equal(model(x), expected), (model(x), expected)
layers = pytfmbs.Fabric().profile_detailed()["layers"]
print({name: counts["residency_hits"] + counts["residency_misses"]
       for name, counts in layers.items()})
"""


@pytest.mark.parametrize("group_size", [None, 32])
def test_export_with_a_dynamic_batch_runs_in_another_process(
    tmp_path: Path, group_size: int | None
) -> None:
    model = nn.Sequential(
        made(33, 43, group_size, name="packed-a"), nn.ReLU(), made(5, 33, name="packed-b")
    )
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (x_of(model[0]),), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "model.pt2")
    cases = [(x, model(x).detach()) for x in (x_of(model[0], n) for n in (1, 4, 9))]
    torch.save(cases, tmp_path / "cases.pt")
    said = python(_RUN_EXPORTED, tmp_path / "model.pt2", tmp_path / "cases.pt")
    assert said.strip() == str({model[0].name: 3, model[2].name: 3})
