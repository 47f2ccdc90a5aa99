"""The pass pipelines, one home of each, as mlir-opt takes them.

Nothing here relaxes floating point: no fast-math flags, no contraction, no approximations by other
functions, so that every operation of a module is rounded once, as IEEE 754 says.
"""

from __future__ import annotations

import re

#: Every tfmbs op to standard dialects.
TO_LINALG = ("tfmbs-to-linalg",)

# Callers see C functions: _mlir_ciface_<name>, results through the first pointer. Asked for before
# any pass declares a function of somebody else's, for those have no such wrapper.
_C_WRAPPERS = ("func.func(llvm-request-c-wrappers)",)

#: Tensors to buffers. Arguments and results are contiguous, a caller owns what it gets.
BUFFERIZE = (
    "convert-elementwise-to-linalg",
    "convert-tensor-to-linalg",
    "eliminate-empty-tensors",
    "empty-tensor-to-alloc-tensor",
    "one-shot-bufferize{bufferize-function-boundaries "
    "function-boundary-type-conversion=identity-layout-map}",
)

#: Frees every buffer that does not leave the function, as soon as its last reader is done.
DEALLOCATE = (
    "buffer-deallocation-pipeline",
    "convert-bufferization-to-memref",
    "func.func(optimize-allocation-liveness)",
)

#: Buffers and linalg to LLVM's dialect.
BUFFERS_TO_LLVM = (
    "func.func(convert-linalg-to-loops)",
    "convert-scf-to-cf",
    "expand-strided-metadata",
    "lower-affine",
    "memref-expand",
    # Arithmetic on 16-bit floats is left to LLVM, which computes each operation in fp32 and rounds
    # it back: MLIR's own passes for that (arith-emulate-unsupported-floats and
    # math-extend-to-supported-types) allow the rounding between two operations to be left out.
    "arith-expand{include-bf16=true}",
    "convert-math-to-llvm{approximate-log1p=false}",
    "convert-math-to-libm",
    "convert-arith-to-llvm",
    "finalize-memref-to-llvm",
    "convert-func-to-llvm",
    "convert-cf-to-llvm",
    "convert-index-to-llvm",
    "convert-ub-to-llvm",
    "reconcile-unrealized-casts",
    "canonicalize",
    "cse",
)

#: Of the plugin; without it a module that copies between buffers with gaps does not link.
_LOWER_COPIES = ("tfmbs-lower-copies",)

#: A module of standard dialects on tensors to LLVM's dialect, without the plugin.
TO_LLVM_FROM_LINALG = (*_C_WRAPPERS, *BUFFERIZE, *DEALLOCATE, *BUFFERS_TO_LLVM)

_PLAIN_OPTION = re.compile(r"[\w./:=+;-]+")


def module_pipeline(*passes: str) -> str:
    """The passes as --pass-pipeline takes them."""
    return f"builtin.module({','.join(passes)})"


def option(value: str) -> str:
    """A string as the value of a pass's option, quoted where it has to be."""
    if _PLAIN_OPTION.fullmatch(value):
        return value
    for quote in ("'", '"'):
        if quote not in value:
            return f"{quote}{value}{quote}"
    raise ValueError(f"{value!r} holds both kinds of quotes, which no pass's option can")


def place(
    tiles: int | None = None, lanes: int | None = None, bank_depth: int | None = None,
    on_overflow: str | None = None,
) -> str:  # fmt: skip
    """The placement pass; None is the pass's default."""
    given = {
        "tiles": tiles, "lanes": lanes, "bank-depth": bank_depth, "on-overflow": on_overflow,
    }  # fmt: skip
    options = " ".join(f"{key}={value}" for key, value in given.items() if value is not None)
    return f"tfmbs-place{{{options}}}" if options else "tfmbs-place"


def to_runtime(fabric: str = "", placement: str | None = None) -> tuple[str, ...]:
    """Layers to calls of the C interface, and the rest to LLVM's dialect.

    fabric is a device's specification (``Fabric.spec``), empty for the process's default device;
    placement the placement pass, if it is to run.
    """
    options = f"{{fabric={option(fabric)}}}" if fabric else ""
    return (
        *_C_WRAPPERS,
        *((placement,) if placement else ()),
        "tfmbs-fuse",
        *BUFFERIZE,
        f"tfmbs-to-runtime{options}",
        *_LINALG_OF_THE_REST,
        *DEALLOCATE,
        *_LOWER_COPIES,
        *BUFFERS_TO_LLVM,
    )


# What no fused layer took up: a quantization or a product that stands alone.
_LINALG_OF_THE_REST = ("tfmbs-to-linalg",)


def to_linalg(placement: str | None = None) -> tuple[str, ...]:
    """Every op in standard dialects, and these to LLVM's dialect."""
    return (
        *((placement,) if placement else ()),
        *TO_LINALG,
        *_C_WRAPPERS,
        *BUFFERIZE,
        *DEALLOCATE,
        *_LOWER_COPIES,
        *BUFFERS_TO_LLVM,
    )
