"""A transformers decoder layer that computes one new position in one call (cpp/decode)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from ..nn.packed import TFMBSPackedLinear
from ..ops import decode_ops
from ..ops.observers import FORWARD_MODE
from ..ops.transforms import differentiated
from .caches import place_in, taken

#: Decoder layers whose arithmetic the C++ block has: attention's and the feed-forward part's classes.
_KNOWN = {
    ("transformers.models.llama.modeling_llama", "Llama"),
    ("transformers.models.bitnet.modeling_bitnet", "BitNet"),
    ("transformers.models.mistral.modeling_mistral", "Mistral"),
    ("transformers.models.qwen2.modeling_qwen2", "Qwen2"),
}
_PRODUCTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_DTYPES = (torch.float32, torch.bfloat16)
_MOST_HEAD_SIZE = 512
_BLOCK = "_tfmbs_block"
_NO_BIAS = torch.empty(0)
#: transformers' names of the functions between gate and up.
_GATES = {"silu": "silu", "swish": "silu", "relu2": "relu2"}
#: Classes that compute them.
_GATE_CLASSES = {"silu": ("SiLU", "SiLUActivation"), "relu2": ("ReLUSquaredActivation",)}


def is_decoder_layer(module: nn.Module) -> bool:
    """Whether a module is a decoder layer by its parts, of a class that is known or not."""
    attention = getattr(module, "self_attn", None)
    return isinstance(attention, nn.Module) and hasattr(attention, "q_proj")


def why_not(layer: nn.Module) -> str | None:
    """Why a decoder layer cannot be computed in one call; None where it can."""
    kind = type(layer)
    family = kind.__name__.removesuffix("DecoderLayer")
    if (kind.__module__, family) not in _KNOWN or not kind.__name__.endswith("DecoderLayer"):
        names = ", ".join(sorted(f"{known}DecoderLayer" for _, known in _KNOWN))
        return f"its class is {kind.__name__}; known are {names}"
    attention: Any = layer.self_attn
    feed_forward: Any = layer.mlp
    for module, name in ((attention, f"{family}Attention"), (feed_forward, f"{family}MLP")):
        if (type(module).__module__, type(module).__name__) != (kind.__module__, name):
            return f"it holds a {type(module).__name__} where transformers' {name} was expected"
    for name, module in zip(_PRODUCTS, _products(layer), strict=True):
        if type(module) is not TFMBSPackedLinear:
            return (
                f"{name} is a {type(module).__name__}, not a TFMBSPackedLinear "
                "(pytfmbs.freeze makes packed layers of trained ones)"
            )
        if module._share is not None:
            return f"{name} is a process's part of a larger layer"
    if len({module.activation for module in _products(layer)}) > 1:
        return "its layers quantize their inputs differently"
    config = attention.config
    # Some families keep the window in the attention, some in the configuration alone.
    of_config = getattr(config, "sliding_window", None) if family == "Mistral" else None
    kinds = getattr(config, "layer_types", None) or ()
    kind_of_layer = kinds[attention.layer_idx] if kinds else "full_attention"
    window = getattr(attention, "sliding_window", of_config)
    if window is not None or kind_of_layer != "full_attention":
        return "its attention has a sliding window"
    if config.hidden_act not in _GATES:
        return f"its gate is {config.hidden_act}; known are {', '.join(sorted(_GATES))}"
    gate = type(feed_forward.act_fn).__name__
    if gate not in _GATE_CLASSES[_GATES[config.hidden_act]]:
        return f"its gate is a {gate}, and its configuration says {config.hidden_act}"
    size = attention.head_dim
    if size % 16 or size > _MOST_HEAD_SIZE:
        return f"its head size is {size}; allowed are multiples of 16 up to {_MOST_HEAD_SIZE}"
    norms = _norms(layer)
    expected = (kind.__module__, f"{family}RMSNorm")
    if any((type(norm).__module__, type(norm).__name__) != expected for norm in norms):
        return f"its norms are not {family}RMSNorm"
    if len({norm.variance_epsilon for norm in norms}) > 1:
        return "its norms have different epsilons"
    dtypes = {norm.weight.dtype for norm in norms}
    if len(dtypes) > 1 or not dtypes <= set(_DTYPES):
        return f"its norms are {', '.join(map(str, dtypes))}; allowed are float32 and bfloat16"
    return None


def fuse(layer: nn.Module) -> None:
    """Makes a decoder layer a fused one, in place. Precondition: why_not(layer) is None."""
    layer.__dict__[_BLOCK] = Block(layer)
    layer.__class__ = _fused_class(type(layer))


def unfuse(layer: FusedLayer) -> None:
    """Undoes it."""
    layer.__dict__.pop(_BLOCK, None)
    layer.__class__ = type(layer).__mro__[2]


def _products(layer: Any) -> tuple[Any, ...]:
    attention, feed_forward = layer.self_attn, layer.mlp
    parts = [attention] * 4 + [feed_forward] * 3
    return tuple(getattr(part, name) for part, name in zip(parts, _PRODUCTS, strict=True))


def _norms(layer: Any) -> tuple[Any, ...]:
    norms = [layer.input_layernorm, layer.post_attention_layernorm]
    if hasattr(layer.self_attn, "attn_sub_norm"):
        norms += [layer.self_attn.attn_sub_norm, layer.mlp.ffn_sub_norm]
    return tuple(norms)


def _observed(module: Any) -> bool:
    """Whether somebody looks at a module's calls, or has replaced them."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in module.__dict__


