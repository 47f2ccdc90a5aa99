"""A weight that changes is seen at the next forward; one that does not is not packed again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import generator, tensor
from pytfmbs import Fabric, FabricConfig, TFMBSLinear
from reference import linear, same_bits
from torch import nn

# Of more bytes than are compared by content in eval mode: versions and addresses count there. What
# smaller layers do is in test_direct_forward.py.
IN, OUT = 70, 40
X = tensor(generator(1), (3, IN), torch.float32)


class HalfQuantizer:
    """A user's quantizer, sign with scale 1/2: its changes are seen by content."""

    name = "half"

    def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return weight.sign().to(torch.int8), weight.new_full((1,), 0.5, dtype=torch.float32)


def make(quantizer: str = "sign", **options: object) -> TFMBSLinear:
    torch.manual_seed(0)
    chosen = HalfQuantizer() if quantizer == "half" else quantizer
    return TFMBSLinear(IN, OUT, weight_quantizer=chosen, **options)  # type: ignore[arg-type]


def expected(layer: TFMBSLinear) -> torch.Tensor:
    x = X.to(layer.weight.dtype)
    if layer.weight_quantizer.name == "half":
        assert layer.bias is not None
        sums = x.sign() @ layer.weight.detach().sign().t()
        return sums * 0.5 + layer.bias.detach()
    return linear(x, layer.weight, layer.bias, layer.weight_quantizer.name)


def assert_current(layer: TFMBSLinear) -> None:
    with torch.no_grad():
        assert same_bits(layer(X.to(layer.weight.dtype)), expected(layer))


