"""Where a tensor of a checkpoint goes in a layer of vLLM: its rows and inputs on this rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    LinearBase,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.parameter import BasevLLMParameter

from ... import _fabric
from ...errors import FabricError
from .formats import Format, pack_rows


@dataclass(frozen=True)
class Part:
    """Rows of a stored matrix, and where they go: ``size`` rows from row ``source`` of the matrix to
    row ``target`` of the rank's."""

    source: int
    target: int
    size: int


def parts_of(layer: LinearBase, shard: Any) -> tuple[list[Part], int]:
    """The parts of a stored matrix that this rank holds, and how many rows the matrix has. shard: which
    of a joined layer's matrices it is; None for all of them in one."""
    if isinstance(layer, QKVParallelLinear):
        return _of_joined(_qkv_sizes(layer), shard)
    if isinstance(layer, MergedColumnParallelLinear):
        sizes = [
            (index, size, size // layer.tp_size, layer.tp_rank)
            for index, size in enumerate(layer.output_sizes)
        ]
        return _of_joined(sizes, shard)
    if shard is not None:
        raise ValueError(f"{layer.prefix}: a {type(layer).__name__} has no part {shard!r}")
    if isinstance(layer, ColumnParallelLinear):
        size = layer.output_size_per_partition
        return [Part(layer.tp_rank * size, 0, size)], layer.output_size
    return [Part(0, 0, layer.output_size)], layer.output_size


#: Of a joined layer's matrix: its name, its rows, those of a rank, and which of these parts is ours.
_Sizes = list[tuple[Any, int, int, int]]


def _qkv_sizes(layer: QKVParallelLinear) -> _Sizes:
    replicas = layer.num_kv_head_replicas
    found: _Sizes = []
    for name in ("q", "k", "v"):
        size = layer._get_shard_size_mapping(name)
        whole = layer.total_num_heads if name == "q" else layer.total_num_kv_heads
        heads = layer.num_heads if name == "q" else layer.num_kv_heads
        rank = layer.tp_rank if name == "q" else layer.tp_rank // replicas
        found.append((name, size // heads * whole, size, rank))
    return found


def _of_joined(sizes: _Sizes, shard: Any) -> tuple[list[Part], int]:
    wanted = shard if isinstance(shard, tuple) else None if shard is None else (shard,)
    parts: list[Part] = []
    source = target = 0
    for name, whole, size, rank in sizes:
        if wanted is None or name in wanted:
            parts.append(Part(source + rank * size, target, size))
            source += whole
        target += size
    return parts, source


def stored_parameters(
    layer: LinearBase, format: Format, prefix: str, rows: int, inputs: int, all_inputs: int
) -> dict[str, BasevLLMParameter]:
    """The parameters that vLLM loads a checkpoint's tensors into, by name: the trits of this rank as
    PT-5, uint8 [rows, ceil(inputs / 5)], and scales, float32 [rows] or [rows, groups], NaN until they
    are known.

    rows, inputs: of this rank. all_inputs: of all ranks.
    """
    split = isinstance(layer, RowParallelLinear) and layer.tp_size > 1
    first_input = layer.tp_rank * inputs if split else 0
    scale_shape = [rows] if format.group_size is None else [rows, -(-inputs // format.group_size)]
    scales = torch.full(scale_shape, torch.nan)
    packed = torch.zeros(rows, -(-inputs // _fabric.TRITS_PER_BYTE), dtype=torch.uint8)

    def set_scales(loaded: Tensor, parts: list[Part], whole: int) -> None:
        for part in parts:
            to = scales[part.target : part.target + part.size]
            if loaded.numel() == 1 and to.dim() == 1:
                to.fill_(loaded.reshape(()))
                continue
            if loaded.shape[0] != whole or loaded.shape[1:] != to.shape[1:]:
                raise ValueError(
                    f"its shape is {tuple(loaded.shape)}; {[1]} or {[whole, *to.shape[1:]]} is needed"
                )
            to.copy_(loaded[part.source : part.source + part.size])

    def load_weight(param: Any, loaded: Tensor, shard: Any = None) -> None:
        with _named(prefix, format.weight, shard):
            parts, whole = parts_of(layer, shard)
            trits, found = format.trits(loaded, whole, all_inputs)
            mine = trits[:, first_input : first_input + inputs]
            for part in parts:
                param.data[part.target : part.target + part.size] = pack_rows(
                    mine[part.source : part.source + part.size]
                )
            if found is not None:
                set_scales(found, parts, whole)

    def load_scale(param: Any, loaded: Tensor, shard: Any = None) -> None:
        with _named(prefix, str(format.scale), shard):
            parts, whole = parts_of(layer, shard)
            set_scales(format.scales(loaded), parts, whole)

    made = {format.weight: BasevLLMParameter(data=packed, weight_loader=load_weight)}
    made[format.scale or "weight_scale"] = BasevLLMParameter(data=scales, weight_loader=load_scale)
    return made


class _named:
    """Says of an error which tensor it is about."""

    def __init__(self, prefix: str, name: str, shard: Any) -> None:
        self.what = f"{prefix}.{name}" + ("" if shard is None else f" (part {shard!r})")

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, (ValueError, FabricError)):
            raise ValueError(f"{self.what}: {error}") from error
