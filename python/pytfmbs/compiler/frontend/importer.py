"""ONNX graphs to MLIR: the walk over the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

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
from . import definitions, folding, ternary_weights
from .context import Context, Options
from .onnx_graph import Graph, Node
from .operators import OPERATORS, portable, shape_arithmetic
from .operators.ternary import is_layer

#: What becomes of products with constant float weights (docs/compile-a-model.md).
FloatLayers: TypeAlias = Literal["auto", "keep", "quantize"]
FLOAT_LAYERS: tuple[str, ...] = get_args(FloatLayers)


def import_onnx(
    model: onnx.ModelProto,
    *,
    weight_quantizer: str | WeightQuantizer = "sign",
    activation: str | None = None,
    float_layers: FloatLayers = "auto",
    config: FabricConfig | None = None,
    function_name: str = "main",
    outputs: Sequence[str] | None = None,
) -> MlirModule:
    """An ONNX model as MLIR: products with ternary weights become ternary layers, the rest plain
    arithmetic. Options as to_mlir's.

    outputs: names of values to give instead of the graph's outputs.
    Raises ConversionError and what is under it, and nothing else for a model, however broken.
    """
    if activation is not None:
        check_activation(activation)
    if float_layers not in FLOAT_LAYERS:
        allowed = ", ".join(map(repr, FLOAT_LAYERS))
        raise ConversionError(f"float_layers is {float_layers!r}; allowed are {allowed}")
    if not isinstance(function_name, str) or not function_name:
        raise ConversionError(f"function_name is {function_name!r}; it must be a name")
    try:
        quantizer = quantizers.resolve(weight_quantizer)
    except (ValueError, TypeError) as error:
        raise ConversionError(str(error)) from error
    graph = Graph(model, outputs)
    layers, inner = portable.find(graph)
    ternary = ternary_weights.find(graph)
    keep = float_layers == "keep"
    if float_layers == "auto":
        keep = bool(layers or ternary.weights) or any(map(is_layer, graph.nodes))
    options = Options(
        quantizer, activation, config or FabricConfig(), config is not None, keep_floats=keep
    )
    context = Context(graph, options, ternary=ternary.weights, absorbed=inner | ternary.inner)
    inputs = _arguments(context)
    _walk(context, layers)
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


def _walk(context: Context, layers: Mapping[int, portable.PortableLayer]) -> None:
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
    # Ternary weights are no tensor of floats: the handler takes them from the context.
    weights = 1 if node.place in context.ternary else None
    inputs = [
        context.find(name) if name and place != weights else None
        for place, name in enumerate(node.inputs)
    ]
    for place, (name, value) in enumerate(zip(node.inputs, inputs, strict=True)):
        if name and value is None and place != weights:
            raise context.unsupported(node, f"its input {name!r} is an output that no tensor holds")
    if node.controls_flow:
        raise context.unsupported(
            node, "control flow has no form here; export the model without it (fixed branches)"
        )
    handler = OPERATORS.get((node.domain, node.op_type))
    if handler is not None:
        _check_against_schema(context, node)
    if inputs and all(v is None or v.constant is not None for v in inputs):
        arrays = [None if v is None else v.constant for v in inputs]
        folded = folding.fold(node, arrays, context.graph.opset(""))
        if folded is not None:
            return [constant(array, f"the result of {node!r}") for array in folded]
    known = shape_arithmetic.evaluate(context.emit, node, inputs)
    if known is not None:
        return [known]
    if handler is None:
        return _by_definition(context, node, inputs)
    results = handler(context, node, inputs)
    return [results] if results is None or isinstance(results, Value) else results


def _by_definition(
    context: Context, node: Node, inputs: Sequence[Value | None]
) -> Sequence[Value | None]:
    """An operator without a handler, by the function that ONNX defines it as."""
    graph = context.graph
    function = definitions.body(node, inputs, graph.opset(node.domain))
    if function is None:
        raise context.unsupported(
            node,
            "there is no such operator here; export the model with others, or choose outputs "
            "before it (outputs=[...], on the command line --output-names)",
        )
    _check_against_schema(context, node)
    context.expansions += 1
    number = context.expansions
    nodes, outputs = definitions.instantiate(function, node, f"\0{number}.")
    outer = graph.opsets
    graph.opsets = outer | {entry.domain: entry.version for entry in function.opset_import}
    try:
        for proto in nodes:
            inner = Node(proto, -number)  # a place that no node of the graph has
            results = _convert(context, inner)
            for name, value in zip(inner.outputs, results, strict=False):
                if name and value is not None:
                    check_size(value.extents, f"the result {name!r}")
                    context.values[name] = value
    except ConversionError as error:
        reason = f"ONNX defines it by others, and one of them cannot be taken: {error}"
        raise context.unsupported(node, reason) from error
    finally:
        graph.opsets = outer
    return [context.values.get(name) for name in outputs]


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
    returned = ", ".join(f"{v.type}{_braced(_sign_attribute(v))}" for v in results)
    arguments = ", ".join(
        f"{a.value.ssa}: {a.value.type} {{{_argument_attributes(a)}}}" for a in inputs
    )
    header = f"  func.func {symbol(function_name)}({arguments}) -> ({returned})"
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
    attributes = ["bufferization.writable = false", *_sign_attribute(argument.value)]
    if any(argument.dims):
        attributes.append(f"tfmbs.dims = [{', '.join(map(string, argument.dims))}]")
    return ", ".join(attributes)


def _sign_attribute(value: Value) -> list[str]:
    """MLIR's integers have no sign: who calls the function is told of those that are unsigned."""
    return ["tfmbs.unsigned"] if value.element.kind == "unsigned" else []


def _braced(attributes: Sequence[str]) -> str:
    return f" {{{', '.join(attributes)}}}" if attributes else ""