def new_weight(seed: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return tensor(generator(seed), (OUT, IN), dtype) * 0.1


def optimizer_step(layer: TFMBSLinear) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    layer(X).square().sum().backward()
    optimizer.step()


def fused_step(layer: TFMBSLinear) -> None:
    layer(X).sum().backward()
    torch.optim.Adam(layer.parameters(), lr=1.0, fused=True).step()


def in_place(layer: TFMBSLinear) -> None:
    with torch.no_grad():
        layer.weight.neg_()


def one_element(layer: TFMBSLinear) -> None:
    with torch.no_grad():
        last = layer.weight[OUT - 1, IN - 1]
        last.copy_(-torch.sign(last))  # large enough for every quantizer to keep


def through_a_view(layer: TFMBSLinear) -> None:
    view = layer.weight.detach()[:, 1:2]
    view.neg_()


def load_state(layer: TFMBSLinear) -> None:
    layer.load_state_dict({"weight": new_weight(), "bias": torch.zeros(OUT)})


def load_state_assign(layer: TFMBSLinear) -> None:
    layer.load_state_dict({"weight": new_weight(), "bias": torch.zeros(OUT)}, assign=True)


def to_double_and_change(layer: TFMBSLinear) -> None:
    layer.to(torch.float64)
    assert_current(layer)
    with torch.no_grad():
        layer.weight.neg_()


def assign_data(layer: TFMBSLinear) -> None:
    layer.weight.data = new_weight()


def assign_data_of_same_version(layer: TFMBSLinear) -> None:
    layer.weight.data = layer.weight.detach().clone().neg_()


def assign_transposed_data(layer: TFMBSLinear) -> None:
    layer.weight.data = new_weight().reshape(IN, OUT).t()


def new_parameter(layer: TFMBSLinear) -> None:
    layer.weight = nn.Parameter(new_weight())


def initialize(layer: TFMBSLinear) -> None:
    nn.init.xavier_uniform_(layer.weight)


def from_vector(layer: TFMBSLinear) -> None:
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(-vector, layer.parameters())


def set_storage(layer: TFMBSLinear) -> None:
    with torch.no_grad():
        layer.weight.set_(new_weight())


def reset(layer: TFMBSLinear) -> None:
    layer.reset_parameters()


def bias_alone(layer: TFMBSLinear) -> None:
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.add_(1.0)


def bias_data(layer: TFMBSLinear) -> None:
    assert layer.bias is not None
    layer.bias.data += 1.0


CHANGES: list[Callable[[TFMBSLinear], None]] = [
    optimizer_step, fused_step, in_place, one_element, through_a_view, load_state,
    load_state_assign, to_double_and_change, assign_data, assign_data_of_same_version,
    assign_transposed_data, new_parameter, initialize, from_vector, set_storage, reset, bias_alone,
    bias_data,
]  # fmt: skip


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("quantizer", ["sign", "absmean", "twn", "half"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_change_is_seen(
    change: Callable[[TFMBSLinear], None], quantizer: str, training: bool
) -> None:
    layer = make(quantizer).train(training)
    assert_current(layer)
    before = layer(X.to(layer.weight.dtype)).detach().float()
    change(layer)
    assert_current(layer)
    after = layer(X.to(layer.weight.dtype)).detach().float()
    assert not torch.equal(before, after), "nothing changed: this would pass on stale weights"
    change(layer)
    assert_current(layer)


def data_in_place(layer: TFMBSLinear) -> None:
    layer.weight.data.neg_()


def data_element(layer: TFMBSLinear) -> None:
    layer.weight.data[3, 5] *= -1


def numpy_memory(layer: TFMBSLinear) -> None:
    layer.weight.detach().numpy()[:] *= -1


def data_slice(layer: TFMBSLinear) -> None:
    layer.weight.data[:, 10:20] = 0.0


HIDDEN = [data_in_place, data_element, numpy_memory, data_slice]


@pytest.mark.parametrize("write", HIDDEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("quantizer", ["sign", "absmean", "twn", "half"])
def test_writes_that_no_version_shows_while_training(
    write: Callable[[TFMBSLinear], None], quantizer: str
) -> None:
    layer = make(quantizer).train()
    assert_current(layer)
    version = layer.weight._version
    write(layer)
    assert layer.weight._version == version  # else this tests nothing new
    assert_current(layer)


@pytest.mark.parametrize("write", HIDDEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("quantizer", ["sign", "absmean", "twn", "half"])
def test_train_write_eval(write: Callable[[TFMBSLinear], None], quantizer: str) -> None:
    layer = make(quantizer).train()
    assert_current(layer)
    write(layer)
    layer.eval()
    assert_current(layer)
    assert_current(layer)
    layer.train()
    assert_current(layer)
    write(layer)
    assert_current(layer.eval())


def test_eval_write_train() -> None:
    layer = make().eval()
    assert_current(layer)
    layer.weight.data.neg_()
    assert_current(layer.train())


@pytest.mark.parametrize("write", HIDDEN, ids=lambda f: f.__name__)
def test_refresh_is_for_the_rest(write: Callable[[TFMBSLinear], None]) -> None:
    layer = make().eval()
    assert_current(layer)
    write(layer)
    layer.refresh()
    assert_current(layer)


def test_inference_tensors_are_constants() -> None:
    """They have no version: a write into one is seen after refresh()."""
    with torch.inference_mode():
        layer = make().eval()
        assert layer.weight.is_inference()
        assert_current(layer)
        assert_current(layer)
        layer.weight.neg_()
        layer.refresh()
        assert_current(layer)
        layer.weight = nn.Parameter(new_weight(), requires_grad=False)
        assert_current(layer)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_freed_address_does_not_pass_for_the_old_one(training: bool) -> None:
    """The allocator gives a freed block out again, and `p.data =` leaves the version as it was."""
    layer = make().train(training)
    weights = [new_weight(i) for i in range(100)]
    reused = 0
    seen: set[int] = set()
    for weight in weights:
        # The old one is freed first, so that its block is the next to be given out.
        layer.weight.data = torch.empty(0)
        layer.weight.data = weight.clone()
        reused += layer.weight.data_ptr() in seen
        seen.add(layer.weight.data_ptr())
        assert_current(layer)
    assert reused > 20, "no address came back: this run tested nothing"


def test_storage_freed_beside_the_layer() -> None:
    """FSDP frees a parameter's storage while the layer's own reference to it is alive."""
    # Above 32 MiB malloc always maps memory anew, and the hole just left is the first that fits. Where
    # a smaller block comes back hangs on the whole heap.
    size = 3000
    x = torch.eye(size)[:4]
    layers = [TFMBSLinear(size, size, False).eval() for _ in range(2)]
    signs = torch.ones(size, size)
    reused = 0
    for _ in range(6):
        for layer in layers:
            layer.weight = nn.Parameter(signs.clone(), requires_grad=False)
        with torch.no_grad():
            assert all(torch.equal(layer(x), signs.T[:4]) for layer in layers)
        before = {layer.weight.data_ptr(): layer for layer in layers}
        assert all(layer.weight._version == 0 for layer in layers)
        for layer in layers:
            layer.weight.untyped_storage().resize_(0)
        signs = -signs
        for weight in [nn.Parameter(signs.clone(), requires_grad=False) for _ in layers]:
            if (layer := before.get(weight.data_ptr())) is not None:
                reused += 1
                layer.weight = weight
                with torch.no_grad():
                    assert torch.equal(layer(x), signs.T[:4])
    assert reused > 3, "no address came back: this run tested nothing"


def test_two_buffers_in_turn() -> None:
    """Two live tensors of equal version take turns, as in double buffering."""
    layer = make().eval()
    buffers = [new_weight(1), new_weight(2)]
    for i in range(10):
        layer.weight.data = buffers[i % 2]
        assert_current(layer)


def test_every_element_counts() -> None:
    """The content check of training mode sees a change of any one element."""
    layer = TFMBSLinear(67, 3, False).train()
    x = torch.eye(67)
    for i in range(3):
        for k in range(67):
            layer.weight.data[i, k] *= -1
            with torch.no_grad():
                assert layer(x)[k, i] == layer.weight[i, k].sign(), (i, k)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_to_another_dtype_and_back(dtype: torch.dtype) -> None:
    for quantizer in ("sign", "absmean", "twn"):
        layer = make(quantizer).eval()
        for step in (dtype, torch.float32, dtype):
            layer.to(step)
            assert_current(layer)


def test_same_bits_of_another_type() -> None:
    """bfloat16 and float16 of equal bits at one address are other numbers."""
    layer = make("absmean", dtype=torch.bfloat16).eval()
    assert_current(layer)
    layer.weight.data = layer.weight.data.view(torch.float16)
    assert layer.bias is not None
    layer.bias.data = layer.bias.data.half()
    assert_current(layer)


def test_copies_do_not_share() -> None:
    layer = make().eval()
    assert_current(layer)
    twin = copy.deepcopy(layer)
    in_place(twin)
    assert_current(layer)
    assert_current(twin)


def test_tied_weights() -> None:
    """One parameter in two layers: both see its change."""
    a, b = make().eval(), make().eval()
    b.weight = a.weight
    assert_current(a)
    assert_current(b)
    in_place(a)
    assert_current(b)
    assert_current(a)


def test_functional_call() -> None:
    layer = make().eval()
    assert_current(layer)
    bias = torch.zeros(OUT)
    for seed in range(5):
        weight = new_weight(seed)
        with torch.no_grad():
            y = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (X,))
        assert same_bits(y, linear(X, weight, bias))
    assert_current(layer)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("quantizer", ["sign", "half"])
def test_what_did_not_change_is_not_loaded_again(quantizer: str, training: bool) -> None:
    with Fabric(FabricConfig()) as fabric:
        layer = make(quantizer, fabric=fabric).train(training)
        for _ in range(5):
            assert_current(layer)
        counted = fabric.profile()
        assert (counted["residency_misses"], counted["residency_hits"]) == (1, 4)
        with torch.no_grad():
            layer.weight.mul_(2.0)  # new numbers, the same trits: Bank A is current
        assert_current(layer)
        assert fabric.profile()["residency_misses"] == 1
        with torch.no_grad():
            layer.weight[0, 0].neg_()
        assert_current(layer)
        assert fabric.profile()["residency_misses"] == 2
        layer.train(not training)
        assert_current(layer)
        assert fabric.profile()["residency_misses"] == 2


def test_bank_a_follows_the_weights() -> None:
    """What read() finds is the new weights', with both engines."""
    for engine in ("closed_form", "stepped"):
        with Fabric(FabricConfig(), engine=engine) as fabric:
            layer = make(fabric=fabric).eval()
            base = fabric.config.bank_a_base(0)
            assert_current(layer)
            before = fabric.read(base, 4 * IN)
            in_place(layer)
            assert fabric.read(base, 4 * IN) == before  # nobody asked for the new ones yet
            assert_current(layer)
            after = fabric.read(base, 4 * IN)
            swap = str.maketrans("12", "21")
            for old, new in zip(before, after, strict=True):  # digits 1 and 2 have changed places
                assert new == int(ternary_digits(old).translate(swap), 3)


def ternary_digits(byte: int) -> str:
    return "".join(str(byte // 3**i % 3) for i in range(4, -1, -1))


@pytest.mark.parametrize("kind", [list, torch.tensor, tuple])
def test_an_attribute_that_takes_the_place_of_a_freed_one(kind: Callable[[Any], Any]) -> None:
    """It may get the freed one's address too."""

    class Threshold:
        name = "threshold"

        def __init__(self) -> None:
            self.limit = kind([0.5])

        def __call__(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            kept = weight.abs() > float(self.limit[0])
            return torch.sign(weight * kept).to(torch.int8), torch.ones(1)

    quantizer = Threshold()
    layer = TFMBSLinear(IN, OUT, weight_quantizer=quantizer).eval()
    x = torch.randn(2, IN)
    with torch.no_grad():
        layer.weight.normal_()
        for step in range(8):
            layer(x)
            del quantizer.limit
            quantizer.limit = kind([0.1 + 0.2 * step])
            found = layer(x)
            layer.refresh()
            assert torch.equal(found, layer(x))
