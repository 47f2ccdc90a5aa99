"""What the machine can do at most, measured beside the contestants: it drifts as they do."""

from __future__ import annotations

import ctypes

import numpy as np

from . import libraries
from .machine import last_level_cache

TARGET = "tfmbs_ceilings"
LIBRARY = libraries.path_of("kernels", TARGET)

DOT_PRODUCT = "dot product, vpdpbusd"
DOT_PRODUCT_AVXVNNI = "dot product, vpdpbusd, 256 bits"
DOT_PRODUCT_AVX2 = "dot product, vpmaddubsw and vpmaddwd"
TRIT_DOT_PRODUCT_AVX2 = "dot product, vpmaddubsw in 16 bits"
BIT_PLANES = "bit planes, vpopcntq"
FP32 = {"avx512": "fp32 FMA, 512 bits", "avx2": "fp32 FMA, 256 bits"}
# Name: function of cpp/kernels/bench/ceilings.hpp, items being products.
PRODUCTS = {
    DOT_PRODUCT: "tfmbs_dot_products_avx512",
    DOT_PRODUCT_AVXVNNI: "tfmbs_dot_products_avxvnni",
    DOT_PRODUCT_AVX2: "tfmbs_dot_products_avx2",
    TRIT_DOT_PRODUCT_AVX2: "tfmbs_trit_dot_products_avx2",
    BIT_PLANES: "tfmbs_bit_plane_products_avx512",
    FP32["avx512"]: "tfmbs_fp32_products_avx512",
    FP32["avx2"]: "tfmbs_fp32_products_avx2",
}
AVX2_NAMES = {name for name, function in PRODUCTS.items() if function.endswith("avx2")}
READ_MEMORY = "read, beyond the cache"
READ_MIB = (1, 4, 12)
COLD_FACTOR = 8  # of the last-level cache: what is that large comes from memory


class Ceilings:
    """Rates of `threads` threads: items or bytes a second."""

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
        names = AVX2_NAMES if kernels == "avx2" else PRODUCTS
        self._functions = {
            name: ctypes.cast(getattr(library, function), ctypes.c_void_p)
            for name, function in PRODUCTS.items()
            if name in names
        }
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
