"""prepare_for_decode: what a model's decode step can do faster is done so, and all of it undone."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from ..errors import ArgumentError
from .block import FusedLayer, fuse, is_decoder_layer, unfuse, why_not
from .head import Int8Linear, to_float, to_int8


@dataclass(frozen=True)
class DecodeReport:
    """What prepare_for_decode did.

    Attributes:
        fused: names of the decoder layers that compute a new position in one call.
        left: names of the other decoder layers, and why each was left as it was.
        head: name of the output head that is int8 now; None where none is.
    """

    fused: tuple[str, ...]
    left: dict[str, str] = field(default_factory=dict)
    head: str | None = None

    def __str__(self) -> str:
        lines = [f"{len(self.fused)} decoder layers fused, {len(self.left)} left"]
        for reason in dict.fromkeys(self.left.values()):
            names = [name for name, why in self.left.items() if why == reason]
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            lines.append(f"left: {names[0]}{more}: {reason}")
        if self.head is not None:
            lines.append(f"int8 output head: {self.head}")
        return "\n".join(lines)


def prepare_for_decode(
    model: nn.Module, *, fused_blocks: bool = True, int8_head: bool = False
) -> DecodeReport:
    """Makes a transformers model with packed ternary layers decode faster, in place.

    Args:
        model: a model as ``from_pretrained`` or ``pytfmbs.freeze`` leaves it.
        fused_blocks: each decoder layer computes one new position in one call: norms, products,
            rotary embedding, cache and attention. Ternary products are the same; sums of norms and
            attention are taken in another order, in fp32, so that the last bits of a result differ.
            Other calls (prefill, training, observed modules) compute as before.
        int8_head: the output head's weights and inputs are quantized to int8. This changes logits;
            ``compare_decoding`` says by how much.

    Raises ArgumentError, and leaves the model as it was, where nothing of what was asked for can be
    done, or the output head is no plain nn.Linear. ``restore_after_decode`` undoes it.
    """
    if not (fused_blocks or int8_head):
        raise ArgumentError("nothing to prepare: fused_blocks and int8_head are both False")
    layers = {
        name: module
        for name, module in model.named_modules()
        if fused_blocks and is_decoder_layer(module) and not isinstance(module, FusedLayer)
    }
    left = {name: why for name, layer in layers.items() if (why := why_not(layer)) is not None}
    already = [name for name, module in model.named_modules() if isinstance(module, FusedLayer)]
    fused = [name for name in layers if name not in left]
    if fused_blocks and not fused and not already:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(left.items())[:1])
        raise ArgumentError(
            f"no decoder layer can be fused ({reasons or 'the model has none'}). Without them, "
            "fused_blocks=False"
        )
    head = _output_head(model) if int8_head else None
    for name in fused:
        fuse(layers[name])
    if head is not None and type(head[1]) is nn.Linear:
        to_int8(head[1])
    return DecodeReport((*already, *fused), left, head[0] if head else None)


def restore_after_decode(model: nn.Module) -> None:
    """Undoes prepare_for_decode; a model that was not prepared stays as it is."""
    for module in list(model.modules()):
        if isinstance(module, FusedLayer):
            unfuse(module)
        elif isinstance(module, Int8Linear):
            to_float(module)


def _output_head(model: nn.Module) -> tuple[str, nn.Module]:
    get = getattr(model, "get_output_embeddings", None)
    head = get() if callable(get) else None
    if head is None:
        raise ArgumentError(
            f"{type(model).__name__} has no output head that get_output_embeddings() gives"
        )
    name = next(name for name, module in model.named_modules() if module is head)
    if type(head) not in (nn.Linear, Int8Linear):
        raise ArgumentError(
            f"the output head {name} is a {type(head).__name__}; only a plain nn.Linear becomes int8"
        )
    if head.weight.is_inference():
        raise ArgumentError(
            f"the output head {name} has a weight whose changes torch does not count: load the model "
            "outside of torch.inference_mode()"
        )
    return name, head
