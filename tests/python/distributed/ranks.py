"""Checks that several processes run together. As a program: one process of the group, which runs all
of them and leaves its findings in a file. Process starts are dear, so there is one group for all."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

WORLD = 4
#: By name, in the order in which they run.
CHECKS: dict[str, Callable[[Path], None]] = {}


def check(function: Callable[[Path], None]) -> Callable[[Path], None]:
    """Registers a check: called in each process with a folder that they share. It fails by an
    exception, in any of them."""
    CHECKS[function.__name__] = function
    return function


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    import check_checkpoints  # noqa: F401
    import check_gathering  # noqa: F401
    import check_profiles  # noqa: F401
    import check_tensor_parallel  # noqa: F401

    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    rank = dist.get_rank()
    only = sys.argv[2:]
    findings: dict[str, str] = {}
    for name, function in CHECKS.items():
        if only and name not in only:
            continue
        shared = folder / name
        shared.mkdir(exist_ok=True)
        error = ""
        try:
            function(shared)
        except Exception:
            error = traceback.format_exc()
        findings[name] = error
        (folder / f"{rank}.json").write_text(json.dumps(findings))
        if error:
            print(f"rank {rank}, {name}:\n{error}", file=sys.stderr, flush=True)
            os._exit(1)  # the others may wait for this process; torch ends them with an error
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    import ranks  # the module that the checks register with

    ranks.main()
