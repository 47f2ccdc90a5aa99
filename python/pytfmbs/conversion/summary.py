"""summary: of every module with weights, whether it is ternary, and what it costs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from ..nn.fabric_layer import FabricLayer
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from . import bitnet
from .choice import Choice
from .multiply_accumulates import Counts, count

_LOG = logging.getLogger("pytfmbs")
_PACKED_BITS, _BASE3_BITS = 2.0, 1.6  # of a weight, without scales and the padding of small layers
_WIDTH = 80
_NAMED = 4  # kinds of modules that the log line names
_NORMS = (
    "LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d",
    "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
)  # fmt: skip


@dataclass(frozen=True)
class ModuleSummary:
    """One module that holds weights of its own."""

    path: str
    type: str
    ternary: bool
    #: "absmean, int8" of a ternary module; else why it is not.
    reason: str
    #: Of a weight, as the product reads it.
    bits_per_weight: float
    #: Of its parameters and buffers, and of the packed weights.
    bytes: int
    #: Values of weights and biases. Those that an earlier module has too are counted there.
    parameters: int
    parameter_share: float
    #: Per call of the model on the example inputs; None without them.
    macs: int | None
    mac_share: float | None
    #: Forward passes of the module; 0 for a ternary one means that its parent does not call it.
    calls: int | None


class Summary:
    """What ``pytfmbs.summary`` gives: prints as a table; ``modules`` and ``to_dict`` are the data."""

    def __init__(self, modules: list[ModuleSummary], macs: int | None) -> None:
        self.modules = modules
        #: Of the whole model, those of no module with weights included; None without example inputs.
        self.macs = macs

    @property
    def parameters(self) -> int:
        return sum(module.parameters for module in self.modules)

    @property
    def ternary_parameter_share(self) -> float:
        """Of all parameters, those of ternary modules."""
        return sum(module.parameter_share for module in self.modules if module.ternary)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        ternary = [module for module in self.modules if module.ternary]
        return {
            "modules": [asdict(module) for module in self.modules],
            "ternary_modules": len(ternary),
            "parameters": self.parameters,
            "ternary_parameter_share": self.ternary_parameter_share,
            "bytes": sum(module.bytes for module in self.modules),
            "macs": self.macs,
            "ternary_mac_share": (
                None if self.macs is None else sum(module.mac_share or 0 for module in ternary)
            ),
        }

    def __repr__(self) -> str:
        return self.__str__()

    def __str__(self) -> str:
        """A table of 80 columns."""
        counted = self.macs is not None
        heads = ["module", "ternary, or why not", "bits", "bytes", "param"] + ["MACs"] * counted
        rows = [_row(module, counted) for module in self.modules]
        data = self.to_dict()
        total = [
            "total",
            f"{data['ternary_modules']} of {len(rows)} ternary",
            "",
            _quantity(data["bytes"]),
            _percent(data["ternary_parameter_share"]),
            *([_percent(data["ternary_mac_share"])] if counted else []),
        ]
        numbers = [
            max(len(row[column]) for row in [heads, *rows, total])
            for column in range(2, len(heads))
        ]
        room = _WIDTH - sum(numbers) - 2 * len(numbers) - 2
        reason = min(max(len(row[1]) for row in [heads, *rows, total]), max(19, room - 34))
        path = min(max(len(row[0]) for row in [heads, *rows, total]), room - reason)
        widths = [path, reason, *numbers]

        def line(cells: list[str]) -> str:
            texts = [_shortened(cells[0], path).ljust(path), _cut(cells[1], reason).ljust(reason)]
            texts += [cell.rjust(size) for cell, size in zip(cells[2:], numbers, strict=True)]
            return "  ".join(texts).rstrip()

        rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
        notes = [f"\n{note}" for note in self._notes()]
        lines = [line(heads), rule, *map(line, rows), rule, line(total)]
        return "\n".join(lines) + "".join(notes)

    def _notes(self) -> list[str]:
        notes = ["total: shares are those of the ternary modules."]
        uncalled = [m.path for m in self.modules if m.ternary and m.calls == 0]
        if uncalled:
            notes.append(
                f"{len(uncalled)} ternary modules were not called, {uncalled[0]!r} first: does the "
                "parent compute with their weight?"
            )
        return notes


def summary(model: nn.Module, example_inputs: Any = None) -> Summary:
    """Of every module with weights: whether it is ternary, or why not; bits per weight, bytes, and its
    share of the parameters.

    example_inputs: also run the model once, in eval mode without gradients and without telemetry, for
        shares of multiply-accumulates and for calls. A tensor, a tuple of positional arguments, or a
        dict of named ones.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    counts = None if example_inputs is None else count(model, example_inputs)
    choice = Choice(model)
    seen: set[int] = set()
    rows: list[dict[str, Any]] = []
    for path, module in model.named_modules():
        tensors = _own_tensors(module)
        weights = {name: t for name, t in tensors.items() if _is_weight(module, name, t)}
        if not weights:
            continue
        rows.append(_describe(module, path, weights, tensors, choice, seen, counts))
    total = sum(row["parameters"] for row in rows)
    macs = None if counts is None else counts.total
    return Summary(
        [
            ModuleSummary(
                **row,
                parameter_share=row["parameters"] / total if total else 0.0,
                mac_share=None if macs is None else (row["macs"] / macs if macs else 0.0),
            )
            for row in rows
        ],
        macs,
    )


