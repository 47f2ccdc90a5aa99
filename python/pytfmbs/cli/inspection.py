"""What a checkpoint holds, as plain data, of files that are refused too."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

from ..checkpoints.converting import open_alone, outputs_of, prepare_conversion
from ..checkpoints.files import TensorFiles
from ..checkpoints.gguf_file import GgufCheckpoint
from ..checkpoints.gguf_header import read_header
from ..checkpoints.gguf_types import I2_S, Q2_0, REFUSED
from ..checkpoints.reader import Checkpoint
from ..checkpoints.saving import FORMATS
from ..checkpoints.tensors import TernaryTensor
from ..errors import CheckpointError, FabricError
from .output import describe, message

_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2,
          "I16": 2, "U16": 2}  # fmt: skip
_PARTS = ("weight", "packed", "weight_scale", "scale", "bias", "rms_norm.weight")
_KINDS = {"tfmbs": "PT-5", "bitnet": "BitNet"}
_WEIGHT_AND_SCALE = ("weight", "packed", "weight_scale", "scale")


def inspect(path: Path, i2s_block: int | None = None) -> dict[str, Any]:
    """Tensors, ternary layers, totals, errors, and which formats it converts to."""
    errors: list[dict[str, Any]] = []
    try:
        reader: Checkpoint | None = open_alone(path, i2s_block)
    except CheckpointError as error:
        reader = None
        errors.append(describe(error))
    stored: dict[str, dict[str, Any]] = {}
    about: dict[str, Any] = {}
    try:
        if isinstance(reader, GgufCheckpoint):
            stored = _stored_by(reader)
        else:
            stored, about = _stored(path)
    except CheckpointError as error:
        if not errors:
            errors.append(describe(error))
    if isinstance(reader, GgufCheckpoint):
        about = {"architecture": reader.value("general.architecture")}
    layers = _layers(reader, stored, errors) if reader is not None else []
    own = {f"{layer['name']}.{part}" for layer in layers for part in _PARTS}
    tensors = [
        {"name": name, **facts}
        for name, facts in stored.items()
        if name not in own or (reader is not None and name in reader.tensor_names)
    ]
    weights = sum(layer["weights"] for layer in layers)
    size = sum(layer["weight_bytes"] for layer in layers)
    return {
        "path": str(path),
        "format": None if reader is None else reader.format,
        "about": about,
        "ternary_layers": layers,
        "other_tensors": tensors,
        "ternary_weights": weights,
        "other_values": sum(math.prod(tensor["shape"]) for tensor in tensors),
        "bytes": sum(facts["bytes"] or 0 for facts in stored.values()),
        "bits_per_weight": round(8 * size / weights, 3) if weights else None,
        "errors": errors,
        "converts_to": {} if reader is None or errors else _targets(reader, path),
    }


def _stored(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Each tensor's type, shape and bytes, and what the file says of itself."""
    if path.is_file() and path.suffix != ".safetensors":
        return _stored_in_gguf(path)
    files = TensorFiles(path)
    found = {}
    for name in files.names():
        shape, dtype = files.shape(name), files.dtype(name)
        size = math.prod(shape) * _BYTES.get(dtype, 1)
        found[name] = {"type": dtype, "shape": list(shape), "bytes": size}
    config = files.config.get("quantization_config")
    config = config if isinstance(config, dict) else {}
    keys = ("quant_method", "linear_class", "quantization_mode", "use_rms_norm")
    about = {key: config[key] for key in keys if key in config}
    return found, {"model_type": files.config.get("model_type"), **about}


def _stored_by(reader: GgufCheckpoint) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "type": reader.type_name(name),
            "shape": list(reader.shape(name)),
            "bytes": reader.nbytes(name),
        }
        for name in reader.names()
    }


def _stored_in_gguf(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Of a file that is not read."""
    import gguf

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = read_header(data)
    except (OSError, ValueError) as error:
        raise CheckpointError(str(path), None, str(error), "Download it again") from error
    names = {kind.value: kind.name for kind in gguf.GGMLQuantizationType}
    names |= {Q2_0: "Q2_0", I2_S: "I2_S", **{n: what[0] for n, what in REFUSED.items()}}
    return {
        info.name: {
            "type": names.get(info.type, f"type {info.type}"),
            "shape": list(info.shape),
            "bytes": None,
        }
        for info in header.tensors
    }, {}


def _layers(
    reader: Checkpoint, stored: dict[str, dict[str, Any]], errors: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    found = []
    for name in reader.layer_names:
        parts = {part: stored.get(f"{name}.{part}") for part in _PARTS}
        weight = parts["packed"] or parts["weight"]
        assert weight is not None
        size = sum(
            facts["bytes"] for part in _WEIGHT_AND_SCALE if (facts := parts[part]) is not None
        )
        layer = {
            "name": name,
            "type": weight["type"] if reader.format == "gguf" else _KINDS[reader.format],
            "shape": weight["shape"],
            "weights": 0,
            "weight_bytes": size,
        }
        try:
            tensor = reader.layer(name, _outputs_of(reader, name))
        except CheckpointError as error:
            errors.append(describe(error))
            found.append({**layer, "error": message(error)})
            continue
        found.append({**layer, **_decoded(tensor)})
    return found


def _outputs_of(reader: Checkpoint, name: str) -> int | None:
    """Output features of a layer whose file does not say them."""
    return None if isinstance(reader, GgufCheckpoint) else outputs_of(reader).get(name)


def _decoded(tensor: TernaryTensor) -> dict[str, Any]:
    scale = tensor.scale
    kind = "one" if scale.numel() == 1 else "per output"
    if tensor.group_size is not None:
        kind = f"per {tensor.group_size} inputs"
    weights = tensor.out_features * tensor.in_features
    return {
        "shape": [tensor.out_features, tensor.in_features],
        "weights": weights,
        "zeros": round(1 - int(tensor.trits.count_nonzero()) / weights, 4),
        "scales": kind,
        "scale_min": float(scale.min()),
        "scale_max": float(scale.max()),
        "bias": tensor.bias is not None,
        "rms_norm": tensor.rms_norm is not None,
        "activation": tensor.activation,
    }


def _targets(reader: Checkpoint, path: Path) -> dict[str, str | None]:
    """Formats, each with why it does not hold the checkpoint, or None where it does."""
    return {format: _refusal(reader, path, format) for format in FORMATS}


def _refusal(reader: Checkpoint, path: Path, format: str) -> str | None:
    try:
        prepare_conversion(reader, path, format)
    except FabricError as error:
        return message(error)
    return None
