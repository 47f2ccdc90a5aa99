"""From a placement that was found to decisions that can be read."""

from __future__ import annotations

from collections.abc import Sequence

from .. import _fabric
from .costs import ForwardCosts
from .plan import Decision, Plan, tiles_text
from .search import Outcome, Place


def plan_of(
    costs: ForwardCosts,
    chosen: Outcome,
    default: Outcome,
    cpu_cycles: Sequence[float] | None,
    candidates: int,
) -> Plan:
    """The plan of `chosen`; where that is `default` itself, everything in it is automatic."""
    decisions = [
        _decision(costs, layer, chosen, default, cpu_cycles)
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
    cpu_cycles: Sequence[float] | None,
) -> Decision:
    work, place = costs.workloads[layer], chosen.places[layer]
    automatic = chosen is default
    alternatives = _alternatives(costs, layer, chosen)
    if cpu_cycles is not None:
        alternatives["cpu"] = cpu_cycles[layer]
    address = None
    if place.first_word is not None:
        address = costs.config.bank_a_base(0) + 4 * place.first_word
    return Decision(
        layer=work.layer,
        action=_action(chosen, layer),
        tile_mask=None if automatic or not place.tile_mask else place.tile_mask,
        weight_addr=address,
        cycles=chosen.layer_cycles[layer],
        default_cycles=default.layer_cycles[layer],
        alternatives=alternatives,
        reason=_reason(costs, layer, chosen, default, alternatives),
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
    alternatives: dict[str, float],
) -> str:
    work, place = costs.workloads[layer], chosen.places[layer]
    action = _action(chosen, layer)
    cycles, before = chosen.layer_cycles[layer], default.layer_cycles[layer]
    figures = f"{cycles:,.0f} cycles a forward of {_samples(work.samples)}"
    policy = f"{before:,.0f} under the default policy, which would {_verb(_action(default, layer))}"
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
        why = f"takes turns with others: {share}, loaded anew"
    else:
        window = chosen.admissions[layer][0].words
        why = f"streams through {window:,} words: it needs {share}"
    if chosen is default:
        return f"{why}; {figures} ({basis}); no other placement is enough better"
    return f"{why}; {figures} against {policy} ({basis})"


def _verb(action: str) -> str:
    return {"resident": "keep it", "reload": "reload it", "stream": "stream it"}[action]


def _samples(count: int) -> str:
    return f"{count} sample" if count == 1 else f"{count:,} samples"


def places_of(plan: Plan, layers: Sequence[str]) -> list[Place] | None:
    """The placement that a plan gives to these layers, in this order; None where it has not all."""
    decisions = {decision.layer: decision for decision in plan.decisions}
    places = []
    for name in layers:
        decision = decisions.get(name)
        if decision is None:
            return None
        if decision.action == "cpu":
            places.append(Place(0, None))
            continue
        mask = decision.tile_mask or _fabric.default_tile_mask(plan.config, decision.out_features)
        word = None
        if decision.weight_addr is not None:
            word = (decision.weight_addr - plan.config.bank_a_base(0)) // 4
        places.append(Place(mask, word))
    return places
