"""MLIR modules as functions of this process: lowered, compiled to an object, linked, called."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import os
import re
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pytfmbs import errors
from pytfmbs._fabric import Fabric, FabricConfig
from pytfmbs.ops.libraries import runtime_library

from ..emission.module import MlirModule
from ..toolchain import pipelines
from ..toolchain.programs import NO_OP_DUMPS, CompilationError, Toolchain, ToolNotFoundError
from . import signature
from .signature import Signature, TensorType

_LIBRARY_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
_BFLOAT16 = Path(__file__).with_name("bfloat16.ll")
_OPT_LEVELS = range(4)

Target = Literal["linalg", "runtime"]


class CompiledModule:
    """A function of a compiled module. Call it with what its signature says.

    Made by :func:`compile_module`. Arguments are torch tensors or NumPy arrays of the types and
    shapes of ``inputs``; results are tensors if one argument is a tensor, else arrays: one alone,
    several as a tuple. No gradient flows through it. Threads may call it at once.

    ``close()``, ``with`` and the end of its life release its layers and unload it.
    """

    def __init__(self, library: Path, function: Signature, target: Target, fabric: Fabric | None):
        self._function = function
        self._target = target
        self._fabric = fabric  # stays open for as long as the module may run on it
        self._loaded = _Loaded(library, function.entry, target)
        self._finalizer = weakref.finalize(self, self._loaded.close)
        self._finalizer.atexit = False  # a thread may be in there when the process ends

    @property
    def entry(self) -> str:
        """The function's name."""
        return self._function.entry

    @property
    def inputs(self) -> tuple[TensorType, ...]:
        return self._function.inputs

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        return self._function.outputs

    @property
    def target(self) -> Target:
        return self._target

    @property
    def fabric(self) -> Fabric | None:
        """The device that was given; None is the process's default one."""
        return self._fabric

    @property
    def closed(self) -> bool:
        return self._loaded.closed

    def __call__(self, *arrays: Any) -> Any:
        """Runs the function.

        Raises:
            TypeError, ValueError: another number of arguments, another type, another shape.
            FabricError: what the fabric has to say; after it nothing was returned.
            ClosedError: the module was closed.
        """
        arguments = signature.Arguments(self._function, arrays)
        results = signature.Results(self._function.outputs)
        with self._loaded.running() as run:
            try:
                run(results.descriptors, *arguments.descriptors)
                outputs = results.arrays(arguments.torch)
            finally:
                results.free(_FREE)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def close(self) -> None:
        """Releases the module's layers and unloads it, when the calls that run now have ended."""
        self._finalizer()

    def __enter__(self) -> CompiledModule:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<CompiledModule {self._function}, target={self._target!r}{state}>"


_LOADED: weakref.WeakSet[_Loaded] = weakref.WeakSet()


def _after_fork() -> None:
    for loaded in list(_LOADED):
        loaded.forget_callers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Loaded:
    """A loaded library, and who is in it."""

    def __init__(self, library: Path, entry: str, target: Target) -> None:
        self._library = ctypes.CDLL(str(library))
        self._handle = self._library._handle
        self._function: Any = self._library[f"_mlir_ciface_{entry}"]
        self._function.restype = None
        self._runtime = _Runtime() if target == "runtime" else None
        self._state = threading.Condition()
        self._calls = 0
        self.closed = False
        _LOADED.add(self)

    def forget_callers(self) -> None:
        """In a forked child: the threads that were in a call, or held the lock, are not there."""
        self._state = threading.Condition()
        self._calls = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[Any]:
        with self._state:
            if self.closed:
                raise errors.ClosedError("the compiled module is closed")
            self._calls += 1
        try:
            yield self._run
        finally:
            with self._state:
                self._calls -= 1
                self._state.notify_all()

    def _run(self, *descriptors: Any) -> None:
        arguments = [ctypes.byref(descriptor) for descriptor in descriptors]
        if self._runtime is None:
            self._function(*arguments)
        else:
            self._runtime.clear_error()
            self._function(*arguments)
            self._runtime.raise_error()

    def close(self) -> None:
        with self._state:
            if self.closed:
                return
            self.closed = True
            self._state.wait_for(lambda: self._calls == 0)
        with contextlib.suppress(AttributeError):  # there where the module has layers of its own
            self._library.tfmbs_release()
        self._function = None
        _ctypes.dlclose(self._handle)


