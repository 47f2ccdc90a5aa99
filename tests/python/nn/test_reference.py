"""TFMBSLinear equals an independent NumPy reference, bit by bit (reference.py)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import pytfmbs
import reference
import torch
from cases import ACTIVATIONS, DTYPES, QUANTIZERS, campaign, generator, tensor
from hypothesis import example, given, note
from hypothesis import strategies as st
from pytfmbs import TFMBSLinear
from torch import nn

# Around words of trits (15), bit-plane blocks (512), vector registers and bank depths.
EDGES = (
    1, 2, 3, 4, 5, 7, 8, 9, 14, 15, 16, 17, 29, 30, 31, 32, 33, 60, 63, 64, 65, 127, 128, 129, 255,
    256, 257, 511, 512, 513, 527, 575, 576, 577, 784, 1019, 1020, 1021, 1023, 1024, 1025, 1535,
    1536, 1537, 2039, 2040, 2048, 2049, 3000, 4095, 4096, 4097, 4999, 5000,
)  # fmt: skip
FEATURES = st.one_of(st.sampled_from(EDGES), st.integers(1, 5000))
LEADING = st.sampled_from(
    [(), (0,), (1,), (7,), (64,), (3, 0), (2, 3), (1, 1, 7), (4, 2, 8), (2, 0, 5), (65,), (129,)]
)
LAYOUTS = ("contiguous", "strided", "transposed", "offset")
MAX_WEIGHTS = 1_000_000
MAX_PRODUCTS = 8_000_000


class BandQuantizer:
    """A user's own quantizer: a fixed threshold, and a scale for each output that has no short
    binary form."""

    name = "band"

    def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        trits = torch.where(weight.abs() > 0.02, weight.sign(), 0.0).nan_to_num().to(torch.int8)
        wide = weight.dtype == torch.float64
        scale = torch.arange(1, len(weight) + 1, dtype=torch.float64) / 7.0
        return trits, scale if wide else scale.float()


def expected(
    layer: TFMBSLinear, input: torch.Tensor, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    quantizer: str | reference.QuantizedWeight = layer.weight_quantizer.name
    if quantizer == "band":
        trits, scale = BandQuantizer()(layer.weight.detach())
        nan = layer.weight.detach().isnan().any(1).numpy()
        quantizer = reference.QuantizedWeight(trits.numpy(), scale.numpy(), nan)
    return reference.linear(input, layer.weight, layer.bias, quantizer, layer.activation, out_dtype)


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers, laid out in memory in another way."""
    if layout == "strided":  # every second element of every dimension
        wide = values.new_zeros([2 * n for n in values.shape])
        return wide[tuple(slice(None, None, 2) for _ in values.shape)].copy_(values)
    if layout == "transposed":
        return values.mT.contiguous().mT if values.dim() > 1 else values
    if layout == "offset":  # contiguous, but at an address that no allocator gives
        flat = values.new_zeros(values.numel() + 3)[3:]
        return flat.copy_(values.reshape(-1)).view(values.shape)
    assert layout == "contiguous", layout
    return values.contiguous()


