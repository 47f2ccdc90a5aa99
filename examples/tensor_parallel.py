"""Generates with a BitNet model that several processes share, and compares with one process.

torchrun --nproc_per_node 2 examples/tensor_parallel.py [PATH]

PATH: a folder or a name on the hub, such as microsoft/bitnet-b1.58-2B-4T. Without one, a small random
checkpoint is made. On machines apart: docs/distributed.md. Started with python, it is one process.
"""

from __future__ import annotations

import copy
import os
import sys
import tempfile
from typing import Any

import pytfmbs
import torch
import torch.distributed as dist
from generate_bitnet import random_checkpoint
from pytfmbs.integrations.transformers import from_pretrained
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)
from transformers import AutoModelForCausalLM


def plan() -> dict[str, Any]:
    """BitNet's. Attention is split by heads, the feed-forward by its hidden features. A norm between
    two layers sees whole rows, so the layer after it cuts them again."""
    whole_rows = {
        "input_layouts": (Shard(-1),),
        "desired_input_layouts": (Replicate(),),
        "use_local_output": True,
    }
    block = {
        "self_attn.q_proj": ColwiseParallel(),
        "self_attn.k_proj": ColwiseParallel(),
        "self_attn.v_proj": ColwiseParallel(),
        "self_attn.attn_sub_norm": PrepareModuleInput(**whole_rows),
        "self_attn.o_proj": RowwiseParallel(input_layouts=Replicate()),
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.ffn_sub_norm": PrepareModuleInput(**whole_rows),
        "mlp.down_proj": RowwiseParallel(input_layouts=Replicate()),
    }
    return {f"model.layers.*.{name}": style for name, style in block.items()}


def main(path: str | None) -> None:
    # Before the processes know each other: save_pretrained would write in the first one alone.
    with tempfile.TemporaryDirectory() as folder:
        source = path or random_checkpoint(folder)
        model: Any = from_pretrained(AutoModelForCausalLM, source, dtype=torch.float32)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    dist.init_process_group(
        "gloo", rank=int(os.environ.get("RANK", 0)), world_size=int(os.environ.get("WORLD_SIZE", 1))
    )
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    one = copy.deepcopy(model) if path is None else None
    parallelize_module(model, mesh, plan())

    prompt = {"input_ids": torch.tensor([[1, 5, 9]])}
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    options: Any = {**prompt, "max_new_tokens": 16, "do_sample": False}
    tokens = model.generate(**options)
    profile = pytfmbs.distributed.gather_profile()
    if dist.get_rank() == 0:
        assert profile is not None
        print(f"{dist.get_world_size()} processes: {tokens[0].tolist()}")
        for rank, own in enumerate(profile["ranks"]):
            print(f"process {rank}: {own['cycles']:,} cycles, {own['active_ops']:,} products")
        if one is not None:
            same = torch.equal(one.generate(**options), tokens)
            print("one process gives the same tokens" if same else "one process gives OTHER tokens")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
