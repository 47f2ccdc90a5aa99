"""What a forward costs where: cycles on the fabric, seconds on the CPU."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from .. import _fabric
from .._fabric import Fabric, FabricConfig
from ..nn.linear import TFMBSLinear
from ..quantization.activations import ACTIVATIONS
from .workload import OVERHEAD, Workload


class Cost(NamedTuple):
    """Of one forward: cycles, and words to and from host memory."""

    cycles: float
    words: float


class ForwardCosts:
    """The device's own estimate of each workload's forward, each asked for once."""

    def __init__(self, config: FabricConfig, workloads: Sequence[Workload]) -> None:
        self.config = config
        self.workloads = workloads
        self.bank_words: int = config.bank_depth * config.words_per_depth
        self._known: dict[tuple[int, int, bool, int, bool], Cost] = {}

    def passes(self, layer: int, tiles: int) -> int:
        work = self.workloads[layer]
        return self.words(layer, tiles) // (work.inputs * self.config.words_per_depth)

    def words(self, layer: int, tiles: int) -> int:
        """Words of Bank A that the layer takes in each of so many tiles."""
        work = self.workloads[layer]
        words: int = _fabric.placement_words(
            self.config, work.outputs, work.inputs, (1 << tiles) - 1
        )
        return words

    def forward(self, layer: int, tiles: int, streamed: bool, words: int, hit: bool) -> Cost:
        """words: the window's where streamed, else the layer's."""
        key = (layer, tiles, streamed, words, hit)
        if key not in self._known:
            self._known[key] = self._estimate(*key)
        return self._known[key]

    def _estimate(self, layer: int, tiles: int, streamed: bool, words: int, hit: bool) -> Cost:
        work = self.workloads[layer]

        def ask(cycles_per_job: float) -> dict[str, int]:
            # Which tiles and which words makes no difference to the time.
            return _fabric.estimate_forward(
                self.config,
                outputs=work.outputs,
                depth=work.inputs,
                samples=work.samples,
                activation=work.activation,
                tile_mask=(1 << tiles) - 1,
                first_word=0,
                words=words,
                streamed=streamed,
                loaded=hit,
                engine_cycles_per_job=cycles_per_job,
                group_depth=work.group_size,
            )

        chunks = ask(OVERHEAD)["chunks"]
        counts = ask(OVERHEAD + work.steps / chunks)
        return Cost(counts["cycles"], counts["mem_reads"] + counts["mem_writes"])


@dataclass(frozen=True)
class CpuCost:
    """Time that the CPU's kernels take: a call, and multiplications a second by activation."""

    call_seconds: float
    ternary_rate: float
    int8_rate: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name} is {value!r}; it must be above 0")

    def seconds(self, work: Workload) -> float:
        rate = self.int8_rate if work.activation == "int8" else self.ternary_rate
        return self.call_seconds + work.samples * work.inputs * work.outputs / rate

    @classmethod
    def measure(cls, repeats: int = 20) -> CpuCost:
        """Measures this machine, with torch's present number of threads; well under a second."""
        call = _best_seconds(1, 16, 16, "ternary", repeats)
        batch, width = 64, 1024
        rates = {
            activation: batch * width * width
            / max(_best_seconds(batch, width, width, activation, repeats) - call, 1e-9)
            for activation in ACTIVATIONS
        }  # fmt: skip
        return cls(call, rates["ternary"], rates["int8"])


def _best_seconds(samples: int, inputs: int, outputs: int, activation: str, repeats: int) -> float:
    """The fastest of several forwards: the others waited for something else."""
    fabric = Fabric(FabricConfig())
    fabric.telemetry = False  # as an offloaded layer's
    layer = TFMBSLinear(inputs, outputs, activation=activation, fabric=fabric).eval()
    x = torch.linspace(-1, 1, samples * inputs).reshape(samples, inputs)
    best = float("inf")
    with torch.inference_mode():
        layer(x)  # packs the weights
        for _ in range(repeats):
            begin = time.perf_counter()
            layer(x)
            best = min(best, time.perf_counter() - begin)
    return best
