"""The command line of tools/torch_to_tfmbs.py."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._fabric import FabricConfig
from ..errors import FabricError, GeometryError
from ..quantization.activations import ACTIVATIONS
from ..quantization.quantizers import BUILT_IN
from .emission.module import MlirModule
from .errors import ConversionError
from .frontend.importer import FLOAT_LAYERS
from .frontend.torch_frontend import Source, to_mlir, to_onnx
from .toolchain.programs import CompilationError, ToolNotFoundError

_EPILOG = """\
without MODEL: a small network of 784, 60 and 10 features with fixed random weights, to
tests/mlir/torch_tfmbs.mlir.

exit status: 0 converted; 1 the model cannot be converted, or a file not read or written; 2 usage.
"""


class _UsageError(Exception):
    """Arguments that do not fit each other, or name nothing."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch_to_tfmbs.py",
        description="Converts a PyTorch or ONNX model to MLIR in the tfmbs dialect.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a .onnx file, a .pt2 file (torch.export.save), or module:callable, where the "
        "callable returns an nn.Module",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".mlir (text) or .mlirbc (bytecode)"
    )
    parser.add_argument(
        "--input-shape",
        action="append",
        type=_shape,
        metavar="1x784",
        help="shape of an example input of module:callable; once for each input (default: the "
        "callable's or the model's attribute example_inputs)",
    )
    parser.add_argument(
        "--static-batch", action="store_true", help="the first dimension is the example's only"
    )
    parser.add_argument("--weight-quantizer", choices=sorted(BUILT_IN), default="sign")
    parser.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        help="of layers that have none in MODEL (default: ternary; int8 for ternary weights in QDQ "
        "form)",
    )
    parser.add_argument(
        "--float-layers",
        choices=FLOAT_LAYERS,
        default="auto",
        help="products with constant float weights: keep them in floats, quantize them, or auto: "
        "keep them where MODEL holds a ternary layer (default: auto)",
    )
    default = FabricConfig()
    parser.add_argument("--tiles", type=int, default=default.tiles, help="default: %(default)s")
    parser.add_argument("--lanes", type=int, default=default.lanes, help="default: %(default)s")
    parser.add_argument(
        "--bank-depth", type=int, default=default.bank_depth, help="default: %(default)s"
    )
    parser.add_argument(
        "--name", default="main", metavar="NAME", help="of the function (default: %(default)s)"
    )
    parser.add_argument(
        "--output-names", nargs="+", metavar="VALUE", help="ONNX values to give, not the outputs"
    )
    return parser


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if not all(size.isascii() and size.isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape like 1x784")
    return tuple(map(int, sizes))


def main(arguments: Sequence[str] | None = None, *, root: Path | None = None) -> int:
    """Runs the command and returns its exit status.

    root: where the default model's file goes, as tests/mlir/torch_tfmbs.mlir; None is the working
        directory.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        module, path = _convert(options, root or Path.cwd())
        path.parent.mkdir(parents=True, exist_ok=True)
        module.save(path)
    except _UsageError as error:
        parser.error(str(error))
    except (ConversionError, FabricError, ToolNotFoundError, CompilationError, OSError) as error:
        print(f"{parser.prog}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    _print_layers(module)
    print(f"{path} written")
    return 0


def _convert(options: argparse.Namespace, root: Path) -> tuple[MlirModule, Path]:
    try:
        config = FabricConfig(options.tiles, options.lanes, options.bank_depth)
    except GeometryError as error:
        raise _UsageError(str(error)) from error
    source: Source
    args: tuple[Tensor, ...] | None = None
    if options.model is None:
        if options.input_shape:
            raise _UsageError("--input-shape is for a MODEL that is module:callable")
        source, args = _default_model(), (torch.zeros(2, 784),)
        path = options.output or root / "tests" / "mlir" / "torch_tfmbs.mlir"
    elif options.model.endswith((".onnx", ".pt2")):
        if options.input_shape:
            raise _UsageError("--input-shape is for module:callable; a file has its shapes")
        source = options.model
        path = options.output or Path(f"{Path(options.model).stem}.mlir")
    elif ":" in options.model:
        source, args = _from_callable(options.model, options.input_shape)
        path = options.output or Path(f"{options.model.rpartition(':')[2]}.mlir")
    else:
        raise _UsageError(
            f"MODEL is {options.model!r}; it must be a .onnx or .pt2 file, or module:callable"
        )
    if path.suffix not in (".mlir", ".mlirbc"):
        raise _UsageError(f"--output is {path}; it must end in .mlir or .mlirbc")
    module = to_mlir(
        to_onnx(source, args, dynamic_batch=not options.static_batch),
        weight_quantizer=options.weight_quantizer,
        activation=options.activation,
        float_layers=options.float_layers,
        config=config,
        function_name=options.name,
        outputs=options.output_names,
    )
    return module, path


def _default_model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 60), nn.ReLU(), nn.Linear(60, 10))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


def _from_callable(
    text: str, shapes: Sequence[tuple[int, ...]] | None
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model that module:callable makes, and its example inputs."""
    module_name, _, path = text.rpartition(":")
    sys.path.insert(0, "")  # modules of the working directory, as python -m finds them
    try:
        made: Any = importlib.import_module(module_name)
        for part in path.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConversionError(f"{text}: {error}") from error
    finally:
        sys.path.remove("")
    try:
        model = made if isinstance(made, nn.Module) else made()
    except Exception as error:  # whatever a user's code raises
        raise ConversionError(f"{text}: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ConversionError(f"{text} gives a {type(model).__name__}, not an nn.Module")
    if shapes:
        return model, tuple(map(_zeros, shapes))
    example: Any = getattr(made, "example_inputs", getattr(model, "example_inputs", None))
    if example is None:
        raise _UsageError(f"{text} needs --input-shape, or an attribute example_inputs")
    try:
        example = example() if callable(example) and not isinstance(example, Tensor) else example
    except Exception as error:  # whatever a user's code raises
        raise ConversionError(f"{text}: {type(error).__name__}: {error}") from error
    if isinstance(example, Tensor):
        return model, (example,)
    if not isinstance(example, list | tuple):
        raise _UsageError(
            f"example_inputs of {text} is {example!r}; it must be a tensor, or a list or tuple of "
            "inputs"
        )
    return model, tuple(example)


def _zeros(shape: tuple[int, ...]) -> Tensor:
    try:
        return torch.zeros(shape)
    except (RuntimeError, TypeError, OverflowError) as error:  # too much for torch or the machine
        sizes = "x".join(map(str, shape))
        raise _UsageError(
            f"--input-shape {sizes} cannot be made: {str(error).splitlines()[0]}"
        ) from error


def _print_layers(module: MlirModule) -> None:
    rows = [("operator", "node", "layer", "outputs x inputs", "tile mask", "sparsity")]
    rows += [
        (
            op_type,
            node,
            layer["layer"],
            f"{layer['out_features']} x {layer['in_features']}",
            f"{layer['tile_mask']:#x}",
            f"{layer['sparsity']:.4f}",
        )
        for (op_type, node), layer in zip(module.sources, module.layers, strict=True)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )
    if not module.layers:
        print("(no ternary layer)")
