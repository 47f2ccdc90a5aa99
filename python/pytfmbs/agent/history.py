"""The observations that an agent decides from, kept and stored."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import LayerRecord, TelemetryError

FORMAT = "pytfmbs-agent-history"
VERSION = 1
MAX_OBSERVATIONS = 256  # the oldest go


@dataclass(frozen=True)
class Observation:
    """What one source said at one time. source: "profile", "hints", "model" or "module"."""

    source: str
    layers: tuple[LayerRecord, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"source": self.source, "layers": [record.to_dict() for record in self.layers]}

    @classmethod
    def from_dict(cls, value: Any) -> Observation:
        if not isinstance(value, dict) or not isinstance(value.get("layers"), list):
            raise TelemetryError("an observation is an object with a list 'layers'")
        source = value.get("source")
        if not isinstance(source, str):
            raise TelemetryError(f"'source' of an observation is {source!r}; it must be a string")
        return cls(source, tuple(LayerRecord.from_dict(layer) for layer in value["layers"]))


class History:
    """Observations, oldest first."""

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._observations = list(observations)[-MAX_OBSERVATIONS:]

    def __len__(self) -> int:
        return len(self._observations)

    def __iter__(self) -> Iterator[Observation]:
        return iter(self._observations)

    def __getitem__(self, index: int) -> Observation:
        return self._observations[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, History) and self._observations == other._observations

    __hash__ = None  # type: ignore[assignment]

    def add(self, observation: Observation) -> None:
        self._observations = [*self._observations, observation][-MAX_OBSERVATIONS:]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON, whole or not at all. Raises OSError."""
        target = Path(path)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "observations": [observation.to_dict() for observation in self],
        }
        # Beside the target, since a rename is atomic only within a file system.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> History:
        """Reads what save wrote. Raises OSError; TelemetryError for a file of another kind or
        version, or a broken one."""
        where = os.fspath(path)
        try:
            content = json.loads(Path(path).read_bytes())
        except (ValueError, RecursionError) as error:
            raise TelemetryError(f"{where} is not JSON: {error}") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise TelemetryError(f"{where} is not a history: its 'format' is not {FORMAT!r}")
        version = content.get("version")
        if version != VERSION or isinstance(version, bool):
            raise TelemetryError(
                f"{where} is a history of version {version!r}; this pytfmbs reads version {VERSION}"
            )
        observations = content.get("observations")
        if not isinstance(observations, list):
            raise TelemetryError(f"{where}: 'observations' must be a list")
        try:
            return cls(Observation.from_dict(value) for value in observations)
        except TelemetryError as error:
            raise TelemetryError(f"{where}: {error}") from error
