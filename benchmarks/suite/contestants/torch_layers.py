"""What torch itself has."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from .base import Call, Contestant, Layer, Unavailable, Weights


class ModuleLayer(Layer):
    """bytes: of the weights, in the module's own form; dtype: of the input."""

    def __init__(self, module: nn.Module, weight_bytes: int, dtype: torch.dtype) -> None:
        self.module, self.weight_bytes, self.dtype = module.eval(), weight_bytes, dtype

    def bind(self, x: Tensor) -> Call:
        module, cast = self.module, x.to(self.dtype)
        return lambda: module(cast)


def linear(weights: Weights, dtype: torch.dtype) -> nn.Linear:
    module = nn.Linear(weights.depth, weights.outputs, False, device="meta")
    module.weight = nn.Parameter(weights.floats().to(dtype, copy=True), requires_grad=False)
    return module


class Fp32(Contestant):
    name = "torch fp32"

    def build(self, weights: Weights) -> Layer:
        return ModuleLayer(linear(weights, torch.float32), 4 * weights.trits.size, torch.float32)


class Bf16(Contestant):
    """bf16 in and out, as a bf16 model has them."""

    name = "torch bf16"
    activation = "bf16"
    tolerance = 1e-2

    def build(self, weights: Weights) -> Layer:
        return ModuleLayer(linear(weights, torch.bfloat16), 2 * weights.trits.size, torch.bfloat16)


class DynamicInt8(Contestant):
    name = "torch quantize_dynamic int8"
    activation = "int8"
    tolerance = 4e-2  # FBGEMM may keep activations to 7 bits

    def __init__(self, threads: int, kernels: str, held: bool = False) -> None:
        super().__init__(threads, kernels, held)
        # FBGEMM, the default on x86, cannot be held to an instruction set; oneDNN can.
        if held:
            if "onednn" not in torch.backends.quantized.supported_engines:
                raise Unavailable("torch has no oneDNN quantized engine, FBGEMM cannot be held")
            torch.backends.quantized.engine = "onednn"

    def build(self, weights: Weights) -> Layer:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of torchao, and still faster
            from torch.ao.quantization import quantize_dynamic

            if "dynamic int8" not in weights.shared:
                model = nn.Sequential(linear(weights, torch.float32))
                weights.shared["dynamic int8"] = quantize_dynamic(model, {nn.Linear}, torch.qint8)
            module = copy.deepcopy(weights.shared["dynamic int8"])
        return ModuleLayer(module, weights.trits.size, torch.float32)