def _has_derivative() -> bool:
    """Whether forward mode or a transform of torch.func runs, which no_grad() does not turn off."""
    if torch.compiler.is_dynamo_compiling():
        return False
    mode, level = FORWARD_MODE
    return mode[level] >= 0 or differentiated()


class Block:
    """What a fused layer's call takes from its modules, found once."""

    def __init__(self, layer: nn.Module) -> None:
        owner: Any = layer
        attention: Any = owner.self_attn
        self.parts = (owner.self_attn, owner.mlp)
        self.products = _products(layer)
        self.norms = _norms(layer)
        self.act_fn = owner.mlp.act_fn
        self.config = attention.config
        self.heads: int = self.products[0].out_features // attention.head_dim
        self.feed_forward: int = self.products[4].out_features
        self.gate = _GATES[self.config.hidden_act]
        self.activation: str = self.products[0].activation
        self.group_sizes = [module.group_size or 0 for module in self.products]

    def is_whole(self, layer: Any) -> bool:
        """Whether the layer still consists of the modules found, and nobody observes them."""
        modules = layer._modules
        attention, feed_forward = self.parts
        if modules["self_attn"] is not attention or modules["mlp"] is not feed_forward:
            return False
        parts = [attention] * 4 + [feed_forward] * 3
        for part, name, module in zip(parts, _PRODUCTS, self.products, strict=True):
            if part._modules.get(name) is not module or _observed(module):
                return False
            # A parametrization has another class, a part of a larger layer a forward of its own.
            if type(module) is not TFMBSPackedLinear or module._share is not None:
                return False
        if feed_forward._modules.get("act_fn") is not self.act_fn or _observed(self.act_fn):
            return False
        if _norms(layer) != self.norms or any(_observed(norm) for norm in self.norms):
            return False
        return not (_observed(attention) or _observed(feed_forward) or _has_any_global_hook())

    def run(
        self,
        layer: Any,
        hidden: Tensor,
        mask: Tensor | None,
        cache: Any,
        angles: tuple[Tensor, Tensor] | None,
    ) -> Tensor | None:
        """The layer's output, or None where the layer must compute it as it always did."""
        attention: Any = self.parts[0]
        if (
            hidden.dim() != 3
            or hidden.shape[1] != 1
            or layer.training
            or attention.training
            or cache is None
            or angles is None
            or torch.is_grad_enabled()
            or hidden.dtype not in _DTYPES
            or torch.is_autocast_enabled("cpu")
            or _has_derivative()
            or (mask is not None and (mask.dim() != 4 or mask.shape[1] != 1 or mask.shape[2] != 1))
            or self.config._attn_implementation not in ("sdpa", "eager")
            or not self.is_whole(layer)
        ):
            return None
        norms = [norm._parameters.get("weight") for norm in self.norms]
        if any(weight is None or weight.dtype != hidden.dtype for weight in norms):
            return None
        epsilon: float = self.norms[0].variance_epsilon
        if any(norm.variance_epsilon != epsilon for norm in self.norms):
            return None
        index: int = attention.layer_idx  # another once a model's layers were renumbered
        place = place_in(cache, index, hidden)
        if place is None:
            return None
        biases = [module._parameters["bias"] for module in self.products]
        out: Tensor = decode_ops.decode_block(
            hidden,
            *angles,
            mask,
            *place,
            norms,
            epsilon,
            [module._buffers["_panels"] for module in self.products],
            [module._buffers["_scales"] for module in self.products],
            [_NO_BIAS if bias is None else bias for bias in biases],
            [module._own_identity for module in self.products],
            ",".join([module._layout for module in self.products]),
            self.group_sizes,
            self.activation,
            self.gate,
            self.heads,
            self.feed_forward,
            attention.scaling,
        )
        taken(cache, index)
        return out


class FusedLayer(nn.Module):
    """A decoder layer that computes one new position a sequence in one call, and all else as the
    class after it does: more positions, no cache, autograd, observed or replaced modules."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """As the layer's own: [sequences, positions, hidden size] to the same."""
        block: Block = self.__dict__[_BLOCK]
        out = block.run(self, hidden_states, attention_mask, past_key_values, position_embeddings)
        if out is not None:
            return out
        return super().forward(  # type: ignore[no-any-return]
            hidden_states,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )


_fused_classes: dict[type[nn.Module], type[nn.Module]] = {}


def _fused_class(kind: type[nn.Module]) -> type[nn.Module]:
    if kind not in _fused_classes:
        _fused_classes[kind] = type(f"Fused{kind.__name__}", (FusedLayer, kind), {})
    return _fused_classes[kind]
