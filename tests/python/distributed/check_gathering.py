"""FSDP2 with trits on the wire: the losses and weights of gathered floats, bit for bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import pytfmbs
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pytfmbs import TFMBSLinear
from pytfmbs.distributed import gather_trits
from pytfmbs.distributed.gathered import GatheredTrits
from ranks import check
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

SIZE, HIDDEN = 35, 54  # rows that do not divide by 4


class Block(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(SIZE)
        self.up = TFMBSLinear(SIZE, HIDDEN, **options)
        self.gate = TFMBSLinear(SIZE, HIDDEN, bias=False, **options)
        self.down = TFMBSLinear(HIDDEN, SIZE, **options)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


def model_of(seed: int = 0, **options: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(*[Block(ste_clip=3.0, **options) for _ in range(2)], nn.Linear(SIZE, 7))


def sharded(
    model: nn.Sequential,
    mesh: DeviceMesh,
    trits: bool,
    param_dtype: torch.dtype | None = None,
    reshard: bool = True,
) -> nn.Sequential:
    model = copy.deepcopy(model)
    policy = MixedPrecisionPolicy(param_dtype=param_dtype)
    for block in [*model[:2], model]:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    if trits:
        paths = gather_trits(model, param_dtype)
        assert paths == [f"{i}.{name}" for i in (0, 1) for name in ("up", "gate", "down")]

    def held_what_was_asked(layer: nn.Module, *_: Any) -> None:
        assert (type(layer.weight) is GatheredTrits) == trits

    model[1].up.register_forward_hook(held_what_was_asked)
    return model


def trained(
    model: nn.Module, steps: int, rank: int, optimizer: type = torch.optim.AdamW
) -> list[Tensor]:
    """The losses, and then the gradients and weights of this process."""
    draws = torch.Generator().manual_seed(rank)
    descent = optimizer(model.parameters(), lr=3e-2)
    found = []
    for _ in range(steps):
        x = torch.randn(6, SIZE, generator=draws)
        loss = model(x).float().square().mean()
        loss.backward()
        found.append(loss.detach())
        descent.step()
        grads = [p.grad.to_local().clone() for p in model.parameters()]  # type: ignore[union-attr]
        descent.zero_grad()
    return [*found, *grads, *[p.detach().to_local() for p in model.parameters()]]


def assert_same(got: list[Tensor], expected: list[Tensor]) -> None:
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@check
def gathered_trits_train_as_gathered_floats(_: Path) -> None:
    mesh = init_device_mesh("cpu", (4,))
    pairs = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    for activation in ("ternary", "int8"):
        for quantizer in ("sign", "absmean", "twn"):
            model = model_of(weight_quantizer=quantizer, activation=activation)
            for over, dtype, reshard in (
                (mesh, None, True),
                (mesh, torch.bfloat16, True),
                (pairs, None, False),  # replicas of shards
            ):
                rank = dist.get_rank()
                expected = trained(sharded(model, over, False, dtype, reshard), 5, rank)
                got = trained(sharded(model, over, True, dtype, reshard), 5, rank)
                assert_same(got, expected)


@check
def two_hundred_steps_are_the_same(_: Path) -> None:
    pair = init_device_mesh("cpu", (2, 2), mesh_dim_names=("alone", "shard"))["shard"]
    model = model_of(weight_quantizer="absmean", activation="int8")
    rank = pair.get_local_rank()
    expected = trained(sharded(model, pair, False), 200, rank)
    assert_same(trained(sharded(model, pair, True), 200, rank), expected)
    assert expected[0] > 2 * expected[199]


class _Counted:
    """FSDP2's all-gather, counting the bytes that each process sends to each other one."""

    def __init__(self) -> None:
        self.sent = 0

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, async_op: bool = False
    ) -> Any:
        self.sent += input_tensor.numel() * input_tensor.element_size()
        return dist.all_gather_single(output_tensor, input_tensor, group=group, async_op=async_op)


@check
def an_eighteenth_of_the_bytes_travels(_: Path) -> None:
    mesh = init_device_mesh("cpu", (4,))
    sent = {}
    for trits in (False, True):
        torch.manual_seed(0)
        options = {"bias": False, "weight_quantizer": "absmean", "activation": "int8"}
        model = nn.Sequential(TFMBSLinear(256, 512, **options), TFMBSLinear(512, 256, **options))
        fully_shard(model, mesh=mesh)
        if trits:
            gather_trits(model)
        counted = _Counted()
        model.set_custom_all_gather(counted)
        model(torch.randn(2, 256)).sum().backward()
        sent[trits] = counted.sent
    assert sent[False] >= 4 * 2 * 256 * 512 // 4
    assert sent[False] >= 18 * sent[True], sent


