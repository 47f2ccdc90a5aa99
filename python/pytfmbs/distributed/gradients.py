"""Straight-through gradients of a part of a layer, composed of torch's operations: a part quantizes with
magnitudes and scales of the whole, which the ops of whole layers (ops/straight_through.py, which has
the formula) do not take. A NaN is inside both windows, as there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

WEIGHT_CLIP = 1.0


def saved_for_backward(
    input: Tensor, weight: Tensor, ste_clip: float | None, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of input and weight what linear_gradients reads. The rest may be written in place meanwhile, as
    nn.Linear allows."""
    if weight.is_inference():
        weight = weight.clone()  # autograd keeps no inference tensor
    keeps_input = needs[1] or (needs[0] and ste_clip is not None)
    return input if keeps_input else None, weight if needs[0] or needs[1] else None


def linear_gradients(
    grad: Tensor,
    input: Tensor | None,
    weight: Tensor | None,
    quantized_input: Tensor | None,
    quantized_weight: Tensor | None,
    ste_clip: float | None,
    needs: tuple[bool, bool, bool],
    dtypes: tuple[torch.dtype, torch.dtype],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias, each None where not needed.

    grad: [..., out]. input: [..., in], for its window. weight: [out, in], for its own. quantized_*:
        x̂ and ŵ, of the same shapes. Each may be None where saved_for_backward says so. dtypes: the
        input's and the weight's.
    """
    grad = grad.to(dtypes[1])
    grad_input = grad_weight = grad_bias = None
    if needs[0]:
        assert quantized_weight is not None
        grad_input = grad.matmul(quantized_weight).to(dtypes[0])
        if ste_clip is not None:
            assert input is not None
            grad_input = grad_input * ~(input.abs() > ste_clip)
    # Not -1, which is ambiguous where there are no features.
    samples = math.prod(grad.shape[:-1])
    rows = grad.reshape(samples, grad.shape[-1])
    if needs[1]:
        assert weight is not None
        assert quantized_input is not None
        columns = quantized_input.to(weight.dtype).reshape(samples, weight.shape[1])
        grad_weight = rows.t().matmul(columns) * ~(weight.abs() > WEIGHT_CLIP)
    if needs[2]:
        grad_bias = rows.sum(0)
    return grad_input, grad_weight, grad_bias
