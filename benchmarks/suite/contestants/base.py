"""What a contestant is: something that computes x · Wᵀ for a ternary W."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Call = Callable[[], Any]
CHECKED_ROWS, CHECKED_OUTPUTS = 8, 1024
SAMPLED = 16  # values of the weights that a forward of pytfmbs compares: cpp/runtime/src/weight_watcher.cpp


def spread(count: int, most: int) -> NDArray[np.int64]:
    """So many indices, or all, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, most, dtype=np.int64))


class Unavailable(Exception):
    """Why a contestant does not take part: as a whole, or at a shape."""


@dataclass(frozen=True, eq=False)
class Weights:
    """trits: int8 [outputs, depth] of −1, 0, +1. Layers of several contestants may be shared."""

    trits: NDArray[np.int8]
    shared: dict[str, Any] = field(default_factory=dict)
    cold: bool = False  # for one of many copies, as layers of a model that does not fit the cache

    @staticmethod
    def random(outputs: int, depth: int, seed: int = 2026) -> Weights:
        rng = np.random.default_rng(seed)
        return Weights(rng.integers(-1, 2, (outputs, depth), dtype=np.int8))

    @property
    def outputs(self) -> int:
        return int(self.trits.shape[0])

    @property
    def depth(self) -> int:
        return int(self.trits.shape[1])

    def floats(self) -> Tensor:
        """fp32, made once."""
        if "floats" not in self.shared:
            self.shared["floats"] = torch.from_numpy(self.trits.astype(np.float32))
        found: Tensor = self.shared["floats"]
        return found

    def kept_floats(self) -> Tensor:
        """For a layer that keeps the weights that it was packed from and looks at SAMPLED values of
        them. Equal to floats(), and where cold not the same: those values have memory of their own
        in each copy, as in a model, so that they are no more in the cache than there. The rest is
        mapped from one file, for whole copies would take gigabytes. Not to be written."""
        if not self.cold:
            return self.floats()
        if "file" not in self.shared:
            self.shared["file"] = self._file()
        path, count = f"/proc/self/fd/{self.shared['file'].fileno()}", self.trits.size
        found = torch.from_file(path, shared=False, size=count, dtype=torch.float32)
        values = found.numpy()
        sampled = (count - 1) * np.arange(SAMPLED) // (SAMPLED - 1)
        values[sampled] = values[sampled].copy()  # a page that is written becomes the map's own
        return found.view(self.outputs, self.depth)

    def _file(self) -> BinaryIO:
        """The floats, in memory."""
        file = os.fdopen(os.memfd_create("weights"), "wb")
        for row in self.trits:  # not all at once: of the largest layers, floats are gigabytes
            file.write(row.astype(np.float32).tobytes())
        file.flush()
        return file


class Layer(ABC):
    """One copy of the weights, in the contestant's own form."""

    weight_bytes: int  # what a product reads of the weights
    layout: str = ""

    def settle(self) -> None:  # noqa: B027
        """Called once all layers of a set are there."""

    @abstractmethod
    def bind(self, x: Tensor) -> Call:
        """The call that is timed: fp32 [rows, depth] to [rows, outputs], torch's or NumPy's. What
        a user would do once for many calls is done here."""


class Contestant(ABC):
    name: ClassVar[str]
    ours: ClassVar[bool] = False
    activation: ClassVar[str] = "fp32"  # of the product: fp32, bf16, int8 or ternary
    package: ClassVar[str] = "torch"
    # ‖y − y′‖ / ‖y‖ that the product may err by against fp64; None: to the last bit.
    tolerance: ClassVar[float | None] = 1e-5
    # The kernel sets whose instructions it can be kept to where the CPU has more.
    holdable: ClassVar[tuple[str, ...]] = ("avx2", "portable")
    hot_only: ClassVar[bool] = False
    slow: ClassVar[bool] = False  # measured only at some shapes, unless asked for

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        """held: the CPU has more than the kernel set's instructions. Raises Unavailable, or
        ImportError."""
        self.threads = threads
        if held and kernels not in self.holdable:
            raise Unavailable(f"cannot be held to {kernels}")

    @abstractmethod
    def build(self, weights: Weights) -> Layer:
        """A copy of its own, or Unavailable."""

    def enter(self) -> None:  # noqa: B027
        """Called before a block of timed calls."""

    def timed_block(self, layers: Sequence[Layer], x: Tensor) -> Callable[[int], float] | None:
        """What times so many calls of the layers in turn by itself, in seconds; None: they are
        called, and timed, from Python."""
        return None

    def reference(self, x: NDArray[np.float64], trits: NDArray[np.int8]) -> NDArray[np.float64]:
        """What the call must give."""
        return x @ trits.T.astype(np.float64)

    def check(self, call: Call, x: Tensor, weights: Weights) -> dict[str, Any]:
        """The error against the reference, at rows and outputs spread over all: the first and the
        last among them."""
        rows = spread(x.shape[0], CHECKED_ROWS)
        places = spread(weights.outputs, CHECKED_OUTPUTS)
        output = call()
        if isinstance(output, Tensor):
            output = output.to(torch.float32).numpy()
        limit = self.tolerance or 0.0
        if output.shape != (x.shape[0], weights.outputs):
            return {"error": None, "limit": limit, "ok": False}
        wanted = self.reference(x.numpy()[rows].astype(np.float64), weights.trits[places])
        found = output[np.ix_(rows, places)].astype(np.float64)
        error = float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-30)
        return {"error": error, "limit": limit, "ok": bool(error <= limit)}