def log_line(model: nn.Module, swapped: int) -> None:
    """One line after convert: what stayed in floats. A warning where that is more than embeddings,
    norms, and what is left alone on purpose."""
    if not _LOG.isEnabledFor(logging.INFO) and not _LOG.isEnabledFor(logging.WARNING):
        return
    table = summary(model)
    floats = [module for module in table.modules if not module.ternary]
    ternary = len(table.modules) - len(floats)
    kinds: dict[tuple[str, str], list[ModuleSummary]] = {}
    for module in floats:
        kinds.setdefault((module.type, module.reason), []).append(module)
    largest = sorted(kinds.items(), key=lambda item: -sum(m.parameters for m in item[1]))
    surprising = [item for item in largest if not _is_expected(item[0][1])]
    named = [*surprising, *(item for item in largest if item not in surprising)]
    texts = [
        f"{kind}{f' x{len(them)}' if len(them) > 1 else ''} "
        f"({_quantity(sum(m.parameters for m in them))} parameters, {them[0].path or 'the model'}"
        f"{', ...' if len(them) > 1 else ''}: {reason.split(' (')[0]})"
        for (kind, reason), them in named[:_NAMED]
    ]
    if len(named) > _NAMED:
        texts.append(f"and {len(named) - _NAMED} other kinds")
    _LOG.log(
        logging.WARNING if surprising or not ternary else logging.INFO,
        "convert: %d of %d modules with weights are ternary (%d swapped now), with %s of the "
        "parameters; in floats: %s; pytfmbs.summary(model) lists them",
        ternary,
        len(table.modules),
        swapped,
        _percent(table.ternary_parameter_share),
        ", ".join(texts) or "none",
    )


def _is_expected(reason: str) -> bool:
    return reason in ("output head", "adapter", "norm", "look-up table") or reason.startswith(
        "tied"
    )


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _is_weight(module: nn.Module, name: str, tensor: Tensor) -> bool:
    """Parameters, and the packed weights of layers that hold them as buffers."""
    if name in module._parameters:
        return True
    if isinstance(module, FabricLayer):
        return name == "_panels"
    return name in ("weight", "qweight", "weight_packed")


def _describe(
    module: nn.Module,
    path: str,
    weights: dict[str, Tensor],
    tensors: dict[str, Tensor],
    choice: Choice,
    seen: set[int],
    counts: Counts | None,
) -> dict[str, Any]:
    new = [t for t in weights.values() if id(t) not in seen]
    seen.update(id(t) for t in new)
    tied = not new
    parameters = sum(_values(module, t) for t in new)
    ternary = isinstance(module, FabricLayer)
    reason, bits = _float_reason(module, choice), _float_bits(weights)
    stored = sum(t.numel() * t.element_size() for t in [*new, *_buffers(tensors, weights)])
    if isinstance(module, FabricLayer):
        bits = _BASE3_BITS if module.packing == "packed_base3" else _PACKED_BITS
        if isinstance(module, TFMBSLinear):
            stored += module.packed_bytes
        reason = f"{module._hint_quantizer()}, {module.activation}"
        unread = _unread_reason(module, choice)
        if unread is not None:
            ternary, reason = False, unread
    elif tied:
        reason = f"tied ({reason})"
    return {
        "path": path,
        "type": type(module).__name__,
        "ternary": ternary,
        "reason": reason,
        "bits_per_weight": bits,
        "bytes": stored,
        "parameters": parameters,
        "macs": None if counts is None else counts.macs.get(module, 0),
        "calls": None if counts is None else counts.calls.get(module, 0),
    }


def _buffers(tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[Tensor]:
    return [t for name, t in tensors.items() if name not in weights]


def _values(module: nn.Module, tensor: Tensor) -> int:
    if isinstance(module, TFMBSPackedLinear) and tensor is module._buffers.get("_panels"):
        return module.out_features * module.in_features
    if bitnet.kind(module) == "BitLinear" and tensor is module._buffers.get("weight"):
        return 4 * tensor.numel()
    return tensor.numel()


def _float_bits(weights: Mapping[str, Tensor]) -> float:
    values = sum(t.numel() for t in weights.values())
    size = sum(t.numel() * t.element_size() for t in weights.values())
    return 8 * size / values if values else 0.0


def _float_reason(module: nn.Module, choice: Choice) -> str:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return "look-up table"
    if type(module).__name__.endswith(_NORMS):
        return "norm"
    if bitnet.kind(module) is not None:
        return "not converted"
    if not isinstance(module, nn.Linear):
        return f"no nn.Linear ({type(module).__name__})"
    return choice.left_alone(module) or "not converted"


def _unread_reason(module: FabricLayer, choice: Choice) -> str | None:
    """Why a ternary layer's product would be one of floats: a parent that reads its weight."""
    for read_parent, _, read in choice.reads(module):
        if (
            isinstance(read_parent, nn.TransformerEncoderLayer)
            and not read_parent.activation_relu_or_gelu
        ):
            continue
        if isinstance(read_parent, nn.TransformerEncoder) and not read_parent.use_nested_tensor:
            continue
        return f"weight read by {read.function}"
    return None


def _row(module: ModuleSummary, counted: bool) -> list[str]:
    cells = [
        module.path or "(model)",
        module.reason,
        f"{module.bits_per_weight:.3g}",
        _quantity(module.bytes),
        _percent(module.parameter_share),
    ]
    if counted:
        uncalled = module.ternary and module.calls == 0
        cells.append("not called" if uncalled else _percent(module.mac_share or 0))
    return cells


def _quantity(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _shortened(path: str, width: int) -> str:
    """The end of a path names the layer, so its middle goes."""
    if len(path) <= width:
        return path
    front = (width - 1) // 3
    return f"{path[:front]}…{path[front + 1 - width :]}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
