"""Which reader a path needs."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ArgumentError, CheckpointError
from .bitnet import BitNetCheckpoint, Linears
from .files import TensorFiles
from .gguf_file import GgufCheckpoint
from .gguf_types import I2_S_BLOCKS
from .own import METHOD, OwnCheckpoint
from .reader import Checkpoint


def open_checkpoint(
    path: str | os.PathLike[str], *, linears: Linears | None = None, i2s_block: int | None = None
) -> Checkpoint:
    """A reader of a ternary checkpoint, memory-mapped.

    path: a GGUF file; a folder of safetensors with config.json, or one safetensors file beside it.
    linears: names of the ternary layers, which only BitNet checkpoints with quantization_mode
        "online" need; or a function that gives them for modules_to_not_convert.
    i2s_block: weights per block of a GGUF's I2_S tensors, 128 (written on x86, as published files
        are) or 64 (written on ARM): the file does not say.

    Raises ArgumentError for another i2s_block; CheckpointError for a file that is not read, and says
    what to do; ImportError without ``safetensors`` or ``gguf``.
    """
    if i2s_block not in (None, *I2_S_BLOCKS):
        raise ArgumentError(f"i2s_block is {i2s_block!r}; allowed are 128 and 64")
    place = Path(path)
    if not place.exists():
        raise CheckpointError(str(place), None, "there is no such file or folder", "Check the path")
    if place.is_file() and (place.suffix == ".gguf" or _magic(place) == b"GGUF"):
        return GgufCheckpoint(place, i2s_block)
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
    if config is None:
        raise CheckpointError(
            str(place),
            None,
            "config.json has no quantization_config, so it does not say that its weights are ternary, "
            "as onebitllms' revisions 'prequantized' and 'bfloat16' do not",
            "Load the packed revision of the model, or quantize a float one with pytfmbs.convert",
        )
    raise CheckpointError(
        str(place),
        None,
        f"config.json has quantization_config.quant_method {method!r}; 'bitnet' and {METHOD!r} are read",
        "Quantize a float model with pytfmbs.convert",
    )


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)
