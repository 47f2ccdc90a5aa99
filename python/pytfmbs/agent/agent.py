"""AdaptiveRuntimeAgent: telemetry in, placement out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .._fabric import FabricConfig
from . import application, decide, records
from .application import Application
from .costs import CpuCost, ForwardCosts
from .decide import Told
from .history import History, Observation
from .plan import Plan
from .search import Outcome, Progress, Search
from .workload import Workload, workloads


class AdaptiveRuntimeAgent:
    """Decides from telemetry which layers of a network stay in a fabric's Bank A, and where.

        agent = AdaptiveRuntimeAgent()
        model(batch)                            # as it will run
        agent.observe(model)
        plan = agent.decide()
        applied = agent.apply(plan, model)      # applied.revert() undoes it

    One agent plans for one network on one device. Left alone, a device keeps what was used last; a
    network that does not fit then loads every layer on every forward. The agent looks for a better
    placement, plays each candidate on the device's own rules, and leaves everything as it is where
    nothing is better by `min_gain`.

    Args:
        config: the device's; None is the default one's.
        cpu: what the CPU takes for a layer (see CpuCost.measure). None: every layer stays on the
            fabric.
        clock_hz: the fabric's clock, to compare its cycles with the CPU's seconds.
        min_gain: share of the cycles that a change must be predicted to save.
        max_candidates: placements tried at most; a decision is the same every time.

    Raises ValueError for a figure that cannot be.
    """

    def __init__(
        self,
        config: FabricConfig | None = None,
        *,
        cpu: CpuCost | None = None,
        clock_hz: float = 200e6,
        min_gain: float = 0.02,
        max_candidates: int = 5_000,
    ) -> None:
        if config is not None and not isinstance(config, FabricConfig):
            raise TypeError(f"config must be a FabricConfig or None, not {type(config).__name__}")
        if cpu is not None and not isinstance(cpu, CpuCost):
            raise TypeError(f"cpu must be a CpuCost or None, not {type(cpu).__name__}")
        if not clock_hz > 0:
            raise ValueError(f"clock_hz is {clock_hz!r}; it must be above 0")
        if not 0 <= min_gain < 1:
            raise ValueError(f"min_gain is {min_gain!r}; allowed is 0 to below 1")
        if max_candidates < 1:
            raise ValueError(f"max_candidates is {max_candidates!r}; it must be 1 or more")
        self.config = FabricConfig() if config is None else config
        self.cpu = cpu
        self.clock_hz = clock_hz
        self.min_gain = min_gain
        self.max_candidates = max_candidates
        self._history = History()
        self._applied: list[tuple[Plan, Application]] = []  # since a model was observed

    def __repr__(self) -> str:
        return (
            f"AdaptiveRuntimeAgent(config={self.config!r}, cpu={self.cpu!r}, "
            f"clock_hz={self.clock_hz!r}, min_gain={self.min_gain!r}, "
            f"max_candidates={self.max_candidates!r})"
        )

    # --- telemetry ----------------------------------------------------------------------------

    @property
    def history(self) -> History:
        """What was observed, oldest first."""
        return self._history

    def observe(
        self,
        source: Mapping[str, Any]
        | Iterable[Mapping[str, Any]]
        | nn.Module
        | str
        | os.PathLike[str],
    ) -> Observation:
        """Adds one observation to the history, and returns it.

        source: ``Fabric.profile_detailed()``; a ``telemetry_hint`` or several; a model, whose hints
        and counters are read; or an MLIR module, as text or as the path of a file. Counters may have
        gone on since the last observation or begun anew.

        Raises TelemetryError for telemetry that cannot be, ValueError for a model on another device
        or without TFMBSLinears, and what reading a module raises; nothing was observed then.
        """
        observation = self._read(source)
        self._history.add(observation)
        if observation.source == "model":
            self._applied = []
        return observation

    def _read(self, source: Any) -> Observation:
        if isinstance(source, nn.Module):
            return Observation("model", tuple(records.from_model(source, self.config)))
        if isinstance(source, (str, os.PathLike)):
            from ..compiler.execution.telemetry import read_telemetry

            return Observation("module", tuple(records.from_hints(read_telemetry(source))))
        if isinstance(source, Mapping):
            if "layers" in source:
                return Observation("profile", tuple(records.from_profile(source)))
            return Observation("hints", tuple(records.from_hints([source])))
        if isinstance(source, Iterable):
            return Observation("hints", tuple(records.from_hints(source)))
        raise TypeError(
            "telemetry is a profile, a telemetry_hint or a list of them, a model, or an MLIR module, "
            f"not {type(source).__name__}"
        )

    def save_history(self, path: str | os.PathLike[str]) -> None:
        """Writes the history as JSON with a version, whole or not at all. Raises OSError."""
        self._history.save(path)

    def load_history(self, path: str | os.PathLike[str]) -> None:
        """Takes the history of a file in place of its own.

        Raises OSError, and TelemetryError for a file that is broken, of another kind or of another
        version; the agent is as it was then.
        """
        self._history = History.load(Path(path))

    # --- decisions ----------------------------------------------------------------------------

    def decide(self, *, samples: int | None = None, progress: Progress | None = None) -> Plan:
        """A plan for all layers of the history, each taken to run once a forward, in the order in
        which they were first seen.

        samples: of one forward pass; None takes them from the counters, and 1 without counters.
        progress: called with candidates tried, the most there will be, and the least cycles so far.

        Raises TelemetryError where no layer was observed, or one whose shape is not known or that is
        too large for any device; ValueError for samples that cannot be.
        """
        if samples is not None and (
            isinstance(samples, bool) or not isinstance(samples, int) or samples < 1
        ):
            raise ValueError(f"samples is {samples!r}; it must be an integer from 1 on, or None")
        work = workloads(self._history, self.config, samples)
        if not work:
            raise records.TelemetryError("nothing to decide: no layer was observed")
        cpu_cycles = None
        if self.cpu is not None:
            cpu_cycles = [self.cpu.seconds(layer) * self.clock_hz for layer in work]
        costs = ForwardCosts(self.config, work)
        search = Search(costs, cpu_cycles, self.max_candidates, progress)
        default, told = self._present(search, work)
        chosen = default
        if cpu_cycles is not None or default.misses:
            found = search.run([default.places])
            if found.cycles < default.cycles * (1 - self.min_gain):
                chosen = found
        return decide.plan_of(costs, chosen, default, told, cpu_cycles, search.tried)

    def _present(self, search: Search, work: Sequence[Workload]) -> tuple[Outcome, list[Told]]:
        """The placement in force: a plan that was applied since, else as observed, else automatic."""
        plans = [plan for plan, applied in self._applied if not applied.reverted]
        known = decide.told_by_history(self._history, work, self.config)
        if plans:
            known = decide.told_by_plan(plans[-1])
        told = [known.get(layer.layer, Told()) for layer in work]
        places = decide.places_of(told, work, self.config, self.cpu is not None)
        present = None if places is None else search.play(places)
        if present is not None:
            return present, told
        automatic = search.play(search.automatic_places())
        assert automatic is not None  # nobody is in another's way
        return automatic, [Told()] * len(told)

    def apply(self, plan: Plan, model: nn.Module) -> Application:
        """Carries a plan out on a model, whose layers are found by name. Where one changes, all are
        loaded again; a default plan changes none. Returns what can revert it.

        Raises ValueError where the model's layers are not the plan's, PlacementError where others on
        the device are in the way; addresses, masks and pins are as before then.
        """
        if plan.config != self.config:
            raise ValueError(f"the plan is for {plan.config!r}, and the agent for {self.config!r}")
        applied = application.apply(plan, model)
        if not plan.default:
            self._applied.append((plan, applied))
        return applied
