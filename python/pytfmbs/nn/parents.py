"""torch's own modules that compute with a child's ``weight`` instead of calling the child.

Whatever puts a ternary layer into one of them, the parent then calls the layer, or the assignment is
an error: torch tells of every child that a module gets.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from ..errors import ConversionError
from .fabric_layer import FabricLayer

_CROSS_ENTROPY: type[nn.Module] | None = getattr(nn, "LinearCrossEntropyLoss", None)  # torch 2.13


class UnfusedAttention(nn.MultiheadAttention):
    """nn.MultiheadAttention without its fused form, whose roundings differ: the same numbers with
    gradients and without. Of an encoder layer that calls its ternary layers."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention's."""
        swapped = self.batch_first and query.dim() == 3
        if swapped:
            same_key, same_value = key is query, value is key
            query = query.transpose(1, 0)
            # The same tensor again: it is projected in one product.
            key = query if same_key else key.transpose(1, 0)
            value = key if same_value else value.transpose(1, 0)
        separate: dict[str, Any] = {}
        if not self._qkv_same_embed_dim:
            separate = {
                "use_separate_proj_weight": True,
                "q_proj_weight": self.q_proj_weight,
                "k_proj_weight": self.k_proj_weight,
                "v_proj_weight": self.v_proj_weight,
            }
        output, weights = nn.functional.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
            **separate,
        )
        return output.transpose(1, 0) if swapped else output, weights


def call_layers(parent: nn.Module) -> None:
    """Turns off the fused forms of torch's encoder (layer), which read weights. The unfused ones call
    their layers and give the same numbers."""
    if isinstance(parent, nn.TransformerEncoderLayer):
        parent.activation_relu_or_gelu = 0
        if type(parent.self_attn) is nn.MultiheadAttention:
            parent.self_attn.__class__ = UnfusedAttention
    if isinstance(parent, nn.TransformerEncoder):
        parent.use_nested_tensor = False  # what only the fused layers take


def reading_parent(parent: nn.Module, name: str) -> str | None:
    """Why a parent of torch's cannot hold a ternary layer under a name; None where it can."""
    own = (nn.MultiheadAttention.forward, UnfusedAttention.forward)
    if name == "out_proj" and getattr(type(parent), "forward", None) in own:
        return "weight read by nn.MultiheadAttention, which does not call out_proj"
    if _CROSS_ENTROPY is not None and isinstance(parent, _CROSS_ENTROPY) and name == "linear":
        return "weight read by nn.LinearCrossEntropyLoss, which does not call linear"
    return None


def _on_registration(parent: nn.Module, name: str, child: Any) -> None:
    if not isinstance(child, FabricLayer):
        return
    reason = reading_parent(parent, name)
    if reason is not None:
        raise ConversionError(
            name,
            type(child).__name__,
            f"{reason}: the product would be one of floats",
            "Keep a float layer there",
        )
    if isinstance(parent, nn.TransformerEncoderLayer):
        call_layers(parent)


def register() -> None:
    """Has torch tell of every child that a module gets, from now on."""
    register_module_module_registration_hook(_on_registration)