def salt(rng: np.random.Generator, values: torch.Tensor, kinds: str) -> None:
    """Puts values that are easy to get wrong into a few places."""
    if values.numel() == 0 or kinds == "plain":
        return
    info = torch.finfo(values.dtype)
    special = [-0.0, 0.0, info.tiny / 2, -info.tiny / 2, info.smallest_normal, 1e-5, 0.5, -0.5]
    if kinds == "all":
        special += [float("nan"), float("inf"), -float("inf"), info.max, -info.max]
    flat = values.view(-1)
    for value in special:
        # About one row in four gets each, so that rows with and without NaN meet.
        count = max(1, values.numel() // max(1, values.shape[-1]) // 4)
        places = torch.from_numpy(rng.integers(0, flat.numel(), count))
        flat[places] = value


@dataclass(frozen=True)
class Case:
    """A layer, its input, and how their numbers look and lie."""

    inputs: int = 1
    outputs: int = 1
    leading: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    quantizer: str = "sign"
    activation: str = "ternary"
    bias: bool = True
    layout: str = "contiguous"
    weight_layout: str = "contiguous"
    special: str = "plain"
    scale: float = 1.0
    training: bool = False
    seed: int = 0


@st.composite
def cases(draw: st.DrawFn) -> Case:
    inputs, outputs, leading = draw(FEATURES), draw(FEATURES), draw(LEADING)
    # Large layers keep one large side: the time goes into the reference.
    samples = max(1, int(np.prod(leading)))
    if inputs * outputs > MAX_WEIGHTS or samples * inputs * outputs > MAX_PRODUCTS:
        if draw(st.booleans()):
            outputs = outputs % 97 + 1
        else:
            inputs = inputs % 97 + 1
    return Case(
        inputs,
        outputs,
        leading,
        dtype=draw(st.sampled_from(DTYPES)),
        quantizer=draw(st.sampled_from([*QUANTIZERS, "band"])),
        activation=draw(st.sampled_from(ACTIVATIONS)),
        bias=draw(st.booleans()),
        layout=draw(st.sampled_from(LAYOUTS)),
        weight_layout=draw(st.sampled_from(LAYOUTS)),
        special=draw(st.sampled_from(["plain", "finite", "all"])),
        scale=draw(st.sampled_from([1.0, 1e-4, 30.0])),
        training=draw(st.booleans()),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


@campaign(500)
@given(c=cases())
@example(c=Case(dtype=torch.float16, quantizer="twn", activation="int8", special="all"))
@example(c=Case(5000, 5000, (1,)))
def test_equals_reference(c: Case) -> None:
    rng = generator(c.seed)
    quantizer = BandQuantizer() if c.quantizer == "band" else c.quantizer
    layer = TFMBSLinear(
        c.inputs, c.outputs, c.bias, device="meta", dtype=c.dtype, weight_quantizer=quantizer,
        activation=c.activation,
    ).train(c.training)  # fmt: skip
    weight = tensor(rng, (c.outputs, c.inputs), c.dtype) * (0.05 * c.scale)
    x = tensor(rng, (*c.leading, c.inputs), c.dtype) * c.scale
    salt(rng, weight, c.special)
    salt(rng, x, c.special)
    layer.weight = nn.Parameter(laid_out(weight, c.weight_layout))
    if c.bias:
        bias = tensor(rng, (c.outputs,), c.dtype)
        salt(rng, bias, c.special)
        layer.bias = nn.Parameter(bias)
    with torch.no_grad():
        got, want = layer(laid_out(x, c.layout)), expected(layer, x)
    note(f"elements that differ: {int((got != want).sum()) if got.shape == want.shape else 'all'}")
    assert reference.same_bits(got, want)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_every_depth(quantizer: str, activation: str) -> None:
    """in_features 1...5,000, all of them over the six parameter sets; each set sees every tail of
    a block."""
    first = QUANTIZERS.index(quantizer) * 2 + ACTIVATIONS.index(activation)
    rng = generator(first)
    depths = sorted({*range(1, 600), *range(600 + first, 5001, 6)})
    weights = tensor(rng, (3, 5000), torch.float32)
    inputs = tensor(rng, (2, 5000), torch.float32)
    for depth in depths:
        weight, x = weights[:, :depth].contiguous(), inputs[:, :depth]
        layer = TFMBSLinear(
            depth, 3, False, device="meta", weight_quantizer=quantizer, activation=activation
        )
        layer.weight = nn.Parameter(weight)
        with torch.no_grad():
            got = layer(x)
        want = reference.linear(x, weight, None, quantizer, activation)
        assert reference.same_bits(got, want), f"in_features={depth}"


def test_every_width() -> None:
    """out_features 1...5,000."""
    rng = generator(10)
    weights, biases = tensor(rng, (5000, 20), torch.float32), tensor(rng, (5000,), torch.float32)
    x = tensor(rng, (2, 20), torch.float32)
    # Of twn, for its outputs do not depend on one another: one reference has all widths.
    want = reference.linear(x, weights, biases, "twn")
    for width in range(1, 5001):
        layer = TFMBSLinear(20, width, device="meta", weight_quantizer="twn")
        layer.weight, layer.bias = nn.Parameter(weights[:width]), nn.Parameter(biases[:width])
        with torch.no_grad():
            assert reference.same_bits(layer(x), want[:, :width]), f"out_features={width}"


@pytest.fixture(params=pytfmbs.isa_variants())
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    before = pytfmbs.active_kernels()
    pytfmbs.select_kernels(request.param)
    yield request.param
    pytfmbs.select_kernels(before)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_kernel_set(kernels: str, dtype: torch.dtype, activation: str) -> None:
    rng = generator(20)
    for inputs, outputs, samples in [(784, 60, 64), (1, 1, 1), (513, 33, 7), (1500, 257, 65)]:
        for quantizer in QUANTIZERS:
            layer = TFMBSLinear(
                inputs, outputs, dtype=dtype, weight_quantizer=quantizer, activation=activation
            )
            x = tensor(rng, (samples, inputs), dtype)
            salt(rng, x, "all")
            with torch.no_grad():
                salt(rng, layer.weight, "finite")
                assert reference.same_bits(layer(x), expected(layer, x)), kernels


def test_large_sums_round_once() -> None:
    """127·2^19 needs 26 bits: the conversion to fp32 rounds, and must do so to nearest even."""
    depth = 2**19
    for dtype in (torch.float32, torch.float64):
        layer = TFMBSLinear(depth, 4, False, dtype=dtype, activation="int8")
        with torch.no_grad():
            layer.weight.fill_(1.0)
            layer.weight[1].neg_()
            layer.weight[2, ::2] = -1.0
        x = torch.linspace(0.985, 1, depth, dtype=dtype).repeat(3, 1)
        x[1, :5], x[2, -5:] = 0.3, -0.7
        want = expected(layer, x)
        assert want.double().abs().max() > 2**24 / 127
        assert reference.same_bits(layer(x).detach(), want)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_is_kept(activation: str) -> None:
    """A NaN activation makes its row NaN, a NaN weight its column, and nothing else does."""
    layer = TFMBSLinear(40, 6, activation=activation)
    x = torch.randn(5, 40, generator=torch.Generator().manual_seed(1))
    x[3, 39] = float("nan")
    with torch.no_grad():
        layer.weight[4, 0] = float("nan")
        y = layer(x)
    is_nan = torch.zeros(5, 6, dtype=torch.bool)
    is_nan[3, :] = is_nan[:, 4] = True
    assert torch.equal(y.isnan(), is_nan)


def test_infinity_is_a_trit_and_no_int8() -> None:
    x = torch.tensor([[float("inf"), -1.0, 0.0], [-float("inf"), 2.0, 3.0], [1.0, 1.0, 1.0]])
    ternary = TFMBSLinear(3, 1, False)
    int8 = TFMBSLinear(3, 1, False, activation="int8")
    with torch.no_grad():
        ternary.weight.fill_(1.0)
        int8.weight.fill_(1.0)
        assert ternary(x).flatten().tolist() == [0.0, 1.0, 3.0]
        assert int8(x).isnan().flatten().tolist() == [True, True, False]


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "input_dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64]
)
@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("quantizer", ["absmean", "band"])
def test_autocast(
    cast: torch.dtype, input_dtype: torch.dtype, weight_dtype: torch.dtype, quantizer: str
) -> None:
    """The output has nn.Linear's dtype, or the error is nn.Linear's; the values are rounded once,
    to that dtype."""
    rng = generator(30)
    plain = nn.Linear(50, 9, dtype=weight_dtype)
    layer = TFMBSLinear(
        50, 9, dtype=weight_dtype, activation="int8",
        weight_quantizer=BandQuantizer() if quantizer == "band" else quantizer,
    )  # fmt: skip
    x = tensor(rng, (4, 50), input_dtype)

    def outcome(call: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor | tuple[type, str]:
        with torch.no_grad(), torch.autocast("cpu", dtype=cast):
            try:
                return call(x)
            except RuntimeError as error:
                return type(error), str(error)

    want, got = outcome(plain), outcome(layer)
    if isinstance(want, tuple):
        assert got == want
        return
    assert isinstance(got, torch.Tensor)
    assert got.dtype == want.dtype
    assert reference.same_bits(got, expected(layer, x, out_dtype=want.dtype))


@pytest.mark.parametrize("leading", [(), (0,), (1,), (7,), (64,), (2, 3), (2, 1, 4), (3, 0, 2)])
def test_shapes_are_linears(leading: tuple[int, ...]) -> None:
    x = torch.randn(*leading, 30)
    layer = TFMBSLinear(30, 11)
    assert layer(x).shape == nn.Linear(30, 11)(x).shape


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_empty_layers(sizes: tuple[int, int], activation: str) -> None:
    """As nn.Linear: no inputs give the bias, no outputs an empty tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nn.Linear warns that there is nothing to initialize
        layer = TFMBSLinear(*sizes, activation=activation)
        plain = nn.Linear(*sizes)
    x = torch.randn(3, sizes[0])
    with torch.no_grad():
        if layer.bias is not None and sizes[1]:
            layer.bias.uniform_()
            plain.bias.copy_(layer.bias)
        assert torch.equal(layer(x), plain(x))
    assert layer.fabric.profile_detailed()["layers"][layer.name]["cycles"] == 0


def test_expanded_input() -> None:
    """A batch whose rows are one row in memory (stride 0)."""
    layer = TFMBSLinear(100, 10)
    row = torch.randn(100)
    y = layer(row.expand(8, 100))
    assert torch.equal(y, layer(row).expand(8, 10))
    assert reference.same_bits(y.detach(), expected(layer, row.expand(8, 100)))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    rng = generator(40)
    x = tensor(rng, (70, 1200), torch.float32)
    try:
        torch.set_num_threads(threads)
        for quantizer in QUANTIZERS:
            for activation in ACTIVATIONS:
                layer = TFMBSLinear(1200, 400, weight_quantizer=quantizer, activation=activation)
                with torch.no_grad():
                    assert reference.same_bits(layer(x), expected(layer, x))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_quantizers_alone(quantizer: str, dtype: torch.dtype) -> None:
    """What layer.quantized_weight() shows is what the product uses, and what the reference
    computes."""
    layer = TFMBSLinear(333, 44, dtype=dtype, weight_quantizer=quantizer)
    with torch.no_grad():
        salt(generator(50), layer.weight, "finite")
    trits, scale = layer.quantized_weight()
    want = reference.quantize_weight(layer.weight, quantizer)
    assert trits.dtype == torch.int8
    np.testing.assert_array_equal(trits.numpy(), want.trits)
    assert reference.same_bits(scale, torch.from_numpy(want.scale))
    zeros = int((want.trits == 0).sum())
    assert layer.telemetry_hint["sparsity"] == round(zeros / want.trits.size, 4)


def test_reference_on_paper() -> None:
    """The reference itself, on numbers worked out by hand."""
    weight = torch.tensor([[0.4, -0.9, 0.1, 0.0], [1.0, 1.0, -0.2, -0.2]])
    mean = 3.8 / 8
    absmean = reference.quantize_weight(weight, "absmean")
    assert absmean.trits.tolist() == [[1, -1, 0, 0], [1, 1, 0, 0]]  # |w| > 0.2375
    assert absmean.scale[0] == pytest.approx(mean)
    twn = reference.quantize_weight(weight, "twn")
    assert twn.trits.tolist() == [[1, -1, 0, 0], [1, 1, 0, 0]]  # |w| > 0.245, and > 0.42
    assert twn.scale.tolist() == pytest.approx([0.65, 1.0])
    x = torch.tensor([[2.0, -4.0, 0.02, 1.0]])
    y = reference.linear(x, weight, torch.tensor([10.0, 20.0]), "twn", "int8")
    # 4 -> 127; 2 -> 63.5 -> 64 (to even); so (64 + 127)·4/127·0.65 + 10, and (64 - 127)·4/127 + 20.
    assert y.flatten().tolist() == pytest.approx([191 * 4 / 127 * 0.65 + 10, -63 * 4 / 127 + 20])
    planes = reference.planes_of(np.array([[127, -127, 5]], np.int8), 6)
    digits = (3 ** np.arange(5, -1, -1))[:, None, None]
    assert (planes * digits).sum(axis=0).tolist() == [[127, -127, 5]]
