"""From a placement that was found to decisions that can be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .. import _fabric
from .._fabric import FabricConfig
from .costs import ForwardCosts
from .history import History
from .plan import Decision, Plan, tiles_text
from .search import Outcome, Place
from .workload import Workload


class Told(NamedTuple):
    """What a layer is told; None is automatic."""

    tile_mask: int | None = None
    weight_addr: int | None = None
    offload: bool = False


def told_by_history(
    history: History, work: Iterable[Workload], config: FabricConfig
) -> dict[str, Told]:
    """What was last seen of each layer. A hint has the mask in force, whoever chose it, and does not
    say whether the address was given; a profile and a module are of any time."""
    automatic = {layer.layer: _fabric.default_tile_mask(config, layer.outputs) for layer in work}
    told: dict[str, Told] = {}
    for observation in history:
        for record in observation.layers:
            name, mask = record.layer, record.tile_mask
            if observation.source == "model":
                told[name] = Told(record.held_mask, record.held_addr, bool(record.offload))
            elif observation.source == "hints" and mask is not None:
                given = None if mask == automatic.get(name) else mask
                told[name] = told.get(name, Told())._replace(tile_mask=given)
    return told


def told_by_plan(plan: Plan) -> dict[str, Told]:
    return {
        decision.layer: Told(decision.tile_mask, decision.weight_addr, decision.action == "cpu")
        for decision in plan.decisions
    }


def places_of(
    told: Iterable[Told], work: Iterable[Workload], config: FabricConfig, cpu: bool
) -> list[Place] | None:
    """Where layers are that are told so; None where this device has no such place. cpu: off the
    fabric is a place."""
    places = []
    for (mask, address, offload), layer in zip(told, work, strict=True):
        if offload and cpu:
            places.append(Place(0, None))
            continue
        if mask is not None and mask >> config.tiles:
            return None
        word = None
        if address is not None and not offload:
            word, odd = divmod(address - config.bank_a_base(0), 4)
            if word < 0 or odd:
                return None
        places.append(Place(mask or _fabric.default_tile_mask(config, layer.outputs), word))
    return places


def plan_of(
    costs: ForwardCosts,
    chosen: Outcome,
    default: Outcome,
    told: Sequence[Told],
    cpu_cycles: Sequence[float] | None,
    candidates: int,
) -> Plan:
    """The plan of `chosen`; where that is `default` itself, it tells the layers what they are `told`
    already."""
    decisions = [
        _decision(costs, layer, chosen, default, told, cpu_cycles)
        for layer in range(len(costs.workloads))
    ]
    return Plan(
        config=costs.config,
        decisions=tuple(decisions),
        default=chosen is default,
        cycles=chosen.cycles,
        default_cycles=default.cycles,
        misses=chosen.misses,
        default_misses=default.misses,
        candidates=candidates,
    )


def _decision(
    costs: ForwardCosts,
    layer: int,
    chosen: Outcome,
    default: Outcome,
    told: Sequence[Told],
    cpu_cycles: Sequence[float] | None,
) -> Decision:
    work, place = costs.workloads[layer], chosen.places[layer]
    alternatives = _alternatives(costs, layer, chosen)
    if cpu_cycles is not None:
        alternatives["cpu"] = cpu_cycles[layer]
    if chosen is default:
        mask, address, _ = told[layer]
    else:
        mask, address = place.tile_mask or None, None
        if place.first_word is not None:
            address = costs.config.bank_a_base(0) + 4 * place.first_word
    automatic = all(not any(one) for one in told)
    return Decision(
        layer=work.layer,
        action=_action(chosen, layer),
        tile_mask=mask,
        weight_addr=address,
        cycles=chosen.layer_cycles[layer],
        default_cycles=default.layer_cycles[layer],
        alternatives=alternatives,
        reason=_reason(costs, layer, chosen, default, automatic, alternatives),
        in_features=work.inputs,
        out_features=work.outputs,
    )


def _action(outcome: Outcome, layer: int) -> str:
    admissions = outcome.admissions[layer]
    if not admissions:
        return "cpu"
    if all(admission.hit for admission in admissions):
        return "resident"
    return "stream" if all(admission.streamed for admission in admissions) else "reload"


def _alternatives(costs: ForwardCosts, layer: int, outcome: Outcome) -> dict[str, float]:
    mask = outcome.places[layer].tile_mask
    if not mask:
        mask = _fabric.default_tile_mask(costs.config, costs.workloads[layer].outputs)
    tiles = mask.bit_count()
    words = costs.words(layer, tiles)
    found: dict[str, float] = {}
    if words <= costs.bank_words:
        found["resident"] = costs.forward(layer, tiles, False, words, True).cycles
        found["reload"] = costs.forward(layer, tiles, False, words, False).cycles
    window = _fabric.wanted_window_words(costs.config)
    for admission in outcome.admissions[layer]:
        if admission.streamed:
            window = admission.words
    found["stream"] = costs.forward(layer, tiles, True, window, False).cycles
    return found


def _reason(
    costs: ForwardCosts,
    layer: int,
    chosen: Outcome,
    default: Outcome,
    automatic: bool,
    alternatives: dict[str, float],
) -> str:
    work, place = costs.workloads[layer], chosen.places[layer]
    action = _action(chosen, layer)
    cycles, before = chosen.layer_cycles[layer], default.layer_cycles[layer]
    figures = f"{cycles:,.0f} cycles per forward pass of {_samples(work.samples)}"
    present = "under the default policy" if automatic else "as it is"
    policy = f"{before:,.0f} {present}, which would {_verb(_action(default, layer))}"
    basis = "measured activations" if work.measured else "no activation counted as zero"
    if action == "cpu":
        best = min((alternatives[k], k) for k in alternatives if k != "cpu")
        return (
            f"the CPU takes the time of {cycles:,.0f} cycles for {_samples(work.samples)}; the fabric "
            f"would take {best[0]:,.0f} at best ({best[1]}), and its place is free for others"
        )
    words = costs.words(layer, place.tile_mask.bit_count())
    share = f"{words:,} of {costs.bank_words:,} words on tiles {tiles_text(place.tile_mask)}"
    if action == "resident":
        why = f"stays in Bank A, {share}"
    elif action == "reload":
        why = f"takes turns with others: {share}, loaded again"
    else:
        window = chosen.admissions[layer][0].words
        why = f"streams through {window:,} words: it needs {share}"
    if chosen is default:
        return f"{why}; {figures} ({basis}); no other placement is enough better"
    return f"{why}; {figures} against {policy} ({basis})"


def _verb(action: str) -> str:
    return {
        "resident": "keep it",
        "reload": "reload it",
        "stream": "stream it",
        "cpu": "leave it to the CPU",
    }[action]


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count:,} samples"
