"""Storages that are freed, and that come back, as FSDP does to gather and drop parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytfmbs import ArgumentError, Fabric, TFMBSLinear, pack_pt5, unpack_pt5


def weight() -> torch.Tensor:
    return torch.randn(40, 300)


def quantized_weight(freed: torch.Tensor) -> object:
    layer = TFMBSLinear(300, 40, fabric=Fabric())
    layer.weight = torch.nn.Parameter(freed, requires_grad=False)
    return layer.quantized_weight()


OPS: dict[str, Callable[[torch.Tensor], object]] = {
    "quantized_weight": quantized_weight,
    "quantize_weight": lambda freed: torch.ops.tfmbs.quantize_weight(freed, "sign"),
    "quantize_activation, ternary": lambda freed: torch.ops.tfmbs.quantize_activation(
        freed, "ternary"
    ),
    "quantize_activation, int8": lambda freed: torch.ops.tfmbs.quantize_activation(freed, "int8"),
}


@pytest.mark.parametrize("name", OPS)
def test_every_op_says_that_the_storage_was_freed(name: str) -> None:
    freed = weight()
    freed.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="has no memory: its storage was freed"):
        OPS[name](freed)


@pytest.mark.parametrize("name", OPS)
def test_every_op_says_that_the_storage_was_shrunk(name: str) -> None:
    shrunk = weight()
    shrunk.untyped_storage().resize_(40)
    with pytest.raises(RuntimeError, match=r"needs a storage of 48000 bytes, .* shrunk to 40"):
        OPS[name](shrunk)


STRIDED: dict[str, Callable[[], torch.Tensor]] = {
    "transposed": lambda: torch.randn(300, 40).t(),
    "every second": lambda: torch.randn(40, 600)[:, ::2],
    "from an offset": lambda: torch.randn(50, 301)[10:, 1:],
}


@pytest.mark.parametrize("left", [0, 16])
@pytest.mark.parametrize("strides", STRIDED)
@pytest.mark.parametrize("name", OPS)
def test_torch_copies_no_memory_that_is_gone(name: str, strides: str, left: int) -> None:
    tensor = STRIDED[strides]()
    OPS[name](tensor)
    tensor.untyped_storage().resize_(left)
    with pytest.raises(RuntimeError, match=r"its storage was (freed|shrunk)"):
        OPS[name](tensor)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("left", [0, 16])
@pytest.mark.parametrize("which", ["input", "weight", "bias"])
def test_strided_tensors_of_a_forward(which: str, left: int, training: bool) -> None:
    layer = TFMBSLinear(300, 40, fabric=Fabric()).train(training)
    tensors = {"input": torch.randn(300, 3).t(), "weight": torch.randn(300, 40).t(),
               "bias": torch.randn(80)[::2]}  # fmt: skip
    layer.weight = torch.nn.Parameter(tensors["weight"])
    layer.bias = torch.nn.Parameter(tensors["bias"])
    layer(tensors["input"])
    tensors[which].untyped_storage().resize_(left)
    with pytest.raises(RuntimeError, match="storage"):
        layer(tensors["input"])


@pytest.mark.parametrize("left", [0, 16])
def test_packing_reads_no_memory_that_is_gone(left: int) -> None:
    trits = torch.zeros(40, 60, dtype=torch.int8)
    for tensor in (trits, torch.zeros(60, 40, dtype=torch.int8).t()):
        tensor.untyped_storage().resize_(left)
        with pytest.raises(ArgumentError, match="its storage was freed or shrunk"):
            pack_pt5(tensor)
    packed = torch.zeros(40, 60, dtype=torch.uint8)[:, ::3]
    packed.untyped_storage().resize_(left)
    with pytest.raises(ArgumentError, match="its storage was freed or shrunk"):
        unpack_pt5(packed)


@pytest.mark.parametrize("which", ["input", "weight", "bias"])
def test_shrunk_tensors_of_a_forward(which: str) -> None:
    layer, x = TFMBSLinear(300, 40, fabric=Fabric()).eval(), torch.ones(3, 300)
    shrunk = x if which == "input" else getattr(layer, which)
    shrunk.untyped_storage().resize_(40)
    with torch.no_grad(), pytest.raises(RuntimeError, match="storage"):
        layer(x)


@pytest.mark.parametrize("which", ["input", "weight", "bias"])
@pytest.mark.parametrize("features", [(60, 10), (300, 40), (1024, 2300)])
def test_what_shrinks_after_it_was_packed(which: str, features: tuple[int, int]) -> None:
    layer, x = TFMBSLinear(*features, fabric=Fabric()).eval(), torch.ones(3, features[0])
    with torch.no_grad():
        for _ in range(3):
            layer(x)
        shrunk = x if which == "input" else getattr(layer, which)
        shrunk.untyped_storage().resize_(20)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="storage"):
                layer(x)


def shrinks_to(address: int, tensor: torch.Tensor) -> bool:
    """Shrinks the tensor's storage, which moves at every size, until it lies at `address`."""
    storage, size = tensor.untyped_storage(), tensor.nbytes
    for cut in range(4, min(size // 2, 160), 4):
        storage.resize_(size - cut)
        if tensor.data_ptr() == address:
            return True
    return False


# Weights of 6400 bytes are compared by content, larger ones by version. Every tensor has some kB: the
# hole that a smaller one leaves is too narrow for malloc's aligned blocks, unless a neighbour is free.
@pytest.mark.parametrize("which", ["input", "weight", "bias"])
@pytest.mark.parametrize("features", [(3, 512), (300, 512), (512, 512)])
def test_what_shrinks_and_lies_where_it_lay(which: str, features: tuple[int, int]) -> None:
    came_back = 0
    with torch.no_grad():
        for _ in range(60):
            layer, x = TFMBSLinear(*features, fabric=Fabric()).eval(), torch.ones(512, features[0])
            for _ in range(3):
                layer(x)
            shrunk = x if which == "input" else getattr(layer, which)
            if shrinks_to(shrunk.data_ptr(), shrunk):
                came_back += 1
                for _ in range(2):
                    with pytest.raises(RuntimeError, match="storage"):
                        layer(x)
    assert came_back, "no address came back: this run tested nothing"


def test_an_input_that_shrinks_to_where_another_lay() -> None:
    layer = TFMBSLinear(512, 128, fabric=Fabric()).eval()
    came_back = 0
    with torch.no_grad():
        for _ in range(60):
            x, other = torch.ones(20, 512), torch.ones(20, 512)
            for _ in range(3):
                layer(x)
            address = x.data_ptr()
            del x
            if shrinks_to(address, other):
                came_back += 1
                with pytest.raises(RuntimeError, match="storage"):
                    layer(other)
    assert came_back, "no address came back: this run tested nothing"


def test_a_weight_that_shrinks_and_grows_again() -> None:
    """The layer holds on to no storage that is too small, and none that lies elsewhere."""
    for features in ((40, 40), (300, 40)):
        layer, x = TFMBSLinear(*features, fabric=Fabric()).eval(), torch.ones(3, features[0])
        with torch.no_grad():
            expected = layer(x)
            size, values = layer.weight.nbytes, layer.weight.clone()
            for _ in range(20):
                layer.weight.untyped_storage().resize_(size - 4)
                with pytest.raises(RuntimeError, match="storage"):
                    layer(x)
                layer.weight.untyped_storage().resize_(size)
                layer.weight.copy_(values)
                for _ in range(2):
                    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("rows", [4, 5])
def test_views_of_an_input_are_measured_from_their_place(rows: int) -> None:
    layer = TFMBSLinear(300, 40, fabric=Fabric()).eval()
    base = torch.ones(6, 300)
    part = base[6 - rows :]
    with torch.no_grad():
        for _ in range(3):
            layer(part)
        base.untyped_storage().resize_(base.nbytes - 4)
        assert layer(base[:5]).shape == (5, 40)
        with pytest.raises(RuntimeError, match="storage"):
            layer(part)


@pytest.mark.parametrize("which", ["weight", "trits", "scale"])
def test_freed_trits_and_scales(which: str) -> None:
    given = {"weight": weight(), "trits": weight().sign().to(torch.int8), "scale": torch.ones(1)}
    given[which].untyped_storage().resize_(0)
    layer = TFMBSLinear(300, 40, fabric=Fabric())
    with pytest.raises(RuntimeError, match=f"{which} has no memory: its storage was freed"):
        torch.ops.tfmbs.linear_trits(
            torch.ones(2, 300), *given.values(), None, layer.fabric_identity, "ternary", None
        )


def test_a_storage_that_came_back_with_other_values() -> None:
    """The address and the version may be those of before: torch's FSDP2 gathers parameters with
    their version preserved."""
    # Above 32 MiB malloc always maps memory anew, and the hole just left is the first that fits. A
    # smaller storage comes back only where the heap around it happens to be full.
    size = 3000
    layer = TFMBSLinear(size, size, False, fabric=Fabric()).eval()
    x = torch.eye(size)[:4]
    same = 0
    with torch.no_grad():
        for _ in range(8):
            layer(x)
            before = layer.weight.data_ptr(), layer.weight._version
            storage = layer.weight.untyped_storage()
            bytes_ = storage.nbytes()
            storage.resize_(0)
            storage.resize_(bytes_)
            with torch.autograd._unsafe_preserve_version_counter(layer.weight):
                layer.weight.uniform_(-1, 1)
            same += (layer.weight.data_ptr(), layer.weight._version) == before
            assert torch.equal(layer(x), layer.weight.sign()[:, :4].T)
    assert same > 3, "no address came back: this run tested nothing"
