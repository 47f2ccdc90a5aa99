"""Folders of safetensors files, sharded or not, with their config.json. Opened by ``safetensors``,
memory-mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from .codes import forget_pages

INDEX = "model.safetensors.index.json"
#: Of a config.json or an index; a model's takes kilobytes.
MAX_JSON_BYTES = 64 << 20

_FLOATS = {"F64", "F32", "F16", "BF16"}
_AGAIN = "Download or save it again"


class TensorFiles:
    """The tensors of a safetensors file, or of a folder of them.

    Raises CheckpointError for files that cannot be read, an index that leads elsewhere, and a tensor
    that is missing or in two files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path if path.is_dir() else path.parent
        self.config = read_json(self.folder / "config.json", missing={})
        self._open: dict[str, Any] = {}
        self._read: set[str] = set()
        self._file_of: dict[str, str] = {}
        wanted: dict[str, str] = {}
        files = self._files_of_folder(wanted) if path.is_dir() else [path.name]
        for file in files:
            self._open[file] = _open(self.folder / file)
            for name in self._open[file].keys():  # noqa: SIM118
                if name in self._file_of:
                    raise CheckpointError(
                        str(self.folder / file),
                        name,
                        f"the tensor is in {self._file_of[name]!r} too",
                        "Keep one of the two",
                    )
                self._file_of[name] = file
        for name, file in wanted.items():
            if self._file_of.get(name) != file:
                raise CheckpointError(
                    str(self.folder / file), name, f"{INDEX} names it, and it is not there", _AGAIN
                )

    def _files_of_folder(self, wanted: dict[str, str]) -> list[str]:
        if (self.folder / INDEX).exists():
            index = read_json(self.folder / INDEX)
            entries = index.get("weight_map")
            if not isinstance(entries, dict) or not all(
                isinstance(file, str) for file in entries.values()
            ):
                raise self.error(None, f"{INDEX} has no weight_map of names", _AGAIN)
            for file in entries.values():
                if Path(file).name != file or file in ("", ".", ".."):
                    raise self.error(
                        None, f"{INDEX} leads out of the folder: {file!r}", "Do not trust this file"
                    )
            wanted.update(entries)
            return sorted(set(entries.values()))
        found = sorted(file.name for file in self.folder.glob("*.safetensors"))
        if "model.safetensors" in found:
            return ["model.safetensors"]
        if len(found) != 1:
            raise self.error(
                None,
                f"the folder has {len(found)} safetensors files, and no {INDEX}",
                "Give the path of one file, or a folder with an index",
            )
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def names(self) -> list[str]:
        return list(self._file_of)

    def file_of(self, name: str | None) -> str:
        """The path of the file that has a tensor, or of the checkpoint."""
        file = None if name is None else self._file_of.get(name)
        return str(self.path if file is None else self.folder / file)

    def error(
        self, tensor: str | None, reason: str, remedy: str, offset: int | None = None
    ) -> CheckpointError:
        return CheckpointError(self.file_of(tensor), tensor, reason, remedy, offset)

    def shape(self, name: str) -> tuple[int, ...]:
        self._require(name)
        return tuple(self._open[self._file_of[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """As safetensors spells it: "F32", "BF16", "U8", …"""
        self._require(name)
        return str(self._open[self._file_of[name]].get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """A view of the mapped file. Raises CheckpointError for one that is not there."""
        self._require(name)
        try:
            found = self._open[self._file_of[name]].get_tensor(name)
        except Exception as error:
            raise self.error(name, f"safetensors cannot read it: {error}", _AGAIN) from error
        assert isinstance(found, Tensor)
        self._read.add(name)
        return found

    def forget(self) -> None:
        """As Checkpoint's."""
        for name in self._read:
            forget_pages(self._open[self._file_of[name]].get_tensor(name))
        self._read.clear()

    def floats(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor that must be of a float dtype and of that shape."""
        if self.dtype(name) not in _FLOATS or self.shape(name) != shape:
            raise self.error(
                name,
                f"it is {self.dtype(name)} of shape {self.shape(name)}; a float tensor of shape "
                f"{shape} is needed",
                _AGAIN,
            )
        return self.tensor(name)

    def _require(self, name: str) -> None:
        if name not in self._file_of:
            raise CheckpointError(str(self.path), name, "the tensor is missing", _AGAIN)


def _open(path: Path) -> Any:
    from safetensors import safe_open

    try:
        return safe_open(str(path), framework="pt", device="cpu")
    except Exception as error:  # SafetensorError, OSError
        raise CheckpointError(
            str(path), None, f"safetensors cannot open it: {error}", _AGAIN
        ) from error


def read_json(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """The object of a JSON file; ``missing`` where there is no file. Raises CheckpointError."""
    if missing is not None and not path.exists():
        return missing
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes; at most {MAX_JSON_BYTES}")
        value = json.loads(path.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), None, f"not readable: {error}", _AGAIN) from error
    return value
