"""Who takes part, in the order of the tables."""

from __future__ import annotations

from .base import Contestant
from .bitlinear import BitLinear
from .from_cpp import Int8Cpp, TritCpp
from .ggml import Tq1, Tq2
from .litespark import Litespark
from .onnx_runtime import DynamicInt8 as OnnxDynamicInt8
from .onnx_runtime import TwoBits
from .ours import Int8, Int8Telemetry, Trit, TritTelemetry
from .torch_layers import Bf16, DynamicInt8, Fp32

CONTESTANTS: tuple[type[Contestant], ...] = (
    Int8, Int8Telemetry, Int8Cpp, Trit, TritTelemetry, TritCpp,
    Fp32, Bf16, DynamicInt8, OnnxDynamicInt8, TwoBits, Tq1, Tq2, Litespark, BitLinear,
)  # fmt: skip
