"""convert: the nn.Linears of any model, on the fabric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import ConversionError
from ..nn.changes import announce
from ..nn.linear import DTYPES, TFMBSLinear
from ..nn.packed import TFMBSPackedLinear
from ..nn.parents import call_layers
from ..quantization import own_scale, quantizers
from . import bitnet
from .again import apply_again
from .choice import (
    ADAPTER,
    HEAD,
    Choice,
    computes_as_linear,
    is_candidate,
    is_peft_layer,
)
from .summary import log_line
from .swap import carry_over, replace_modules, why_not_carried

#: Called with a module and its path in the model; True swaps it.
FilterFunction = Callable[[nn.Module, str], bool]

_LEAVE_OUT = "Leave it out with filter_fn"


def convert(
    model: nn.Module,
    filter_fn: FilterFunction | None = None,
    *,
    output_heads: bool = False,
    adapters: bool = False,
    **layer_options: Any,
) -> nn.Module:
    """Swaps the linear layers of a model for TFMBSLinears, in place, and returns the model.

    The parameters are kept, not copied: optimizers, tied weights and ``state_dict`` go on as
    before. Hooks, buffers, further parameters and attributes move along. Each layer is named after
    its path in the model. A module that appears twice is swapped once. A weight that is ternary
    already keeps its own scale (and then the ``state_dict`` has it, as ``weight_scale``).

    What stays in floats and holds weights goes to the log (``logging``, logger "pytfmbs") in one line;
    ``pytfmbs.summary`` lists it.

    model: any module; an nn.Linear itself gives a TFMBSLinear.
    filter_fn: which to swap (module, path). None swaps every nn.Linear, and transformers' BitNet
        layers, but for output heads, adapters, and subclasses of nn.Linear. A filter's yes is for
        any of them.
    output_heads: without a filter, also swaps the layers that give a model's outputs: what
        ``get_output_embeddings`` returns, "lm_head", a weight that is an embedding's too.
    adapters: without a filter, also swaps the layers that fine-tuning adds (LoRA's).
    layer_options: for every TFMBSLinear (``weight_quantizer``, ``activation``, ``fabric``, ...). They
        are applied to layers that are ternary already too.

    Raises ConversionError, a TypeError, for a module that cannot be taken right; it says path,
    reason and what to do. Raises what TFMBSLinear raises. The model is as before then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, not {type(model).__name__}")
    if filter_fn is not None and not callable(filter_fn):
        raise TypeError(f"filter_fn must be callable or None, not {type(filter_fn).__name__}")
    ternary: list[tuple[str, TFMBSLinear | TFMBSPackedLinear]] = []
    if layer_options:
        ternary = [
            (path or "linear", module)
            for path, module in model.named_modules()
            if isinstance(module, (TFMBSLinear, TFMBSPackedLinear))
            and (filter_fn is None or filter_fn(module, path))
        ]
    chosen, mended = choose(model, filter_fn, output_heads=output_heads, adapters=adapters)
    made = {module: ternary_layer(module, path, layer_options) for path, module in chosen}
    apply_again(ternary, layer_options)
    for module, layer in made.items():
        carry_over(module, layer)
    for parent in mended:
        call_layers(parent)
    model = replace_modules(model, made)
    log_line(model, swapped=len(made))
    announce(model)
    return model


def choose(
    model: nn.Module,
    filter_fn: FilterFunction | None,
    *,
    output_heads: bool = False,
    adapters: bool = False,
) -> tuple[list[tuple[str, nn.Module]], set[nn.Module]]:
    """The modules that convert takes, with their paths, and the ancestors that then must call their
    layers (``call_layers``). The model may be on the meta device. Raises ConversionError as convert
    does."""
    choice = Choice(model)
    asked_for = {HEAD: output_heads, ADAPTER: adapters}

    def takes(module: nn.Module, path: str) -> bool:
        if filter_fn is not None:
            return bool(filter_fn(module, path))
        reason = choice.left_alone(module)
        return reason is None or asked_for.get(reason, False)

    chosen = [
        (path or "linear", module)
        for path, module in model.named_modules()
        if is_candidate(module) and takes(module, path)
    ]
    mended: set[nn.Module] = set()
    for path, module in chosen:
        _check(module, path, choice)
        mended |= _readers_to_mend(module, path, choice)
    return chosen, mended


def ternary_layer(module: nn.Module, path: str, options: dict[str, Any]) -> TFMBSLinear:
    """The trainable layer of a module that ``choose`` gave. Raises ConversionError for a weight that is
    ternary by groups of inputs."""
    if bitnet.kind(module) is not None:
        return bitnet.ternary_layer(module, path, options)
    assert isinstance(module, nn.Linear)
    layer = TFMBSLinear(
        module.in_features,
        module.out_features,
        module.bias is not None,
        device="meta",  # no memory and no initialization for parameters that are replaced at once
        dtype=module.weight.dtype,
        **{"name": path, **options},
    )
    layer._parameters.update({name: module._parameters[name] for name in ("weight", "bias")})
    layer._note_storage()
    layer.train(module.training)
    layer._see_own_scale(assigned=False, signs=True)
    check_groups(layer, path)
    return layer


def check_groups(layer: TFMBSLinear, path: str) -> None:
    """Raises ConversionError for a weight that is ternary by groups of inputs."""
    if quantizers.is_built_in(layer._weight_quantizer):
        size = own_scale.group_size(layer.weight)
        if size is not None and own_scale.own_scale(layer.weight) is None:
            raise ConversionError(
                path,
                "Linear",
                f"its weight is ternary with a scale for {size} inputs each, and a trainable layer has "
                "one, or one an output",
                f"Replace it by TFMBSPackedLinear.from_trits(..., group_size={size})",
            )


def _check(module: nn.Module, path: str, choice: Choice) -> None:
    """Raises ConversionError for a module whose numbers or state a ternary layer would lose."""
    kind = type(module)
    is_bitnet = bitnet.kind(module) is not None
    if not is_bitnet:
        weight = module._parameters.get("weight")
        shape = (int(module.out_features), int(module.in_features))  # type: ignore[arg-type]
        if weight is not None and is_lazy(weight):
            raise _refused(
                module,
                path,
                "its weight has no shape yet (lazy or parametrized?)",
                "Run the model once and convert then",
            )
        if weight is None or tuple(weight.shape) != shape:
            raise _refused(
                module,
                path,
                f"its weight is no parameter of shape {shape} (lazy or parametrized?)",
                "Remove the parametrization, weight norm or pruning first, or leave it out with "
                "filter_fn",
            )
        bias = module._parameters.get("bias")
        if bias is not getattr(module, "bias", None):
            raise _refused(
                module, path, "its bias is computed", f"Remove what computes it. {_LEAVE_OUT}"
            )
        for name, parameter in (("weight", weight), ("bias", bias)):
            if parameter is not None and _tensor_class(parameter) is not Tensor:
                raise _refused(
                    module,
                    path,
                    f"its {name} is a {_tensor_class(parameter).__name__}, a tensor class with ways of "
                    "its own",
                    "Convert before quantizing or sharding, or leave it out with filter_fn",
                )
        if weight.dtype not in DTYPES:
            allowed = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
            raise _refused(
                module, path, f"its weight is {weight.dtype}; allowed are {allowed}", _LEAVE_OUT
            )
        if not computes_as_linear(kind):
            raise _refused(
                module,
                path,
                "its class has a forward pass of its own, whose numbers convert does not know",
                f"{_LEAVE_OUT}, or replace it by an nn.Linear of the same numbers first",
            )
    if module.weight.device.type == "meta" and any(
        hasattr(parent, "_hf_hook") for parent in (module, *choice.ancestors(module))
    ):
        raise _refused(
            module,
            path,
            "its weight is offloaded: accelerate loads it for each call alone",
            "Load the model without offloading, or call accelerate.hooks.remove_hook_from_module("
            "model, recurse=True), and convert then; freeze makes it 16 times smaller",
        )
    if (found := why_not_carried(module, TFMBSLinear)) is not None:
        raise _refused(module, path, *found)
    for parent in choice.ancestors(module):
        adapters: Any = getattr(parent, "lora_variant", None)
        if is_peft_layer(parent) and adapters:
            variants = {type(adapter).__name__ for adapter in adapters.values()}
            raise _refused(
                module,
                path,
                f"its adapter computes with the float weight ({', '.join(sorted(variants))})",
                f"{_LEAVE_OUT}, or use plain LoRA",
            )


def _readers_to_mend(module: nn.Module, path: str, choice: Choice) -> set[nn.Module]:
    """Ancestors whose fused form reads the module's weight, and which can do without. Raises
    ConversionError for an ancestor that cannot."""
    mended: set[nn.Module] = set()
    for parent, parent_path, read in choice.reads(module):
        torchs = (nn.TransformerEncoderLayer, nn.TransformerEncoder)
        if isinstance(parent, torchs) and read.function in {
            f"{k.__name__}.forward" for k in torchs
        }:
            mended.add(parent)
            continue
        where = f"module {parent_path!r}" if parent_path else "the model"
        raise _refused(
            module,
            path,
            f"{read.function} ({where}, {read.where}) computes with its weight instead of calling it, "
            "so the product would be one of floats",
            _LEAVE_OUT,
        )
    return mended


def _tensor_class(parameter: Any) -> type:
    kind = type(parameter)
    return type(parameter.data) if kind is nn.Parameter else kind


def _refused(module: nn.Module, path: str, reason: str, remedy: str) -> ConversionError:
    return ConversionError(path, type(module).__name__, reason, remedy)
