"""What the machine can do at most, measured beside the contestants: it drifts as they do."""

from __future__ import annotations

import ctypes

import numpy as np

from . import libraries
from .machine import last_level_cache
from .variants import VARIANTS

TARGET = "tfmbs_ceilings"
LIBRARY = libraries.path_of("kernels", TARGET)

READ_MEMORY = "read, beyond the cache"
READ_MIB = (1, 4, 12)
COLD_FACTOR = 8  # of the last-level cache: what is that large comes from memory


class Ceilings:
    """Rates of `threads` threads, items or bytes a second: the peaks of an ISA variant and of its
    parents, and reading."""

    def __init__(self, threads: int, kernels: str, seconds: float = 1e-3) -> None:
        library = libraries.load("TFMBS_CEILINGS", LIBRARY, TARGET)
        self._rate = library.tfmbs_rate
        self._rate.restype = ctypes.c_double
        self._rate.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_double]
        self._read_rate = library.tfmbs_read_rate
        self._read_rate.restype = ctypes.c_double
        self._read_rate.argtypes = [
            ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_double,
        ]  # fmt: skip
        self.threads, self.seconds = threads, seconds
        peak_of = library.tfmbs_peak
        peak_of.restype, peak_of.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
        found = {
            peak.name: peak_of(peak.key.encode())
            for variant in VARIANTS[kernels].line()
            for peak in variant.own_peaks.values()
        }
        self._functions = {name: function for name, function in found.items() if function}
        data = np.ones(COLD_FACTOR * last_level_cache(), np.uint8)
        self._data = data
        self._sizes = {f"read, {mib} MiB": mib << 20 for mib in READ_MIB}
        self._sizes[READ_MEMORY] = data.nbytes

    def measure(self) -> dict[str, float]:
        """Of now; 0 where the CPU lacks the instructions."""
        found = {
            name: self._rate(function, self.threads, self.seconds)
            for name, function in self._functions.items()
        }
        for name, size in self._sizes.items():
            found[name] = self._read_rate(self._data.ctypes.data, size, self.threads, self.seconds)
        return found
