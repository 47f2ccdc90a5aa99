"""Makes fused optimizer steps visible to layers in eval mode.

torch's fused CPU optimizers (``fused=True``; seen with SGD, Adam, AdamW and Adagrad of torch 2.13)
write parameters without raising their version, by which a layer in eval mode sees a change. A hook
after each optimizer step raises it for them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook


def _raise_versions(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None and not parameter.is_inference():
                    torch.autograd.graph.increment_version(parameter)


def register() -> None:
    """Registers the hook for every optimizer of the process."""
    register_optimizer_step_post_hook(_raise_versions)
