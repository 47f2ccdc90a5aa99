"""A checkpoint as a transformers model, for ``pytfmbs summary``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.converting import contents_of, open_alone
from ..checkpoints.loading import load_into
from ..errors import CheckpointError


def model_of(path: Path) -> nn.Module:
    """The model with its packed layers. Buffers that no file has are zeros: it is not to be run.
    Raises CheckpointError where its class is not known."""
    config: dict[str, Any] = dict(contents_of(open_alone(path)).config)
    kind = config.pop("model_type", None)
    if kind is None:
        raise CheckpointError(
            str(path), None, "config.json has no model_type, so its class is not known",
            "Use pytfmbs inspect, or pytfmbs.summary on the model",
        )  # fmt: skip
    import transformers

    try:
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(kind, **config)
            )
    except (ValueError, TypeError) as error:
        reason = f"transformers makes no {kind!r} of its config.json: {error}"
        raise CheckpointError(str(path), None, reason, "Use pytfmbs inspect") from error
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_meta:
                module._buffers[name] = torch.zeros(buffer.shape, dtype=buffer.dtype)
    loaded: nn.Module = load_into(model, path)
    return loaded
