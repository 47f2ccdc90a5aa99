"""What every reader of checkpoints gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from .tensors import TernaryTensor


class Checkpoint(ABC):
    """A memory-mapped model file. ``layer`` decodes one ternary layer; nothing is kept.

    Every fault raises CheckpointError with file, tensor, reason and remedy.
    """

    #: "bitnet", "tfmbs" or "gguf".
    format: str
    #: The ternary layers, by the names of their weights without ".weight".
    layer_names: list[str]
    #: The other tensors: norms, embeddings, an output head.
    tensor_names: list[str]

    @property
    @abstractmethod
    def file(self) -> str:
        """The checkpoint's path, for messages."""

    @abstractmethod
    def layer(self, name: str, out_features: int | None = None) -> TernaryTensor:
        """A ternary layer. out_features: needed only where the file does not say it."""

    @abstractmethod
    def tensor(self, name: str) -> Tensor:
        """One of the other tensors, of a float dtype; a view of the file where it can be."""

    @abstractmethod
    def forget(self) -> None:
        """Gives the mapped pages of the tensors read so far back to the system. A tensor that is still
        held is read from the file again; nobody may have written to one."""

    def layers(self) -> Iterator[TernaryTensor]:
        """The ternary layers, one after the other."""
        for name in self.layer_names:
            yield self.layer(name)
