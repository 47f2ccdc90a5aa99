"""The package's errors, one hierarchy under FabricError. Other errors are Python's or torch's.

Messages say what was given, what is allowed, and where. After an error the device is as it was
before the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class FabricError(Exception):
    """Base of the package's errors."""

    #: Byte offset or address of the fault, if it is known.
    offset: int | None = None


class ArgumentError(FabricError, ValueError):
    """A value outside what a call allows."""


class EncodingError(FabricError, ValueError):
    """Bytes that are not PT-5 codes, or values that are not trits; ``offset`` is the first one's."""


class GeometryError(FabricError, ValueError):
    """A device configuration that cannot be built."""


class AddressError(FabricError, ValueError):
    """An address outside the map, misaligned, or across a region's end."""


class DescriptorError(FabricError, ValueError):
    """A task descriptor that the device cannot run."""


class PlacementError(FabricError):
    """No room in Bank A, or an overlap with another layer's given address."""


class ClosedError(FabricError):
    """A device that was closed, or a layer that has left its device."""


class MismatchError(FabricError):
    """The two drivers of a lockstep device disagree; the message says where."""


class ConversionError(FabricError, TypeError):
    """A module that convert cannot take right. ``path`` is where it lies in the model, ``reason`` why,
    and ``remedy`` what to do."""

    def __init__(self, path: str, kind: str, reason: str, remedy: str) -> None:
        super().__init__(f"{path!r} ({kind}): {reason}. {remedy}.")
        self.path, self.kind, self.reason, self.remedy = path, kind, reason, remedy

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        return type(self), (self.path, self.kind, self.reason, self.remedy)


class CheckpointError(FabricError, ValueError):
    """A model file that cannot be read, written or loaded right. ``file`` and ``tensor`` say where
    (``tensor`` is None where it is the file as a whole), ``reason`` why, and ``remedy`` what to do;
    ``offset`` is the byte of the tensor's data, where one is at fault."""

    def __init__(
        self, file: str, tensor: str | None, reason: str, remedy: str, offset: int | None = None
    ) -> None:
        where = file if tensor is None else f"{file}: {tensor!r}"
        super().__init__(f"{where}: {reason}. {remedy}.")
        self.file, self.tensor, self.reason, self.remedy = file, tensor, reason, remedy
        self.offset = offset

    def __reduce__(self) -> tuple[type, tuple[str, str | None, str, str, int | None]]:
        return type(self), (self.file, self.tensor, self.reason, self.remedy, self.offset)


# One class per code of cpp/format/include/tfmbs/format/error.hpp.
_CLASSES: dict[str, type[FabricError]] = {
    "invalid_argument": ArgumentError,
    "encoding": EncodingError,
    "geometry": GeometryError,
    "address": AddressError,
    "descriptor": DescriptorError,
    "placement": PlacementError,
    "gone": ClosedError,
    "closed": ClosedError,
    "mismatch": MismatchError,
}

# Torch ops can raise only RuntimeError, so their messages begin with the code.
_OP_MESSAGE = re.compile(r"\[tfmbs:(\w+)\] (.*)", re.DOTALL)


def from_code(code: str, message: str, offset: int | None) -> FabricError:
    """The exception for an error code of the C++ core."""
    error = _CLASSES.get(code, FabricError)(message)
    error.offset = offset
    return error


def from_status(status: int, message: str) -> FabricError:
    """The exception for a status of the C interface: one more than the code's place in the list."""
    codes = ["invalid_argument", "encoding", "geometry", "address", "descriptor", "placement",
             "gone", "closed", "", "", "mismatch"]  # fmt: skip
    return from_code(codes[status - 1] if 0 < status <= len(codes) else "", message, None)


def from_op(error: BaseException) -> FabricError | None:
    """The exception that a torch op's error stands for, or None where it is not the fabric's."""
    found = _OP_MESSAGE.search(str(error))
    return None if found is None else from_code(found[1], found[2].strip(), None)


def raise_own(error: BaseException) -> None:
    """Raises the fabric's exception that a torch op's error stands for, if it stands for one."""
    own = from_op(error)
    if own is None:
        return
    try:
        raise own from None
    finally:
        del own  # its traceback holds this frame: a cycle that would keep the caller's layer alive


@contextmanager
def as_own() -> Iterator[None]:
    """Raises the fabric's exceptions for what torch ops raise inside."""
    try:
        yield
    except RuntimeError as error:
        raise_own(error)
        raise
