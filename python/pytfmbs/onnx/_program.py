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
    refuse_groups,
    spec_text,
)

_KEY = "pytfmbs.onnx:{}"
_LAYER_OPS = (torch_ops.linear, torch_ops.linear_trits, torch_ops.packed_linear)


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
            if node.target in _LAYER_OPS:
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
    arguments: Any = node.target
    names = [a.name for a in arguments._schema.arguments]
    call: dict[str, Any] = dict(zip(names, node.args, strict=False))
    call.update(node.kwargs)
    identity = identity_text(_value(call["identity"], constants, "?"))
    if node.target is torch_ops.packed_linear:
        shape = (call["out_features"], call["in_features"])
    else:
        outputs, depth = call["weight"].meta["val"].shape
        shape = (int(outputs), int(depth))
    quantizer = call["quantizer"] if node.target is torch_ops.linear else "custom"
    spec = spec_text(identity, quantizer, call["activation"], *shape)
    name = parse_spec(spec)["name"]
    weight = None
    if node.target is torch_ops.packed_linear:
        refuse_groups(name, call["group_size"])
        panels = _value(call["panels"], constants, name)
        trits = torch_ops.trits_of_panels(panels, call["layout"], *shape)
        scale = _value(call["scale"], constants, name)
        call["weight"] = _shape_only(node, call["input"], shape)
    else:
        weight = _value(call["weight"], constants, name)
        if node.target is torch_ops.linear_trits:
            trits = _value(call["trits"], constants, name)
            scale = _value(call["scale"], constants, name)
        else:
            trits, scale = torch_ops.quantize_weight(weight.detach(), quantizer)
    packed = node.target is torch_ops.packed_linear
    node.target = torch_ops.onnx_linear
    node.args = (call["input"], call["weight"], call["bias"], key, call.get("out_dtype"))
    node.kwargs = {}
    hint = hint_of_spec(spec, trits)
    if packed:
        hint["weight_quantizer"] = "packed"
    return exported_layer(hint, weight, trits, scale)


def _shape_only(node: fx.Node, input: fx.Node, shape: tuple[int, int]) -> fx.Node:
    """Zeros of a shape before a node, for what looks at the shape alone."""
    new_zeros, expand = torch.ops.aten.new_zeros.default, torch.ops.aten.expand.default
    with node.graph.inserting_before(node):
        one = node.graph.call_function(new_zeros, (input, [1, 1]))
        wide = node.graph.call_function(expand, (one, list(shape)))
    one.meta["val"] = input.meta["val"].new_zeros((1, 1))
    wide.meta["val"] = one.meta["val"].expand(shape)
    return wide
