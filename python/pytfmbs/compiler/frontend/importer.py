"""ONNX graphs to MLIR: the walk over the nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from pytfmbs._fabric import FabricConfig
from pytfmbs.errors import FabricError
from pytfmbs.quantization import quantizers
from pytfmbs.quantization.quantizers import WeightQuantizer

from ..emission.layers import check_activation
from ..emission.mlir_text import string, symbol
from ..emission.module import MlirModule, TensorInfo
from ..emission.types import Extent, Value, check_size, constant, from_onnx
from ..errors import ConversionError, InvalidModelError, UnsupportedOperatorError
from . import folding
from .context import Context, Options
from .onnx_graph import Graph, Node
from .operators import OPERATORS, portable, shape_arithmetic


def import_onnx(
    model: onnx.ModelProto,
    *,
    weight_quantizer: str | WeightQuantizer = "sign",
    activation: str = "ternary",
    config: FabricConfig | None = None,
    function_name: str = "main",
    outputs: Sequence[str] | None = None,
) -> MlirModule:
    """An ONNX model as MLIR: every product with constant weights becomes a ternary layer, the rest
    plain arithmetic.

    outputs: names of values to give instead of the graph's outputs.
    Raises ConversionError and what is under it, and nothing else for a model, however broken.
    """
    check_activation(activation)
    if not isinstance(function_name, str) or not function_name:
        raise ConversionError(f"function_name is {function_name!r}; it must be a name")
    try:
        quantizer = quantizers.resolve(weight_quantizer)
    except (ValueError, TypeError) as error:
        raise ConversionError(str(error)) from error
    options = Options(quantizer, activation, config or FabricConfig(), config is not None)
    context = Context(Graph(model, outputs), options)
    inputs = _arguments(context)
    _walk(context)
    return _finish(context, inputs, function_name)


@dataclass
class _Argument:
    name: str
    value: Value
    dims: tuple[str, ...]  # names of the dynamic sizes, "" for the others


def _arguments(context: Context) -> list[_Argument]:
    arguments = []
    by_name: dict[str, Extent] = {}
    for place, info in enumerate(context.graph.inputs):
        what = f"input {info.name!r}"
        if not info.type.HasField("tensor_type"):
            kind = info.type.WhichOneof("value") or "unknown"
            raise ConversionError(f"{what} is of type {kind}; only tensors can be taken")
        tensor = info.type.tensor_type
        element = from_onnx(tensor.elem_type, what)
        if not tensor.HasField("shape"):
            raise ConversionError(f"{what} has no shape; its rank must be known")
        ssa = f"%arg{place}"
        sizes: list[Extent] = []
        names: list[str] = []
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                sizes.append(int(dim.dim_value))
                names.append("")
            elif dim.HasField("dim_value") and dim.dim_value != -1:
                raise InvalidModelError(f"{what} has a dimension of {dim.dim_value}")
            else:  # dynamic; some exporters write -1
                names.append(dim.dim_param or f"{info.name}.{axis}")
                sizes.append(f"?{axis}")
        value = Value(element, tuple(sizes), ssa=ssa)
        check_size(value.extents, what)
        extents = tuple(
            size
            if isinstance(size, int)
            else by_name.get(names[axis])
            or by_name.setdefault(names[axis], context.emit.dimension(place, value.type, axis))
            for axis, size in enumerate(value.extents)
        )
        value = Value(element, extents, ssa=ssa)
        context.values[info.name] = value
        arguments.append(_Argument(info.name, value, tuple(names)))
    return arguments


def _walk(context: Context) -> None:
    layers, inner = portable.find(context.graph)
    context.absorbed.update(inner)
    for node in context.graph.nodes:
        if node.place in context.absorbed:
            continue
        context.emit.requires.reason = repr(node)
        try:
            if node.place in layers:
                results: Sequence[Value | None] = [
                    portable.emit_portable(context, layers[node.place])
                ]
            else:
                results = _convert(context, node)
        except UnsupportedOperatorError:
            raise
        except ConversionError as error:
            raise type(error)(f"{node!r}: {error}") from error
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, FabricError) as error:
            # What NumPy, torch and protobuf say to values that no check above has foreseen.
            raise InvalidModelError(f"{node!r}: {type(error).__name__}: {error}") from error
        for name, value in zip(node.outputs, results, strict=False):
            if name and value is not None:
                check_size(value.extents, f"the result {name!r}")
                context.values[name] = value


def _convert(context: Context, node: Node) -> Sequence[Value | None]:
    inputs = [context.find(name) if name else None for name in node.inputs]
    for name, value in zip(node.inputs, inputs, strict=True):
        if name and value is None:
            raise context.unsupported(node, f"its input {name!r} is an output that no tensor holds")
    if node.controls_flow:
        raise context.unsupported(
            node, "control flow has no form here; export the model without it (fixed branches)"
        )
    handler = OPERATORS.get((node.domain, node.op_type))
    if handler is None:
        raise context.unsupported(
            node,
            "there is no such operator here; export the model with others, or choose outputs "
            "before it (outputs=[...], on the command line --output-names)",
        )
    _check_against_schema(context, node)
    if inputs and all(v is None or v.constant is not None for v in inputs):
        arrays = [None if v is None else v.constant for v in inputs]
        folded = folding.fold(node, arrays, context.graph.opset(""))
        if folded is not None:
            return [constant(array, f"the result of {node!r}") for array in folded]
    known = shape_arithmetic.evaluate(context.emit, node, inputs)
    if known is not None:
        return [known]
    results = handler(context, node, inputs)
    return [results] if results is None or isinstance(results, Value) else results


def _check_against_schema(context: Context, node: Node) -> None:
    """Numbers of inputs and outputs, and names of attributes, as the operator's schema says."""
    try:
        schema = onnx.defs.get_schema(node.op_type, context.graph.opset(node.domain), node.domain)
    except onnx.defs.SchemaError:
        return  # not one that onnx knows
    if schema.deprecated:
        raise context.unsupported(node, f"version {schema.since_version} of it is deprecated")
    for what, count, low, high in (
        ("inputs", len(node.inputs), schema.min_input, schema.max_input),
        ("outputs", len(node.outputs), schema.min_output, schema.max_output),
    ):
        if not low <= count <= high:
            raise InvalidModelError(f"it has {count} {what}; allowed are {low} to {high}")
    unknown = [a.name for a in node.proto.attribute if a.name not in schema.attributes]
    if unknown:
        raise InvalidModelError(
            f"it has no attribute {unknown[0]!r}; allowed are {sorted(schema.attributes)}"
        )


