"""Export of models with TFMBSLinear to ONNX (docs/onnx.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common as passes
from torch import nn

from ..ops import torch_ops
from ._emit import MODES, Emitter, Names
from ._layers import ExportError, Resolver, live_layers
from ._program import without_effects
from ._quiet import torch_noise_hidden

TranslationTable = dict[Callable[..., Any], Callable[..., Any]]


def _emitter(mode: str) -> Emitter:
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; allowed are {', '.join(map(repr, MODES))}")
    return MODES[mode]


def _table(resolve: Resolver, emit: Emitter) -> TranslationTable:
    names = Names()

    # The exporter reads the annotations as types of ONNX values, so there are none.
    def onnx_linear(input, weight, bias, layer, out_dtype=None):  # type: ignore[no-untyped-def]
        target = None if out_dtype is None or out_dtype == -1 else ir.DataType(out_dtype)
        return emit(input, bias, resolve(layer, weight), target, names)

    return {torch_ops.onnx_linear: onnx_linear}


def translation_table(model: nn.Module, *, mode: str = "portable") -> TranslationTable:
    """For ``torch.onnx.export(model, args, custom_translation_table=...)``.

    model: the one to be exported, or any that holds its layers. A layer is quantized when the
    exporter first comes to it; make a new table once weights have changed.
    mode: "portable" or "custom", as of export().
    Raises ValueError, TypeError.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    return _table(live_layers(model), _emitter(mode))


def export(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...] = (),
    path: str | os.PathLike[str] | None = None,
    *,
    mode: str = "portable",
    dynamic_shapes: Any = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    **torch_onnx_options: Any,
) -> torch.onnx.ONNXProgram:
    """A model as ONNX, its TFMBSLinear layers with quantized weights and telemetry metadata.

    Args:
        model: a module, or a program of torch.export (then args and dynamic_shapes are its own).
        args: example inputs.
        path: where to save the file; None does not.
        mode: "portable" is standard operators, and gives TFMBSLinear's numbers in any runtime;
            "custom" is one pytfmbs.TernaryLinear a layer, weights at 1.6 bits.
        dynamic_shapes, input_names, output_names, torch_onnx_options: as torch.onnx.export's.

    Returns:
        torch.onnx's program: ``model_proto``, ``model`` (onnx_ir), ``save()``.

    Raises:
        ExportError: a layer that cannot be exported, such as one whose weight is computed from
            the model's inputs. ValueError: an unknown mode. TypeError: a model of another kind.
        torch.onnx.OnnxExporterError: what torch.onnx cannot export.
    """
    for option in ("custom_translation_table", "dynamo", "f"):
        if option in torch_onnx_options:
            raise ValueError(f"{option} is pytfmbs.onnx.export's own")
    options: dict[str, Any] = {"verbose": False, **torch_onnx_options}
    options.update(input_names=input_names, output_names=output_names, dynamo=True)
    with torch_noise_hidden():
        return _finish(_export(model, args, mode, dynamic_shapes, options), path)


def _export(
    model: nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    mode: str,
    dynamic_shapes: Any,
    options: dict[str, Any],
) -> torch.onnx.ONNXProgram | None:
    if isinstance(model, torch.export.ExportedProgram):
        emit = _emitter(mode)
        model, resolve = without_effects(model)
        table = _table(resolve, emit)
    else:
        table = translation_table(model, mode=mode)
        options.update(dynamic_shapes=dynamic_shapes)
    try:
        return torch.onnx.export(model, args, custom_translation_table=table, **options)
    except torch.onnx.OnnxExporterError as error:
        _raise_own(error)
        raise


def _raise_own(error: BaseException) -> None:
    """Raises the layer's error that torch's is about, if it is about one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExportError):
            raise ExportError(str(cause)) from None
        if "higher_order.with_effects" in str(cause):
            raise ExportError(
                "the model calls an op of pytfmbs by itself (TFMBSLinearFunction, torch.ops.tfmbs); "
                "give pytfmbs.onnx.export what torch.export.export makes of it"
            ) from error
        cause = cause.__cause__


def _finish(
    program: torch.onnx.ONNXProgram | None, path: str | os.PathLike[str] | None
) -> torch.onnx.ONNXProgram:
    """Constants once and as initializers, nothing that nobody uses, with optimize=False too."""
    assert program is not None  # dynamo gives one always
    ir.passes.Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.DeduplicateInitializersPass(),
        passes.NameFixPass(),
    )(program.model)
    if path is not None:
        program.save(path)
    return program
