"""What a layer's forward asks of the device, derived from the history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .. import _fabric
from .._fabric import FabricConfig
from ..errors import FabricError
from .history import History
from .records import LayerRecord, TelemetryError

OVERHEAD: int = _fabric.PASS_OVERHEAD_CYCLES


@dataclass(frozen=True)
class Workload:
    """samples: of a mean forward. steps: engine steps of a sample in one pass, all planes; where
    nothing was measured, what the sparsity of the weights lets expect with no zero activation.
    """

    layer: str
    inputs: int
    outputs: int
    activation: str
    samples: int
    steps: float
    measured: bool
    sparsity: float | None = None
    group_size: int = 0  # inputs that share a scale; 0: all do

    @property
    def groups(self) -> int:
        return -(-self.inputs // self.group_size) if self.group_size else 1

    @property
    def words(self) -> int:
        """Activation words of one plane: the last of a group may be partial."""
        size = self.group_size or self.inputs
        whole, rest = divmod(self.inputs, size)
        return whole * -(-size // _fabric.TRITS_PER_WORD) + -(-rest // _fabric.TRITS_PER_WORD)


@dataclass
class _Known:
    """What the history says of one layer. runs: tile mask and counters, each from a fresh start."""

    record: LayerRecord
    runs: list[tuple[int | None, Mapping[str, int]]] = field(default_factory=list)

    def learn(self, record: LayerRecord) -> None:
        news = {key: value for key, value in vars(record).items() if value is not None}
        self.record = replace(self.record, **news)
        if record.counters:
            self._count(record.tile_mask, record.counters)

    def _count(self, mask: int | None, counters: Mapping[str, int]) -> None:
        # Counters only grow until a reset or a move: what grew goes on, what fell began anew.
        if self.runs:
            last_mask, last = self.runs[-1]
            if last_mask == mask and all(counters.get(key, 0) >= last[key] for key in last):
                self.runs.pop()
        self.runs.append((mask, counters))


def workloads(history: History, config: FabricConfig, samples: int | None) -> list[Workload]:
    """One for each layer of the history that has weights, in the order in which they were seen.

    samples: of a forward, in place of what the counters say.
    Raises TelemetryError for a layer whose shape no observation gives, or that no device could run.
    """
    known: dict[str, _Known] = {}
    for observation in history:
        for record in observation.layers:
            if record.layer not in known:
                known[record.layer] = _Known(LayerRecord(record.layer))
            known[record.layer].learn(record)
    shapeless = [
        name
        for name, layer in known.items()
        if layer.record.in_features is None or layer.record.out_features is None
    ]
    if shapeless:
        raise TelemetryError(
            f"the shape of {', '.join(map(repr, shapeless))} is unknown: a profile has no shapes; "
            "observe the model, its telemetry_hints or its module too"
        )
    found = []
    for name, layer in known.items():
        if layer.record.in_features and layer.record.out_features:
            try:
                work = _workload(layer, config, samples)
                _streamed_forward(work, config, _mask(work, config, None), work.samples)
            except FabricError as error:  # of another geometry, or too large to be run
                raise TelemetryError(f"layer {name!r}: {error}") from error
            found.append(work)
    return found


def _workload(known: _Known, config: FabricConfig, samples: int | None) -> Workload:
    record = known.record
    assert record.in_features is not None
    assert record.out_features is not None
    work = Workload(
        layer=record.layer,
        inputs=record.in_features,
        outputs=record.out_features,
        activation=record.activation or "ternary",
        samples=1 if samples is None else samples,
        steps=0.0,
        measured=False,
        sparsity=record.sparsity,
        group_size=record.group_size or 0,
    )
    forwards = seen = sample_passes = steps = 0.0
    for mask, counters in known.runs:
        passes, words = _sample_traffic(work, config, mask)
        run_samples = counters.get("broadcasts", 0) / words
        if not run_samples:
            continue
        jobs = passes * counters.get("mem_writes", 0) / work.outputs
        forwards += counters.get("residency_hits", 0) + counters.get("residency_misses", 0)
        seen += run_samples
        sample_passes += run_samples * passes
        steps += counters.get("compute_cycles", 0) - OVERHEAD * jobs
    if not sample_passes:
        return replace(work, steps=_expected_steps(work, config, work.sparsity))
    if samples is None:
        work = replace(work, samples=max(1, round(seen / max(forwards, 1))))
    most = _expected_steps(work, config, None)
    return replace(work, steps=min(max(0.0, steps / sample_passes), most), measured=True)


def _sample_traffic(work: Workload, config: FabricConfig, mask: int | None) -> tuple[int, int]:
    """Passes under a mask, and the activation words that a sample is sent in all of them."""
    mask = _mask(work, config, mask)
    one, two = (_streamed_forward(work, config, mask, samples) for samples in (1, 2))
    # Of what one more sample reads, all but the partial sums: one fewer a result than it writes.
    partial = two["mem_writes"] - one["mem_writes"] - work.outputs * work.groups
    return one["passes"], two["mem_reads"] - one["mem_reads"] - partial


def _mask(work: Workload, config: FabricConfig, given: int | None) -> int:
    mask: int = _fabric.default_tile_mask(config, work.outputs) if given is None else given
    return mask


def _streamed_forward(
    work: Workload, config: FabricConfig, mask: int, samples: int
) -> dict[str, Any]:
    """Counts of a forward through a whole bank as the window, as any layer can."""
    return _fabric.estimate_forward(
        config,
        outputs=work.outputs,
        depth=work.inputs,
        samples=samples,
        activation=work.activation,
        tile_mask=mask,
        first_word=0,
        words=config.bank_depth * config.words_per_depth,
        streamed=True,
        loaded=False,
        engine_cycles_per_job=OVERHEAD,
        group_depth=work.group_size,
    )


def _expected_steps(work: Workload, config: FabricConfig, sparsity: float | None) -> float:
    """Of weights with zeros anywhere: a depth is skipped where it is empty across a tile's lanes, and
    a word costs a cycle at least (docs/fabric.md, "Engine"). None: every depth is a step."""
    passes, sample_words = _sample_traffic(work, config, None)
    planes = sample_words // (passes * work.words)
    lanes = min(config.lanes, work.outputs)
    empty = 0.0 if sparsity is None else sparsity**lanes
    return planes * max(work.words, work.inputs * (1 - empty))
