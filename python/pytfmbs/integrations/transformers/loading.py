"""from_pretrained: ternary checkpoints of transformers' "bitnet" method, into ternary layers."""

from __future__ import annotations

import os
from typing import Any

from transformers import AutoConfig

from ...checkpoints.own import METHOD
from ...errors import ArgumentError
from . import quantizer  # noqa: F401  registers the method

#: Where a checkpoint is found: what AutoConfig takes of from_pretrained's arguments.
_HUB = (
    "cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token",
    "trust_remote_code", "code_revision",
)  # fmt: skip


def from_pretrained(
    auto_class: Any,
    path: str | os.PathLike[str],
    *,
    trainable: bool = False,
    packing: str = "auto",
    **options: Any,
) -> Any:
    """``auto_class.from_pretrained(path)``, with ternary layers where the checkpoint has BitNet's.

    A checkpoint's own ``quantization_config`` wins over an argument of transformers, so a BitNet
    checkpoint needs this call. One of pytfmbs's own loads as by ``auto_class.from_pretrained``.

    auto_class: AutoModelForCausalLM, or another class with from_pretrained.
    trainable: TFMBSLinears. They keep the checkpoint's scales; online checkpoints keep their float
        weights. packing: of packed layers. options: from_pretrained's.

    Raises CheckpointError for a checkpoint that cannot be read right; ArgumentError for one that is not
    ternary.
    """
    config = options.pop("config", None)
    if config is None:
        hub = {name: options[name] for name in _HUB if name in options}
        config = AutoConfig.from_pretrained(path, **hub)
    theirs = getattr(config, "quantization_config", None)
    method = theirs.get("quant_method") if isinstance(theirs, dict) else None
    if method == "bitnet":
        assert isinstance(theirs, dict)
        config.quantization_config = {
            "quant_method": METHOD, "bitnet": theirs, "trainable": trainable, "packing": packing,
        }  # fmt: skip
    elif method == METHOD:
        config.quantization_config = {**theirs, "trainable": trainable, "packing": packing}  # type: ignore[dict-item]
    else:
        raise ArgumentError(
            f"{path}: its quantization method is {method!r}; 'bitnet' and {METHOD!r} are loaded. For a "
            "float checkpoint, pass quantization_config=TFMBSConfig() to the class's from_pretrained"
        )
    return auto_class.from_pretrained(path, config=config, **options)
