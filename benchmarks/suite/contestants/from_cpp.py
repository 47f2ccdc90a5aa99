"""pytfmbs's layers as a C++ program calls them, for the shares of the machine's limits: quantizing,
product and scale, into an output that is kept, without an interpreter between two calls."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from ctypes import c_char_p, c_double, c_size_t, c_uint64, c_void_p
from typing import Any, cast

import torch
from torch import Tensor

from .. import libraries
from .base import Call, Layer, Weights
from .ours import Int8, Ours, Trit

TARGET = "tfmbs_forwards"
LIBRARY = libraries.path_of("torch_ops", TARGET)


def load() -> ctypes.CDLL:
    """The functions of cpp/torch_ops/bench/forwards.hpp. The library uses the runtime that pytfmbs
    has loaded."""
    library = libraries.load("TFMBS_FORWARDS", LIBRARY, TARGET)
    signatures = {
        "layer_make": (c_void_p, c_void_p, c_uint64, c_uint64, c_char_p),
        "layer_free": (None, c_void_p),
        "error": (c_char_p,),
        "layer_weight_bytes": (c_uint64, c_void_p),
        "layer_layout": (c_char_p, c_void_p),
        "forwards": (
            c_double, c_void_p, c_size_t, c_size_t, c_void_p, c_size_t, c_void_p, c_size_t,
        ),
    }  # fmt: skip
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, f"tfmbs_bench_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def forwards(
    library: Any, layers: Sequence[CppLayer], x: Tensor, output: Tensor
) -> Callable[[int], float]:
    """What times so many calls, of each layer in turn; it goes on where it ended. Seconds."""
    handles = (c_void_p * len(layers))(*[layer.handle for layer in layers])
    turn = 0

    def timed(calls: int) -> float:
        nonlocal turn
        seconds: float = library.tfmbs_bench_forwards(
            handles, len(layers), turn, x.data_ptr(), x.shape[0], output.data_ptr(), calls
        )
        if seconds < 0:
            raise RuntimeError(library.tfmbs_bench_error().decode())
        turn = (turn + calls) % len(layers)
        return seconds

    return timed


class CppLayer(Layer):
    def __init__(self, library: Any, weights: Weights, activation: str) -> None:
        self.library, self.outputs = library, weights.outputs
        self.weights = weights.kept_floats()  # looked at in each call
        self.handle = library.tfmbs_bench_layer_make(
            self.weights.data_ptr(), weights.outputs, weights.depth, activation.encode()
        )
        if not self.handle:
            raise RuntimeError(library.tfmbs_bench_error().decode())
        weakref.finalize(self, library.tfmbs_bench_layer_free, self.handle)
        self.settle()

    def settle(self) -> None:
        self.bind(torch.zeros(1, self.weights.shape[1]))()
        self.weight_bytes = self.library.tfmbs_bench_layer_weight_bytes(self.handle)
        self.layout = self.library.tfmbs_bench_layer_layout(self.handle).decode()

    def bind(self, x: Tensor) -> Call:
        output = torch.empty(x.shape[0], self.outputs)
        timed = forwards(self.library, [self], x, output)

        def call() -> Tensor:
            timed(1)
            return output

        return call


class FromCpp(Ours):
    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels, held)
        self.library = load()

    def build(self, weights: Weights) -> Layer:
        return CppLayer(self.library, weights, self.activation)

    def timed_block(self, layers: Sequence[Layer], x: Tensor) -> Callable[[int], float]:
        own = cast(Sequence[CppLayer], layers)
        return forwards(self.library, own, x, torch.empty(x.shape[0], own[0].outputs))


class Int8Cpp(FromCpp, Int8):
    name = "pytfmbs int8 × ternary, from C++"


class TritCpp(FromCpp, Trit):
    name = "pytfmbs ternary × ternary, from C++"
