"""What the walk over a graph and the operators' handlers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytfmbs._fabric import FabricConfig
from pytfmbs.quantization.quantizers import WeightQuantizer

from ..emission.emitter import Emitter
from ..emission.layers import LayerNames, QuantizedWeight, TernaryLayer
from ..emission.types import Value, constant
from ..errors import UnsupportedOperatorError
from .onnx_graph import Graph, Node
from .ternary_weights import TernaryMatrix


@dataclass(frozen=True)
class Options:
    """How weights and activations are quantized, and for which device."""

    weight_quantizer: WeightQuantizer
    activation: str | None
    config: FabricConfig
    config_given: bool
    #: Whether products with constant float weights stay products of floats.
    keep_floats: bool = False


@dataclass
class Context:
    """What an operator's handler sees: the function being written, the graph, the layers so far."""

    graph: Graph
    options: Options
    emit: Emitter = field(default_factory=Emitter)
    values: dict[str, Value] = field(default_factory=dict)
    layers: dict[str, TernaryLayer] = field(default_factory=dict)
    #: The node that each layer came from, by the layer's name.
    layer_nodes: dict[str, Node] = field(default_factory=dict)
    names: LayerNames = field(default_factory=LayerNames)
    #: Quantized weights by the value they were made of: a layer used twice is one layer.
    quantized: dict[tuple[Any, ...], QuantizedWeight] = field(default_factory=dict)
    #: Weights of products that are ternary in the file, by the product's place.
    ternary: Mapping[int, TernaryMatrix] = field(default_factory=dict)
    #: Nodes that a handler has taken along, by place.
    absorbed: set[int] = field(default_factory=set)

    #: How many operators were taken by ONNX's definition of them.
    expansions: int = 0

    def find(self, name: str) -> Value | None:
        """A value that is known by now; initializers always are."""
        if name not in self.values and self.graph.is_initializer(name):
            array = self.graph.initializer(name)
            self.values[name] = constant(array, f"initializer {name!r}")
            self.emit.call_array(array, name)
        return self.values.get(name)

    def absorb(self, node: Node, results: Sequence[Value]) -> None:
        """Says that a later node's results are there already."""
        self.absorbed.add(node.place)
        for name, value in zip(node.outputs, results, strict=False):
            self.values[name] = value

    def unsupported(self, node: Node, reason: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(
            node.op_type, node.domain, node.name, self.graph.outputs_fed_by(node), reason
        )
