"""ggml's ternary types, through its C interface: a graph of one ggml_mul_mat, so that quantizing
activations and sharing work among threads are its own."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_bool, c_float, c_int, c_int64, c_size_t, c_uint8, c_void_p
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from .base import Call, Contestant, Layer, Unavailable, Weights

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("GGML_LIBRARIES", ROOT / ".venv-bench" / "ggml"))
F32, TQ1_0, TQ2_0 = 0, 34, 35  # enum ggml_type
BLOCK = 256  # depths that share a scale
SUCCESS = 0


class InitParams(ctypes.Structure):
    _fields_: ClassVar = [("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool)]


class Plan(ctypes.Structure):
    _fields_: ClassVar = [
        ("work_size", c_size_t),
        ("work_data", POINTER(c_uint8)),
        ("threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_data", c_void_p),
        ("use_ref", c_bool),
    ]


def load(build: str) -> tuple[Any, Any]:
    """libggml-base and libggml-cpu of one of the builds, `native` or `avx2`."""
    folder = FOLDER / build / "lib"
    if not folder.is_dir():
        raise Unavailable(f"{folder} is missing: scripts/make-bench-venv.sh builds it")
    base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
    cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"))
    signatures = {
        base: {
            "ggml_init": (c_void_p, InitParams),
            "ggml_free": (None, c_void_p),
            "ggml_new_tensor_2d": (c_void_p, c_void_p, c_int, c_int64, c_int64),
            "ggml_mul_mat": (c_void_p, c_void_p, c_void_p, c_void_p),
            "ggml_new_graph": (c_void_p, c_void_p),
            "ggml_build_forward_expand": (None, c_void_p, c_void_p),
            "ggml_get_data": (c_void_p, c_void_p),
            "ggml_nbytes": (c_size_t, c_void_p),
            "ggml_tensor_overhead": (c_size_t,),
            "ggml_graph_overhead": (c_size_t,),
            "ggml_quantize_chunk": (
                c_size_t, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, POINTER(c_float),
            ),
        },
        cpu: {
            "ggml_cpu_init": (None,),
            "ggml_graph_plan": (Plan, c_void_p, c_int, c_void_p),
            "ggml_graph_compute": (c_int, c_void_p, POINTER(Plan)),
        },
    }  # fmt: skip
    for library, functions in signatures.items():
        for name, (result, *arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    cpu.ggml_cpu_init()
    return base, cpu


class Context:
    """ggml's arena, freed with the object."""

    def __init__(self, base: Any, size: int) -> None:
        self.base = base
        self.pointer = base.ggml_init(InitParams(size, None, False))
        if not self.pointer:
            raise MemoryError(f"ggml_init of {size} bytes")

    def tensor(self, kind: int, columns: int, rows: int) -> int:
        found: int = self.base.ggml_new_tensor_2d(self.pointer, kind, columns, rows)
        return found

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self.base.ggml_free(self.pointer)


class TensorLayer(Layer):
    def __init__(self, peer: Ggml, weights: Weights) -> None:
        base = peer.base
        self.peer, self.outputs, self.depth = peer, weights.outputs, weights.depth
        # TQ1_0 and TQ2_0 are below 3 bits per weight.
        size = weights.trits.size * 3 // 8 + base.ggml_tensor_overhead() + 4096
        self.context = Context(base, size)
        self.tensor = self.context.tensor(peer.kind, weights.depth, weights.outputs)
        data = base.ggml_get_data(self.tensor)
        self.weight_bytes = base.ggml_nbytes(self.tensor)
        key = peer.name
        if key not in weights.shared:
            floats = weights.floats()
            base.ggml_quantize_chunk(
                peer.kind, floats.data_ptr(), data, 0, weights.outputs, weights.depth, None
            )
            weights.shared[key] = ctypes.string_at(data, self.weight_bytes)
        else:
            ctypes.memmove(data, weights.shared[key], self.weight_bytes)

    def bind(self, x: Tensor) -> Call:
        base, cpu, rows = self.peer.base, self.peer.cpu, x.shape[0]
        size = 4 * rows * (self.depth + self.outputs) + base.ggml_graph_overhead() + 65536
        context = Context(base, size)
        activations = context.tensor(F32, self.depth, rows)
        ctypes.memmove(base.ggml_get_data(activations), x.data_ptr(), 4 * x.numel())
        product = base.ggml_mul_mat(context.pointer, self.tensor, activations)
        graph = base.ggml_new_graph(context.pointer)
        base.ggml_build_forward_expand(graph, product)
        plan = cpu.ggml_graph_plan(graph, self.peer.threads, None)
        work = np.empty(max(1, plan.work_size), np.uint8)
        plan.work_data = ctypes.cast(work.ctypes.data, POINTER(c_uint8))
        pointer = ctypes.cast(base.ggml_get_data(product), POINTER(c_float))
        output = np.ctypeslib.as_array(pointer, (rows, self.outputs))
        compute, reference = cpu.ggml_graph_compute, ctypes.byref(plan)
        kept = context, work, plan, self

        def call() -> Any:
            status = compute(graph, reference)
            if status != SUCCESS:
                raise RuntimeError(f"ggml_graph_compute: status {status}, {len(kept)} kept")
            return output

        return call


class Ggml(Contestant):
    activation = "int8"
    package = "llama-cpp-python"
    tolerance = 2e-2
    holdable = ("avx2",)
    kind: ClassVar[int]

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels, held)
        self.base, self.cpu = load("avx2" if held else "native")

    def build(self, weights: Weights) -> Layer:
        if weights.depth % BLOCK:
            raise Unavailable(f"needs depths in multiples of {BLOCK}")
        return TensorLayer(self, weights)


class Tq1(Ggml):
    name = "ggml TQ1_0"
    kind = TQ1_0


class Tq2(Ggml):
    name = "ggml TQ2_0"
    kind = TQ2_0
