"""Which reader a path needs."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import CheckpointError
from .bitnet import BitNetCheckpoint, Linears
from .files import TensorFiles
from .gguf_file import GgufCheckpoint
from .own import METHOD, OwnCheckpoint
from .reader import Checkpoint


def open_checkpoint(path: str | os.PathLike[str], *, linears: Linears | None = None) -> Checkpoint:
    """A reader of a ternary checkpoint, memory-mapped.

    path: a GGUF file; a folder of safetensors with config.json, or one safetensors file beside it.
    linears: names of the ternary layers, which only BitNet checkpoints with quantization_mode
        "online" need; or a function that gives them for modules_to_not_convert.

    Raises CheckpointError for a file that is not read, and says what to do; ImportError without
    ``safetensors`` or ``gguf``.
    """
    place = Path(path)
    if not place.exists():
        raise CheckpointError(str(place), None, "there is no such file or folder", "Check the path")
    if place.is_file() and (place.suffix == ".gguf" or _magic(place) == b"GGUF"):
        return GgufCheckpoint(place)
    if place.is_file() and place.suffix != ".safetensors":
        raise CheckpointError(
            str(place), None, "it is neither .gguf nor .safetensors", "Give a file of these"
        )
    files = TensorFiles(place)
    config = files.config.get("quantization_config")
    method = config.get("quant_method") if isinstance(config, dict) else None
    if method == "bitnet":
        return BitNetCheckpoint(files, linears)
    if method == METHOD:
        return OwnCheckpoint(files)
    raise CheckpointError(
        str(place),
        None,
        f"config.json has quantization_config.quant_method {method!r}; 'bitnet' and {METHOD!r} are read",
        "Quantize a float model with pytfmbs.convert",
    )


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
