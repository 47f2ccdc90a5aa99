"""Exported programs: the layers' ops without their effects, and their weights as constants.

A program carries its weights with it and may have come from another process, so everything is read
from the program and nothing from living layers.
"""

from __future__ import annotations

import copy
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx

from ..ops import torch_ops
from ..ops.identity import identity_text
from ._layers import (
    ExportedLayer,
    ExportError,
    Resolver,
    exported_layer,
    hint_of_spec,
    parse_spec,
    spec_text,
)

_KEY = "pytfmbs.onnx:{}"


def without_effects(
    program: torch.export.ExportedProgram,
) -> tuple[torch.export.ExportedProgram, Resolver]:
    """A copy whose layers are ``tfmbs_onnx::linear``, and what finds a layer from such a call."""
    program = copy.copy(program)
    program._graph_module = copy.deepcopy(program.graph_module)
    constants = _constants(program)
    layers: dict[str, ExportedLayer] = {}
    for module in program.graph_module.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        for node in list(module.graph.nodes):
            if node.target is torch.ops.higher_order.with_effects:
                raise ExportError(
                    "the program was decomposed and threads effects through its layers; export "
                    "what torch.export.export gave"
                )
            if node.target in (torch_ops.linear, torch_ops.linear_trits):
                if module is not program.graph_module:
                    raise ExportError(
                        f"layer in a subgraph ({node}): only straight programs export"
                    )
                key = _KEY.format(len(layers))
                layers[key] = _replace(node, key, constants)
        for node in list(module.graph.nodes):  # they would keep a quantizer's computation alive
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                module.graph.erase_node(node)
        module.graph.eliminate_dead_code()
        module.recompile()

    def resolve(key: str, weight: ir.Value) -> ExportedLayer:
        return layers[key]

    return program, resolve


def _constants(program: torch.export.ExportedProgram) -> dict[str, Tensor]:
    """The tensors that are not inputs of the user's, by their placeholder."""
    tensors: dict[str, Any] = {**program.constants, **program.state_dict}
    return {
        spec.arg.name: tensors[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.target is not None and isinstance(tensors.get(spec.target), Tensor)
    }


def _value(node: Any, constants: dict[str, Tensor], layer: str) -> Any:
    """What a node computes from constants. Raises ExportError where it needs the user's inputs."""
    if not isinstance(node, fx.Node):
        return node
    if node.op == "placeholder":
        if node.name not in constants:
            raise ExportError(
                f"the weight of layer {layer!r} is computed from input {node.name!r}; only a "
                "constant weight can be exported"
            )
        return constants[node.name]
    if node.op != "call_function" or not callable(node.target):
        raise ExportError(f"the weight of layer {layer!r} comes from {node.format_node()}")
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: _value(n, constants, layer))
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _replace(node: fx.Node, key: str, constants: dict[str, Tensor]) -> ExportedLayer:
    """Puts ``tfmbs_onnx::linear`` in a layer's place. The layer that it was."""
    arguments = (
        torch_ops.linear if node.target is torch_ops.linear else torch_ops.linear_trits
    )._schema.arguments
    call: dict[str, Any] = dict(zip((a.name for a in arguments), node.args, strict=False))
    call.update(node.kwargs)
    identity = identity_text(_value(call["identity"], constants, "?"))
    custom = node.target is torch_ops.linear_trits
    outputs, depth = call["weight"].meta["val"].shape
    quantizer = "custom" if custom else call["quantizer"]
    spec = spec_text(identity, quantizer, call["activation"], int(outputs), int(depth))
    name = parse_spec(spec)["name"]
    weight = _value(call["weight"], constants, name)
    if custom:
        trits = _value(call["trits"], constants, name)
        scale = _value(call["scale"], constants, name)
    else:
        trits, scale = torch_ops.quantize_weight(weight.detach(), quantizer)
    node.target = torch_ops.onnx_linear
    node.args = (call["input"], call["weight"], call["bias"], key, call.get("out_dtype"))
    node.kwargs = {}
    return exported_layer(hint_of_spec(spec, trits), weight, trits, scale)
