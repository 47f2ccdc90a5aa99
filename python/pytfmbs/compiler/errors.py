"""What the front end raises: one hierarchy under ConversionError."""

from __future__ import annotations


class ConversionError(ValueError):
    """A model that cannot become MLIR. The message says what was found, where, and what is
    allowed."""


class InvalidModelError(ConversionError):
    """A model that is broken: bytes that are no ONNX, operands that do not fit, cycles."""


class UnsupportedOperatorError(ConversionError):
    """An operator, or a use of one, that has no form in MLIR here.

    ``op_type``, ``domain`` (empty for ONNX's own) and ``node`` name it; ``outputs`` are the graph's
    outputs that need it.
    """

    def __init__(
        self, op_type: str, domain: str, node: str, outputs: tuple[str, ...], reason: str
    ) -> None:
        self.op_type = op_type
        self.domain = domain
        self.node = node
        self.outputs = outputs
        qualified = f"{domain}.{op_type}" if domain else op_type
        feeds = f", which output {', '.join(map(repr, outputs))} needs," if outputs else ""
        super().__init__(f"operator {qualified} (node {node!r}){feeds} cannot be taken: {reason}")