class _Runtime:
    """The C interface's account of errors, a thread at a time."""

    def __init__(self) -> None:
        library = ctypes.CDLL(str(runtime_library()))
        self.clear_error = library.tfmbs_clear_error
        self.clear_error.restype = None
        self._last_error = library.tfmbs_last_error
        self._last_error.restype = ctypes.c_char_p
        self._last_error.argtypes = [ctypes.POINTER(ctypes.c_int32)]

    def raise_error(self) -> None:
        code = ctypes.c_int32(0)
        message = self._last_error(ctypes.byref(code))
        if code.value:
            self.clear_error()
            raise errors.from_status(code.value, (message or b"").decode(errors="replace"))


def _c_free() -> Any:
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    free.restype = None
    return free


_FREE = _c_free()


def compile_module(
    module: str | os.PathLike[str] | MlirModule,
    *,
    target: Target = "linalg",
    fabric: Fabric | None = None,
    config: FabricConfig | None = None,
    place: bool = False,
    opt_level: int = 3,
    keep: str | os.PathLike[str] | None = None,
    toolchain: Toolchain | None = None,
    entry: str | None = None,
) -> CompiledModule:
    """Compiles an MLIR module for this machine and loads it.

    Args:
        module: MLIR as text, the path of a .mlir or .mlirbc file, or what ``to_mlir`` returns.
        target: "linalg" computes with standard dialects alone; "runtime" calls libtfmbs, so that
            layers run on the fabric and count there.
        fabric: the device of target "runtime"; None is the process's default one.
        config: the geometry to place on; None is the fabric's. With a fabric it must be the
            fabric's own.
        place: gives every layer its address and tile mask before (tfmbs-place).
        opt_level: 0 to 3, of LLVM. Results do not depend on it.
        keep: a folder in which the files of every stage stay; None leaves nothing.
        toolchain: where MLIR's programs and the plugin are; None looks for them.
        entry: the function to call; None is the only public one, or "main", or "forward".

    Raises:
        ToolNotFoundError: something that compiling needs is missing. CompilationError: the module
        does not compile; it holds the tool's diagnostics. TypeError, ValueError: as named.
    """
    if target not in ("linalg", "runtime"):
        raise ValueError(f"target is {target!r}; allowed are 'linalg' and 'runtime'")
    if not isinstance(opt_level, int) or opt_level not in _OPT_LEVELS:
        raise ValueError(f"opt_level is {opt_level!r}; allowed are 0 to 3")
    if fabric is not None and not isinstance(fabric, Fabric):
        raise TypeError(f"fabric must be a pytfmbs.Fabric or None, not {type(fabric).__name__}")
    if fabric is not None and target != "runtime":
        raise ValueError("fabric= is for target='runtime'; target='linalg' runs on no device")
    if config is not None and not isinstance(config, FabricConfig):
        raise TypeError(f"config must be a FabricConfig or None, not {type(config).__name__}")
    if fabric is not None and config is not None and config != fabric.config:
        raise ValueError(f"config is {config}, and the fabric's is {fabric.config}; give one")
    tools = toolchain or Toolchain()
    with contextlib.ExitStack() as stack:
        if keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tfmbs-")))
        else:
            folder = Path(keep)
            folder.mkdir(parents=True, exist_ok=True)
        source = source_file(module, folder)
        if entry is None and isinstance(module, MlirModule):
            entry = module.function_name
        plugin, missing = _plugin_flags(tools, needed=target == "runtime" or place)
        try:
            generic = _generic_form(tools, source, plugin)
            function = signature.parse(generic, entry)
            passes = _passes(target, fabric, config, place, bool(plugin))
            lowered = folder / "lowered.mlir"
            tools.run("mlir-opt", *plugin, passes, NO_OP_DUMPS, str(source), "-o", str(lowered))
            library = _build(tools, lowered, "bf16" in generic, target, opt_level)
        except CompilationError as error:
            if missing is not None and _PLUGIN_WORK.search(error.diagnostics):
                raise missing from error
            raise
        return CompiledModule(library, function, target, fabric)


