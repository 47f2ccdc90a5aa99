"""How the processes of a mesh share a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

OUTPUTS, INPUTS = 0, 1  # dimensions of a weight


@dataclass(frozen=True)
class Split:
    """A weight of [outputs, inputs] over a mesh of one dimension.

    dim: OUTPUTS (column-wise), INPUTS (row-wise), or None where each process has all of it. Parts are
    as torch.chunk's: the last ones may be smaller, or empty.
    """

    mesh: DeviceMesh
    dim: int | None
    outputs: int
    inputs: int

    @classmethod
    def of(cls, weight: DTensor) -> Split:
        """The split of a distributed weight. Raises ValueError for one that no layer computes with."""
        if weight.device_mesh.ndim != 1:
            raise ValueError(
                f"a ternary weight on a mesh of {weight.device_mesh.ndim} dimensions; it takes a mesh "
                "of one: parallelize_module(model, mesh['tp'], ...)"
            )
        placement = weight.placements[0]
        dim: int | None = None
        if type(placement) is Shard:
            dim = placement.dim % 2
        elif not placement.is_replicate():
            raise ValueError(
                f"a ternary weight placed as {placement}; it can be Shard or Replicate"
            )
        return cls(weight.device_mesh, dim, *weight.shape)

    @property
    def group(self) -> dist.ProcessGroup:
        return self.mesh.get_group()

    @property
    def part(self) -> slice:
        """This process's outputs or inputs."""
        size = self.inputs if self.dim == INPUTS else self.outputs
        if self.dim is None:
            return slice(0, size)
        step = -(-size // self.mesh.size())
        first = min(self.mesh.get_local_rank() * step, size)
        return slice(first, min(first + step, size))

    @property
    def shape(self) -> tuple[int, int]:
        """Of this process's part."""
        part = self.part
        count = part.stop - part.start
        return (
            count if self.dim == OUTPUTS else self.outputs,
            count if self.dim == INPUTS else self.inputs,
        )

    def outputs_of(self, values: Tensor) -> Tensor:
        """Of values one per output (or one for all, or some per output) those of this process."""
        if self.dim != OUTPUTS or values.shape[0] != self.outputs or values.numel() == 1:
            return values
        return values[self.part]

    def input_placement(self, dims: int) -> Placement:
        """Where an input of so many dimensions must be."""
        return Shard(dims - 1) if self.dim == INPUTS else Replicate()

    def sum_(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place. Exact: values are integers."""
        return self._reduce_(values, dist.ReduceOp.SUM)

    def max_(self, values: Tensor) -> Tensor:
        """The maximum over all processes, in place."""
        return self._reduce_(values, dist.ReduceOp.MAX)

    def _reduce_(self, values: Tensor, op: Any) -> Tensor:
        if values.numel() > 0:
            dist.all_reduce(values, op, group=self.group)
        return values


def distributed(local: Tensor, mesh: DeviceMesh, placement: Placement, *shape: int) -> DTensor:
    """A distributed tensor of its parts, which may be uneven."""
    stride = torch.empty(shape, device="meta").stride()
    made: DTensor = DTensor.from_local(
        local, mesh, [placement], run_check=False, shape=torch.Size(shape), stride=stride
    )
    return made


def local_part(tensor: DTensor) -> Tensor:
    """What this process holds of it, without a gradient."""
    with torch.no_grad():
        local = tensor.to_local()
        return local.wait() if hasattr(local, "wait") else local
