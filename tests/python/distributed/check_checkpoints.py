"""torch.distributed.checkpoint between numbers of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytfmbs
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from check_tensor_parallel import expect_equal, mesh_of
from ranks import check
from torch import nn
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

KINDS = ("trainable", "fixed", "packed", "groups")


def block(kind: str, seed: int) -> Any:
    """Sizes that do not divide by the processes, nor by five or the groups."""
    torch.manual_seed(seed)
    if kind == "fixed":
        return nn.Sequential(
            pytfmbs.TFMBSLinear.from_trits(
                torch.randint(-1, 2, (77, 50)), torch.rand(77) + 0.1, torch.randn(77)
            ),
            nn.ReLU(),
            pytfmbs.TFMBSLinear.from_trits(torch.randint(-1, 2, (33, 77)), 0.5, torch.randn(33)),
        )
    if kind == "groups":
        return nn.Sequential(
            *(
                pytfmbs.TFMBSPackedLinear.from_trits(
                    torch.randint(-1, 2, shape),
                    torch.randn(shape[0], -(-shape[1] // 32)),
                    group_size=32,
                )
                for shape in ((77, 50), (33, 77))
            )
        )
    model = nn.Sequential(nn.Linear(50, 77), nn.ReLU(), nn.Linear(77, 33))
    model = pytfmbs.convert(model, weight_quantizer="twn", activation="int8")
    return pytfmbs.freeze(model) if kind == "packed" else model


def split(model: Any, size: int) -> Any:
    plan = {"0": ColwiseParallel(), str(len(model) - 1): RowwiseParallel()}
    return model if size == 1 else parallelize_module(model, mesh_of(size), plan)


def state_of(model: Any) -> dict[str, Any]:
    return {"model": model.state_dict()}


@check
def saved_and_loaded(folder: Path) -> None:
    groups = {size: dist.new_group(list(range(size))) for size in (1, 2, 3, 4)}
    for size in (2, 3, 4):
        mesh_of(size)
    rank = dist.get_rank()
    x = torch.randn(5, 50, generator=torch.Generator().manual_seed(3))
    for kind in KINDS:
        expected = block(kind, 1)(x).detach()
        for saved_on in (1, 2, 4):
            at = folder / f"{kind}{saved_on}"
            if rank < saved_on:
                model = split(block(kind, 1), saved_on)
                dcp.save(state_of(model), checkpoint_id=at, process_group=groups[saved_on])
            dist.barrier()
            for size in (1, 2, 3, 4):
                if rank < size:
                    other = split(block(kind, 2), size)
                    state = state_of(other)
                    dcp.load(state, checkpoint_id=at, process_group=groups[size])
                    other.load_state_dict(state["model"])
                    found = other(x).detach()
                    expect_equal(found, expected, f"{kind}, {saved_on} to {size}")
                dist.barrier()


@check
def a_whole_state_loads_into_parts(folder: Path) -> None:
    x = torch.randn(5, 50, generator=torch.Generator().manual_seed(3))
    for kind in ("packed", "groups"):
        whole, many = block(kind, 1), block(kind, 2)
        for layer in (*whole, *many):
            layer.bias = None  # torch distributes no parameters that it loads
        many = split(many, 4)
        many.load_state_dict(whole.state_dict())
        expect_equal(many(x).detach(), whole(x).detach(), kind)
