"""freeze and thaw: a model's ternary layers, packed for inference and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ArgumentError, ConversionError
from ..nn.bitnet import BitNetLinear, BitNetPackedLinear
from ..nn.changes import announce
from ..nn.fabric_layer import FabricLayer
from ..nn.linear import TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from ..quantization.fixed_scale import check_held
from .swap import carry_over, replace_modules, why_not_carried

_PACKED: dict[type[nn.Module], type[TFMBSPackedLinear]] = {
    TFMBSLinear: TFMBSPackedLinear,
    BitNetLinear: BitNetPackedLinear,
}
#: Weights that are held twice at most while a model's layers are swapped.
_BATCH = 1 << 26


def freeze(
    model: nn.Module,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
    **options: Any,
) -> nn.Module:
    """Swaps the TFMBSLinears of a model for TFMBSPackedLinears, in place, one after the other, and
    returns the model. Numbers, names, places and telemetry stay; the float weights go. Hooks, buffers,
    further parameters and attributes move along.

    filter_fn: called with (module, path); only layers for which it is true are swapped. Leave out
        layers whose weight a parent module reads (T5's ``wo``).
    options: ``packing`` ("auto", "packed2", "packed_base3").
    Raises TypeError for a subclass of TFMBSLinear, ConversionError for a replaced ``forward``, and
    ArgumentError for float64 scales and weights on the meta device, each by its path; the model is as
    before then.
    """

    def check(path: str, layer: nn.Module) -> None:
        if type(layer) not in _PACKED:
            raise TypeError(
                f"{path!r}: a {type(layer).__name__} has ways of its own that a packed layer lacks; "
                "replace it by TFMBSLinear first (and its ReLU by nn.ReLU)"
            )
        _check_extras(path, layer, _PACKED[type(layer)], "Freeze")
        assert isinstance(layer, TFMBSLinear)
        _check_has_memory(path, layer.weight)
        wide = layer._custom or layer.weight.dtype == torch.float64
        if wide and not layer.has_float32_scales():
            raise ArgumentError(
                f"{path!r}: its scales are float64, which a packed layer would round to float32: "
                "convert the model with .float() first"
            )

    return _swap_all(
        model,
        TFMBSLinear,
        check,
        lambda layer: _PACKED[type(layer)].from_linear(layer, weight_addr=None, **options),
        filter_fn,
    )


def thaw(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """Swaps the TFMBSPackedLinears of a model for trainable TFMBSLinears that keep their trits and
    scales (``TFMBSLinear.from_trits``), in place, and returns the model.

    dtype: of the weights; None is the bias's, or torch's default.
    Raises ArgumentError for a layer with group scales, scales that are not above 0 or that dtype does
    not hold, or weights on the meta device, by its path; the model is as before then.
    """

    def trainable_kind(layer: TFMBSPackedLinear) -> type[TFMBSLinear]:
        return BitNetLinear if isinstance(layer, BitNetPackedLinear) else TFMBSLinear

    def weight_dtype(layer: TFMBSPackedLinear) -> torch.dtype:
        own = None if layer.bias is None else layer.bias.dtype
        return dtype or own or torch.get_default_dtype()

    def check(path: str, layer: nn.Module) -> None:
        assert isinstance(layer, TFMBSPackedLinear)
        _check_extras(path, layer, trainable_kind(layer), "Thaw")
        _check_has_memory(path, layer._panels)
        if layer.group_size is not None:
            raise ArgumentError(
                f"{path!r}: a trainable layer has one scale, or one an output, and this one has "
                f"one for {layer.group_size} inputs; train what dequantized_weight() gives instead"
            )
        if not bool(((layer.scale > 0) & torch.isfinite(layer.scale)).all()):
            raise ArgumentError(
                f"{path!r}: a trainable layer's scales are finite and above 0, and this layer has some "
                "that are not (NaN, where a weight was)"
            )
        try:
            check_held(layer.scale, weight_dtype(layer))
        except ArgumentError as error:
            raise ArgumentError(f"{path!r}: {error}") from None

    def trainable(layer: TFMBSPackedLinear) -> TFMBSLinear:
        trits, scale = layer.quantized_weight()
        made = trainable_kind(layer).from_trits(
            trits,
            scale,
            layer.bias,
            dtype=weight_dtype(layer),
            fabric=layer.fabric,
            activation=layer.activation,
            ste_clip=layer.ste_clip,
        )
        if isinstance(layer, BitNetPackedLinear):
            made.register_module("rms_norm", layer.rms_norm)
        return made.train(layer.training)

    return _swap_all(model, TFMBSPackedLinear, check, trainable)


def _check_extras(path: str, layer: nn.Module, target: type[nn.Module], verb: str) -> None:
    """Raises ConversionError for what the layer holds beside its own and the target cannot hold."""
    if (found := why_not_carried(layer, target, verb)) is not None:
        raise ConversionError(path, type(layer).__name__, *found)


def _check_has_memory(path: str, weight: Tensor) -> None:
    if weight.device.type == "meta":
        raise ArgumentError(f"{path!r}: its weight is on the meta device: load the weights first")


def _swap_all(
    model: nn.Module,
    kind: type[nn.Module],
    check: Callable[[str, nn.Module], None],
    make: Callable[[Any], FabricLayer],
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    found: list[tuple[str, nn.Module]] = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, kind) and (filter_fn is None or filter_fn(module, path))
    ]
    for path, module in found:
        check(path or "the model", module)
    # A batch at a time: replacing looks through the whole model, and two copies of it would be much.
    batch: dict[nn.Module, nn.Module] = {}
    held = 0
    for place, (_, module) in enumerate(found):
        assert isinstance(module, FabricLayer)
        try:
            made = make(module)
        except BaseException:  # those before it have left their places
            replace_modules(model, batch)
            raise
        made._succeed(module)
        module._leave_place()
        carry_over(module, made)
        batch[module] = made
        held += module.in_features * module.out_features
        if held >= _BATCH or place + 1 == len(found):
            model = replace_modules(model, batch)
            batch, held = {}, 0
    announce(model)
    return model