def source_file(module: str | os.PathLike[str] | MlirModule, folder: Path) -> Path:
    """The module in a file."""
    if isinstance(module, os.PathLike):
        return _existing(Path(module))
    text = module.text if isinstance(module, MlirModule) else module
    if not isinstance(text, str):
        raise TypeError(
            "module must be MLIR text, the path of an MLIR file or an MlirModule, not "
            f"{type(module).__name__}"
        )
    if "\n" not in text and text.strip().endswith((".mlir", ".mlirbc")):
        return _existing(Path(text.strip()))
    path = folder / "module.mlir"
    path.write_text(text, encoding="utf-8")
    return path


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"no MLIR module at {path}")
    return path


#: What the tools say of a module that needs the plugin, where it was not loaded: an op or type of
#: the dialect, or a copy between buffers with gaps, which the plugin's tfmbs-lower-copies takes.
_PLUGIN_WORK = re.compile(r"tfmbs|memrefCopy")


def _plugin_flags(tools: Toolchain, needed: bool) -> tuple[list[str], ToolNotFoundError | None]:
    """The plugin's flags, or why there are none: a module of standard dialects needs no plugin."""
    try:
        return tools.plugin_flags(), None
    except ToolNotFoundError as error:
        if needed or tools.plugin is not None or os.environ.get("TFMBS_MLIR_PLUGIN"):
            raise
        return [], error


def _generic_form(tools: Toolchain, source: Path, plugin: list[str]) -> str:
    return tools.run(
        "mlir-opt", *plugin, str(source), NO_OP_DUMPS, "--mlir-print-op-generic",
        "--mlir-elide-elementsattrs-if-larger=4", "--mlir-elide-resource-strings-if-larger=4",
    )  # fmt: skip


def _passes(
    target: Target,
    fabric: Fabric | None,
    config: FabricConfig | None,
    place: bool,
    have_plugin: bool,
) -> str:
    placement = None
    if place:
        config = config or (FabricConfig() if fabric is None else fabric.config)
        placement = pipelines.place(config.tiles, config.lanes, config.bank_depth)
    if target == "runtime":
        passes = pipelines.to_runtime("" if fabric is None else fabric.spec, placement)
    elif have_plugin or place:
        passes = pipelines.to_linalg(placement)
    else:
        passes = pipelines.TO_LLVM_FROM_LINALG
    return f"--pass-pipeline={pipelines.module_pipeline(*passes)}"


def _build(tools: Toolchain, lowered: Path, bfloat16: bool, target: Target, level: int) -> Path:
    """LLVM's dialect to a shared library, a file a stage."""
    folder = lowered.parent
    ir, bitcode = folder / "module.ll", folder / "module.bc"
    library = folder / f"module{_LIBRARY_SUFFIX}"
    tools.run("mlir-translate", "--mlir-to-llvmir", str(lowered), "-o", str(ir))
    # The host's instructions, and nothing that changes a result: operations without fast-math flags
    # are neither contracted nor reordered by any -O.
    triple = tools.host_triple()
    host = [f"-mtriple={triple}", "-mcpu=native", f"-O{level}"]
    if bfloat16 and triple.startswith("x86_64"):
        host.append("-mattr=-avx512bf16,-avxneconvert")  # they take subnormal numbers for zero
    tools.run("opt", *host, str(ir), "-o", str(bitcode))
    objects = []
    for source in [bitcode, *([_BFLOAT16] if bfloat16 else [])]:
        objects.append(str(folder / f"{source.stem}.o"))
        tools.run(
            "llc", *host, "-filetype=obj", "-relocation-model=pic", str(source), "-o", objects[-1]
        )
    flags = ["-shared", *objects, "-o", str(library)]
    if target == "runtime":
        runtime = runtime_library()
        flags += [str(runtime), "-Xlinker", "-rpath", "-Xlinker", str(runtime.parent)]
    if sys.platform != "darwin":
        # A call of what nobody defines is an error here; and a name of the module's own is its own.
        flags += ["-Wl,--no-undefined", "-Wl,-Bsymbolic"]
    tools.run("linker", *flags, "-lm")
    return library
