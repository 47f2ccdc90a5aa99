"""Tensor parallel against one process."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs.nn.bitnet import BitNetLinear, RMSNorm
from ranks import check
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

SIZES = (2, 3, 4)
RUNS = 60  # of each kind of layer and size of mesh
_meshes: dict[int, DeviceMesh] = {}


def mesh_of(size: int) -> DeviceMesh:
    """The first processes. All processes must call it."""
    if size not in _meshes:
        _meshes[size] = DeviceMesh("cpu", list(range(size)))
    return _meshes[size]


class MedianQuantizer:
    """One that needs the whole weight."""

    name = "median"

    def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        size = weight.detach().abs().double()
        middle = size.median() if size.numel() else size.sum()
        return (weight.sign() * (size > middle)).to(torch.int8), size.sum(1) + 0.5


def draw_quantizer(pick: random.Random) -> Any:
    return pick.choice(["sign", "absmean", "twn", "fixed", "each", MedianQuantizer()])


def draw_layer(
    pick: random.Random,
    inputs: int,
    outputs: int,
    dtype: torch.dtype,
    kinds: Any = (pytfmbs.TFMBSLinear, pytfmbs.TFMBSLinearReLU),
) -> Any:
    quantizer = draw_quantizer(pick)
    kind = pick.choice(kinds)
    activation = pick.choice(["ternary", "int8"])
    bias = pick.random() < 0.5
    if quantizer in ("fixed", "each"):
        trits = torch.randint(-1, 2, (outputs, inputs))
        scale = torch.rand(outputs if quantizer == "each" else 1) + 0.1
        layer = kind.from_trits(
            trits, scale, torch.randn(outputs) if bias else None, dtype=dtype, activation=activation
        )
    else:
        layer = kind(
            inputs, outputs, bias, dtype=dtype, weight_quantizer=quantizer, activation=activation
        )
        with torch.no_grad():
            layer.weight.mul_(10 ** pick.uniform(-3, 1))
            if pick.random() < 0.1 and layer.weight.numel():
                layer.weight.view(-1)[pick.randrange(layer.weight.numel())] = float("nan")
    return layer


def draw_size(pick: random.Random) -> int:
    return pick.choice([1, 2, 3, 5, 7, 16, 33, 64, 65, pick.randrange(1, 300)])


def draw_input(pick: random.Random, inputs: int, dtype: torch.dtype) -> Tensor:
    lead = pick.choice([(), (0,), (1,), (3,), (2, 5), (17,)])
    values = torch.randn(*lead, inputs).to(dtype)
    if pick.random() < 0.15 and values.numel():
        bad = pick.choice([float("nan"), float("inf"), -float("inf")])
        values.view(-1)[pick.randrange(values.numel())] = bad
    return values


def expect_equal(found: Tensor, expected: Tensor, case: object) -> None:
    assert found.dtype == expected.dtype, (case, found.dtype)
    assert found.shape == expected.shape, (case, found.shape, expected.shape)
    if not torch.equal(found.nan_to_num(nan=77.0), expected.nan_to_num(nan=77.0)):
        raise AssertionError(f"{case}: {found} is not {expected}")


def expect_close(found: Tensor, expected: Tensor, bound: Tensor, case: object) -> None:
    """bound: of the rounding errors of two sums in different orders."""
    found, expected = found.double(), expected.double()
    fine = (found - expected).abs() <= bound.double()
    fine |= ~torch.isfinite(expected) & ~torch.isfinite(found)
    if not bool(fine.all()):
        raise AssertionError(f"{case}: {found} is not within {bound} of {expected}")


def full(gradient: Any) -> Tensor:
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient  # type: ignore[no-any-return]


def each_size(runs: int, run: Any, seed: int) -> None:
    """Calls run(pick, mesh, case) in the processes of each mesh, with the same choices in each."""
    import torch.distributed as dist

    for size in SIZES:
        mesh = mesh_of(size)
        if dist.get_rank() < size:
            for i in range(runs):
                torch.manual_seed(1000 * size + i + seed)
                run(random.Random(f"{seed} {size} {i}"), mesh, f"{size} processes, run {i}")
        dist.barrier()


WHOLE_STYLES = {
    "columns": lambda: ColwiseParallel(output_layouts=Replicate()),
    "rows": lambda: RowwiseParallel(input_layouts=Replicate()),
}


def run_trainable(pick: random.Random, mesh: DeviceMesh, case: str) -> None:
    dtype = pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16])
    inputs, outputs = draw_size(pick), draw_size(pick)
    layer = draw_layer(pick, inputs, outputs, dtype)
    one = copy.deepcopy(layer)
    style = pick.choice(list(WHOLE_STYLES))
    case = f"{case}, {style} of {layer}, {dtype}"
    many = nn.Sequential(layer)
    many = parallelize_module(many, mesh, {"0": WHOLE_STYLES[style]()})
    x = draw_input(pick, inputs, dtype)
    autocast = dtype == torch.float32 and pick.random() < 0.1
    for training in (True, False):
        many.train(training)
        one.train(training)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if training:
                check_gradients(many, one, layer, x, case)
            else:
                with torch.no_grad():
                    for _ in range(2):  # the second finds the weight packed
                        expect_equal(many(x), one(x), case)
                    for module in (layer, one):
                        module.weight.mul_(-0.5)
                    expect_equal(many(x), one(x), f"{case}, written")


def check_gradients(many: nn.Module, one: Any, layer: Any, x: Tensor, case: str) -> None:
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [many(inputs[0]), one(inputs[1])]
    expect_equal(outputs[0].detach(), outputs[1].detach(), case)
    gradient = torch.randint(-3, 4, outputs[1].shape).to(outputs[1].dtype)
    for output in outputs:
        output.backward(gradient)
    if x.dtype == torch.bfloat16 or not torch.isfinite(x).all():
        return
    # Twice n rounding errors of a sum of n terms, each at most eps of the sum of the terms' sizes.
    eps = torch.finfo(outputs[1].dtype).eps
    trits, scale = one.quantized_weight()
    weight = (trits.double() * scale.reshape(-1, 1).double()).nan_to_num()
    g = gradient.double().abs().reshape(-1, one.out_features)
    seen = x.double().abs().reshape(-1, one.in_features)
    top = seen.amax(1, keepdim=True) if seen.numel() else seen.sum(1, keepdim=True)
    size = torch.maximum(seen, top / 127).clamp(min=1e-5)
    if one.activation == "ternary":
        size = torch.ones_like(seen)
    terms = 4 + max(one.out_features, g.shape[0])
    bounds = (
        (g @ weight.abs()).reshape(x.shape) * 2 * terms * eps,
        (g.t() @ (size * 1.01)) * 2 * terms * eps,
        g.sum(0) * 2 * terms * eps,
    )
    found = [inputs[0].grad, layer.weight.grad, None if layer.bias is None else layer.bias.grad]
    wanted = [inputs[1].grad, one.weight.grad, None if one.bias is None else one.bias.grad]
    for of, own, expected, bound in zip("xwb", found, wanted, bounds, strict=True):
        if expected is not None:
            assert own is not None, case
            expect_close(full(own), expected, bound, f"{case}, gradient of {of}")
    if one.weight_quantizer.name == "sign" and one.activation == "ternary":  # sums of integers
        expect_equal(full(found[1]), one.weight.grad, case)


@check
def trainable(folder: Path) -> None:
    each_size(RUNS, run_trainable, 0)


def run_packed(pick: random.Random, mesh: DeviceMesh, case: str) -> None:
    inputs, outputs = draw_size(pick), draw_size(pick)
    group = pick.choice([None, None, 32, 64, 128, 256])
    shape: tuple[int, ...] = pick.choice([(1,), (outputs,)])
    if group is not None:
        shape = (outputs, -(-inputs // group))
    trits = torch.randint(-1, 2, (outputs, inputs))
    scale = torch.randn(shape)
    if pick.random() < 0.1:
        scale.view(-1)[pick.randrange(scale.numel())] = float("nan")
    bias = torch.randn(outputs) if pick.random() < 0.5 else None
    activation = pick.choice(["ternary", "int8"])
    layer = pytfmbs.TFMBSPackedLinear.from_trits(
        trits, scale, bias, group_size=group, activation=activation
    )
    one = copy.deepcopy(layer)
    style = pick.choice(list(WHOLE_STYLES))
    dtype = pick.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16])
    case = f"{case}, {style} of {one}, {dtype}"
    many = parallelize_module(nn.Sequential(layer), mesh, {"0": WHOLE_STYLES[style]()})
    x = draw_input(pick, inputs, dtype)
    with torch.no_grad():
        expect_equal(many(x), one(x), case)
    own, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    many(own).sum().backward()
    one(other).sum().backward()
    if dtype == torch.bfloat16 or not torch.isfinite(x).all():
        return
    assert own.grad is not None
    assert other.grad is not None
    size = one.dequantized_weight(torch.float64).abs().sum(0).nan_to_num()
    bound = (size * 2 * (outputs + 4) * torch.finfo(dtype).eps).expand(x.shape)
    expect_close(own.grad, other.grad, bound, f"{case}, gradient")


@check
def packed(folder: Path) -> None:
    each_size(RUNS, run_packed, 1)


def run_chain(pick: random.Random, mesh: DeviceMesh, case: str) -> None:
    """A feed-forward block, split as users do; sequence parallel around it, or not."""
    inputs, hidden, outputs = draw_size(pick), draw_size(pick), draw_size(pick)
    dtype = torch.float32
    kinds = (pytfmbs.TFMBSLinear,)  # which freeze takes
    block = nn.Sequential(
        draw_layer(pick, inputs, hidden, dtype, kinds),
        nn.ReLU(),
        draw_layer(pick, hidden, outputs, dtype, kinds),
    )
    if pick.random() < 0.5 and all(block[i].has_float32_scales() for i in (0, 2)):
        block = pytfmbs.freeze(block)
    one = copy.deepcopy(block)
    case = f"{case}, {block}"
    sequence = pick.random() < 0.4
    tokens = pick.randrange(1, 4) * mesh.size()
    x = torch.randn(tokens, inputs)
    if not sequence:
        plan: dict[str, Any] = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        many = parallelize_module(block, mesh, plan)
        own = x
    else:
        plan = {
            "0": ColwiseParallel(input_layouts=Shard(0)),
            "2": RowwiseParallel(output_layouts=Shard(0)),
        }
        many = parallelize_module(block, mesh, plan)
        own = x.chunk(mesh.size())[mesh.get_local_rank()]
    expected = one(x)
    found = many(own)
    if sequence:
        expected = expected.chunk(mesh.size())[mesh.get_local_rank()]
    expect_equal(found.detach(), expected.detach(), case)
    if found.requires_grad:
        found.sum().backward()
        for name, parameter in many.named_parameters():
            assert parameter.grad is not None, f"{case}: no gradient of {name}"


@check
def chains(folder: Path) -> None:
    each_size(15, run_chain, 2)


def run_bitnet(pick: random.Random, mesh: DeviceMesh, case: str) -> None:
    inputs, outputs = 12 * pick.randrange(1, 9), draw_size(pick)
    layer: Any = BitNetLinear(inputs, outputs, weight_quantizer="absmean", activation="int8")
    layer.rms_norm = RMSNorm(torch.randn(inputs), 1e-6)
    many = nn.Sequential(layer)
    if pick.random() < 0.5:
        many = pytfmbs.freeze(many)
    one = copy.deepcopy(many)
    style = pick.choice(list(WHOLE_STYLES))
    many = parallelize_module(many, mesh, {"0": WHOLE_STYLES[style]()})
    x = torch.randn(pick.randrange(4), inputs)
    expect_equal(many(x).detach(), one(x).detach(), f"{case}, {style} of {one}")


@check
def norms_before_the_product(folder: Path) -> None:
    each_size(10, run_bitnet, 3)


@check
def other_weights_than_the_first_process(folder: Path) -> None:
    """As of nn.Linear, the first process's weights are everyone's."""
    import torch.distributed as dist

    mesh = mesh_of(4)
    for freeze in (False, True):
        torch.manual_seed(5)
        one: Any = pytfmbs.TFMBSLinear(20, 30, weight_quantizer="twn", activation="int8")
        torch.manual_seed(5 + dist.get_rank())
        many: Any = nn.Sequential(
            pytfmbs.TFMBSLinear(20, 30, weight_quantizer="twn", activation="int8")
        )
        if freeze:
            one, many = pytfmbs.freeze(one), pytfmbs.freeze(many)
        many = parallelize_module(many, mesh, {"0": WHOLE_STYLES["columns"]()})
        torch.manual_seed(9)
        x = torch.randn(3, 20)
        expect_equal(many(x).detach(), one(x).detach(), f"frozen: {freeze}")


@check
def what_is_refused(folder: Path) -> None:
    mesh = mesh_of(4)
    layer = pytfmbs.TFMBSLinear(8, 8)
    many = parallelize_module(nn.Sequential(layer), mesh, {"0": ColwiseParallel()})
    with pytest.raises(TypeError, match="must be a DTensor"):
        layer.forward(torch.randn(2, 8))
    with pytest.raises(RuntimeError, match="takes 8 in the last"):
        many(torch.randn(2, 9))
    with pytest.raises(RuntimeError, match=r"the weight torch\.float32"):
        many(torch.randn(2, 8).double())
    with pytest.raises(RuntimeError, match="distributed already"):
        parallelize_module(many, mesh, {"0": ColwiseParallel()})
    assert many(torch.randn(2, 8)).shape == (2, 2)