def _finish(context: Context, inputs: Sequence[_Argument], function_name: str) -> MlirModule:
    emit = context.emit
    results: list[Value] = []
    for name in context.graph.outputs:
        value = context.find(name)
        if value is None:
            raise ConversionError(f"output {name!r} is not a tensor; choose others with outputs=")
        results.append(value)
    names = [emit.name(value) for value in results]
    types = ", ".join(value.type for value in results)
    emit.line(f"return {', '.join(names)} : {types}")
    arguments = ", ".join(
        f"{a.value.ssa}: {a.value.type} {{{_argument_attributes(a)}}}" for a in inputs
    )
    header = f"  func.func {symbol(function_name)}({arguments}) -> ({types})"
    requires = ", ".join(map(string, emit.requires.lines()))
    if requires:
        header += f" attributes {{tfmbs.requires = [{requires}]}}"
    body = "\n".join(emit.lines)
    text = f"module {{\n{header} {{\n{body}\n  }}\n}}\n{emit.resources.text()}"
    return MlirModule(
        text=text,
        layers=tuple(layer.hint for layer in context.layers.values()),
        sources=tuple((node.op_type, node.name) for node in context.layer_nodes.values()),
        inputs=tuple(TensorInfo(a.name, a.value.type) for a in inputs),
        outputs=tuple(
            TensorInfo(name, value.type)
            for name, value in zip(context.graph.outputs, results, strict=True)
        ),
        function_name=function_name,
    )


def _argument_attributes(argument: _Argument) -> str:
    """What a caller has to know: sizes of one name are equal; nothing is written into arguments."""
    attributes = ["bufferization.writable = false"]
    if any(argument.dims):
        attributes.append(f"tfmbs.dims = [{', '.join(map(string, argument.dims))}]")
    return ", ".join(attributes)