@check
def a_nan_weight_makes_its_outputs_nan(_: Path) -> None:
    mesh = init_device_mesh("cpu", (4,))
    for quantizer in ("absmean", "twn"):
        found = []
        for trits in (False, True):
            torch.manual_seed(0)
            layer = TFMBSLinear(20, 30, weight_quantizer=quantizer)
            with torch.no_grad():
                layer.weight[13, 2] = torch.nan
            fully_shard(layer, mesh=mesh)
            if trits:
                gather_trits(layer)
            x = torch.ones(2, 20, requires_grad=True)
            y = layer(x)
            y[:, :13].sum().backward()
            found.append([y.detach(), x.grad, layer.weight.grad.to_local()])
        assert_same(found[1], found[0])
        assert found[1][0].isnan().any(0).nonzero().tolist() == [[13]]


@check
def gathered_layers_keep_their_scales(_: Path) -> None:
    """Layers of trits have scales of their own; a frozen one trains nothing."""
    mesh = init_device_mesh("cpu", (4,))
    for scale in (
        torch.tensor([0.25]),
        torch.rand(30, generator=torch.Generator().manual_seed(1)) + 0.1,
    ):
        draws = torch.Generator().manual_seed(2)
        trits = torch.randint(-1, 2, (30, 20), generator=draws)
        x = torch.randn(3, 20, generator=draws)
        whole = TFMBSLinear.from_trits(trits, scale, activation="int8")
        layer = copy.deepcopy(whole).requires_grad_(False)
        fully_shard(layer, mesh=mesh)
        gather_trits(layer)
        given = x.clone().requires_grad_()
        wanted = x.clone().requires_grad_()
        got, expected = layer(given), whole(wanted)
        got.square().sum().backward()
        expected.square().sum().backward()
        assert_same([got, given.grad], [expected, wanted.grad])  # type: ignore[list-item]


@check
def gradients_accumulate(_: Path) -> None:
    mesh = init_device_mesh("cpu", (4,))
    model = model_of(weight_quantizer="sign")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # many weights outside their window
    found = []
    for trits in (False, True):
        one = sharded(model, mesh, trits)
        for sync in (False, True, True):
            one.set_requires_gradient_sync(sync)
            one(torch.ones(2, SIZE) * (1 + dist.get_rank())).sum().backward()
        found.append([p.grad.to_local() for p in one.parameters()])  # type: ignore[union-attr]
    assert_same(found[1], found[0])
    assert (found[1][1] == 0).any()


@check
def states_hold_floats(folder: Path) -> None:
    """A checkpoint of a model that gathers trits loads into one process, and back."""
    mesh = init_device_mesh("cpu", (4,))
    model = sharded(model_of(), mesh, True)
    trained(model, 2, dist.get_rank())
    state = model.state_dict()
    assert not any(
        hasattr(t.to_local(), "fsdp_pre_all_gather")
        for t in state.values()
        if isinstance(t, DTensor) and not t.requires_grad
    )
    dcp.save({"model": state}, checkpoint_id=folder / "states")
    x = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(5))
    expected = model(x).detach()
    dist.barrier()
    for other in (model_of(1), sharded(model_of(1), mesh, True)):
        loaded = {"model": other.state_dict()}
        dcp.load(loaded, checkpoint_id=folder / "states")
        other.load_state_dict(loaded["model"])
        assert torch.equal(other(x), expected)


@check
def what_gathers_no_trits_is_refused(_: Path) -> None:
    mesh = init_device_mesh("cpu", (4,))

    def own(weight: Tensor) -> tuple[Tensor, Tensor]:
        return weight.sign().to(torch.int8), torch.ones(1)

    class Own:
        name = "own"

        def __call__(self, weight: Tensor) -> tuple[Tensor, Tensor]:
            return own(weight)

    def refused(words: str, layer: nn.Module, **options: Any) -> None:
        with pytest.raises(pytfmbs.ArgumentError, match=words):
            gather_trits(fully_shard(layer, mesh=mesh, **options))

    refused("no TFMBSLinear", nn.Linear(8, 8))
    refused("sees the whole weight", TFMBSLinear(8, 8, weight_quantizer=Own()))
    refused("float64", TFMBSLinear(8, 8, dtype=torch.float64))
    refused(
        "only rows",
        TFMBSLinear(8, 8),
        shard_placement_fn=lambda _: Shard(1) if _.ndim == 2 else Shard(0),
    )
    with pytest.raises(pytfmbs.ArgumentError, match="fully_shard"):
        gather_trits(TFMBSLinear(8, 8))
    # Mixed precision that gather_trits was not told, and a weight that is read while gathered.
    layer = fully_shard(
        TFMBSLinear(8, 8), mesh=mesh, mp_policy=MixedPrecisionPolicy(torch.bfloat16)
    )
    gather_trits(layer)
    with pytest.raises(RuntimeError, match="param_dtype"):
        layer(torch.ones(1, 8))
    layer = fully_shard(TFMBSLinear(8, 8), mesh=mesh, reshard_after_forward=False)
    gather_trits(layer)
    layer(torch.ones(1, 8))
    assert type(layer.weight) is GatheredTrits
    trits, _scale = layer.quantized_weight()
    assert set(trits.unique().tolist()) <= {-1, 0, 1}
    with pytest.raises(RuntimeError, match="no floats of it"):
        layer.weight + 1
