"""Any source to MLIR: modules and exported programs by way of ONNX, ONNX itself, files."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import torch
from torch import Tensor, nn

from pytfmbs._fabric import FabricConfig
from pytfmbs.quantization.quantizers import WeightQuantizer

from ..emission.module import MlirModule
from ..errors import ConversionError
from . import onnx_graph
from .importer import FloatLayers, import_onnx

Source: TypeAlias = (
    "nn.Module | torch.export.ExportedProgram | onnx.ModelProto | str | os.PathLike[str]"
)


def to_mlir(
    source: Source,
    args: Sequence[Any] | Tensor | None = None,
    *,
    weight_quantizer: str | WeightQuantizer = "sign",
    activation: str | None = None,
    float_layers: FloatLayers = "auto",
    config: FabricConfig | None = None,
    function_name: str = "main",
    outputs: Sequence[str] | None = None,
    dynamic_batch: bool = True,
) -> MlirModule:
    """A model as MLIR with ternary layers (docs/compiler.md).

    Args:
        source: an nn.Module (taken as in eval mode), a program of torch.export, an ONNX model, or
            the path of a .onnx or .pt2 file. TFMBSLinear layers come as they are, and so do
            products with weights that are ternary in the file (QDQ form).
        args: example inputs of an nn.Module, a tensor or a sequence.
        weight_quantizer: of layers that are floats in the source, as TFMBSLinear's.
        activation: of layers that have none in the source. None is "ternary" for weights that are
            floats in the source, and "int8" for those that are ternary in QDQ form.
        float_layers: what becomes of products with constant float weights (nn.Linear, MatMul,
            Gemm). "keep": they stay in floats. "quantize": they become ternary layers. "auto":
            "keep" where the model holds a ternary layer, "quantize" where it holds none.
        config: the device whose tile masks layers get; None is the default one's.
        function_name: of the function in the module.
        outputs: names of ONNX values to give instead of the graph's outputs.
        dynamic_batch: whether an nn.Module's first dimensions are any size; those of other sources
            are as they say.

    Raises:
        ConversionError, or what is under it: a model that is broken or cannot be taken. OSError: a
        file that cannot be read. TypeError: a source of another kind.
    """
    return import_onnx(
        to_onnx(source, args, dynamic_batch=dynamic_batch),
        weight_quantizer=weight_quantizer,
        activation=activation,
        float_layers=float_layers,
        config=config,
        function_name=function_name,
        outputs=outputs,
    )


def to_onnx(
    source: Source, args: Sequence[Any] | Tensor | None = None, *, dynamic_batch: bool = True
) -> onnx.ModelProto:
    """The source as ONNX, TFMBSLinear layers as the project's own operator. As to_mlir."""
    if isinstance(source, onnx.ModelProto):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix == ".pt2":
            return _export(_load_program(path), (), None)
        return onnx_graph.load(path)
    if isinstance(source, torch.export.ExportedProgram):
        return _export(source, (), None)
    if isinstance(source, nn.Module):
        if args is None:
            raise ConversionError(
                f"an nn.Module ({type(source).__name__}) needs args: example inputs to export with"
            )
        example = (args,) if isinstance(args, Tensor) else tuple(args)
        shapes: tuple[Any, ...] | None = None
        if dynamic_batch:
            example, flat = _batched(example)
            shapes = _by_parameter(source, flat)
        with _evaluating(source):
            return _export(source, example, shapes)
    raise TypeError(
        "source must be an nn.Module, a torch.export.ExportedProgram, an onnx.ModelProto or a "
        f"path, not {type(source).__name__}"
    )


def _load_program(path: Path) -> torch.export.ExportedProgram:
    with path.open("rb"):  # OSError where it cannot be read
        pass
    try:
        return torch.export.load(path)
    except Exception as error:  # torch raises all kinds for bytes that are no program
        raise ConversionError(f"{path} is no exported program: {_first_line(error)}") from error


def _export(
    source: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    dynamic_shapes: Any,
) -> onnx.ModelProto:
    # Not at the top: torch's exporter takes seconds to import.
    from pytfmbs.onnx.export import export

    try:
        program = export(source, args, mode="custom", dynamic_shapes=dynamic_shapes)
        return program.model_proto
    except Exception as error:  # torch.export and torch.onnx raise all kinds for a model's faults
        hint = ""
        if dynamic_shapes is not None and _takes(source, args):
            hint = (
                " (a model of a fixed batch needs dynamic_batch=False, --static-batch in the tools)"
            )
        raise ConversionError(
            f"{type(source).__name__} cannot be exported to ONNX: {_first_line(error)}{hint}"
        ) from error


def _takes(source: nn.Module | torch.export.ExportedProgram, args: tuple[Any, ...]) -> bool:
    """Whether the model itself runs on the example."""
    try:
        with torch.no_grad():
            (source if isinstance(source, nn.Module) else source.module())(*args)
    except Exception:
        return False
    return True


def _first_line(error: BaseException) -> str:
    """What the innermost error says, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _batched(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Mapping[int, Any] | None, ...]]:
    """Example inputs, and the dynamic shapes that say their first dimension is a batch.

    A batch of 1 is doubled, since torch.export takes sizes of 1 to be fixed.
    """
    sizes = [a.shape[0] for a in args if isinstance(a, Tensor) and a.dim() > 0]
    if not sizes:
        return args, tuple(None for _ in args)
    batch = torch.export.Dim("batch", min=0)

    def is_batched(arg: object) -> bool:
        return isinstance(arg, Tensor) and arg.dim() > 0 and arg.shape[0] == sizes[0]

    few = sizes[0] < 2
    example = tuple(
        (torch.cat([a, a]) if a.shape[0] else a.new_zeros((2, *a.shape[1:])))
        if few and is_batched(a)
        else a
        for a in args
    )
    return example, tuple({0: batch} if is_batched(a) else None for a in args)


def _by_parameter(model: nn.Module, shapes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Shapes as torch.export wants them: those of ``*args`` together, as one parameter's."""
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return shapes
    first = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    return (*shapes[:first], shapes[first:])


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """In eval mode meanwhile: dropout and batch norm as at inference."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
