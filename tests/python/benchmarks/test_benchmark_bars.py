"""What the benchmark suite's figures are held to: ratios, shares of ceilings, bars, growth. No figure
here means anything."""

from __future__ import annotations

import pytest
from benchmark_figures import FP32, GROWTH, INT8, TRIT, contest, everything, results, row

from benchmarks.suite import docs, judge
from benchmarks.suite.contestants import CONTESTANTS, from_cpp
from benchmarks.suite.judge import Group
from benchmarks.suite.results import Case, Contest
from benchmarks.suite.variants import VARIANTS, held_to


def test_ratios_are_of_the_same_round() -> None:
    case = Case(10, 10, "", 1, "hot")
    case.rows = {"a": row([1.0, 10.0, 2.0]), "b": row([2.0, 20.0, 4.0])}  # the machine drifted
    assert case.speed_ratio("a", "b") == 2.0
    case.rows["b"] = row([4.0, 4.0], rounds=[0, 2])  # too few in common: of the medians
    assert case.speed_ratio("a", "b") == 2.0
    assert case.speed_ratio("a", "nobody") is None


def test_the_fastest_is_the_one_of_the_rounds_in_common() -> None:
    case = Case(10, 10, "", 1, "hot")
    # "a" took part in the slow rounds alone: faster than "b" there, though slower by medians.
    case.rows = {
        "us": row([1.0, 1.0, 1.0, 1.0, 10.0, 10.0, 10.0]),
        "a": row([20.0, 20.0, 20.0], rounds=[4, 5, 6]),
        "b": row([3.0, 3.0, 3.0, 3.0, 30.0, 30.0, 30.0]),
        "wrong": row([0.1] * 7, check={"ok": False}),
    }
    assert case.rows["a"].median > case.rows["b"].median
    assert case.fastest(["b", "a", "wrong", "nobody"], "us") == ("a", 2.0)
    assert case.fastest(["wrong", "nobody"], "us") is None
    assert case.fastest(["a", "b"], "nobody") is None


def test_the_page_and_the_bars_name_one_fastest_peer() -> None:
    found = contest()
    rows = found.cases[0].rows
    rows[INT8] = row([1.0, 1.0, 1.0, 10.0, 10.0, 10.0])
    # Over fp32, whose time does not follow the machine's, the other is the faster one.
    rows[FP32] = row([100.0] * 6)
    rows["quick int8"] = row([20.0] * 3, rounds=[3, 4, 5])
    found.contestants["other"] = dict(found.contestants["quick int8"])
    rows["other"] = row([3.0, 3.0, 3.0, 30.0, 30.0, 30.0])
    against = {v.found.against for v in judge.judge(results(found)) if "fastest" in v.bar.text}
    assert against == {"quick int8"}
    assert [line[-1] for line in docs.times(found)] == ["quick int8: 20.0 s"]
    # Where int8 × ternary was not measured, to ternary × ternary.
    rows[TRIT] = rows.pop(INT8)
    assert [line[-1] for line in docs.times(found)] == ["quick int8: 20.0 s"]
    del rows[TRIT]
    assert [line[-1] for line in docs.times(found)] == ["–"]


def test_shares_of_ceilings_are_of_the_same_round() -> None:
    case = Case(10, 10, "", 1, "hot", {"peak": [100.0, 10.0, 50.0], "none": [0.0] * 3})
    case.rows = {"a": row([1.0, 10.0, 2.0])}
    assert case.share_of("peak", "a", 80.0) == pytest.approx(0.8)
    assert case.share_of("none", "a", 80.0) is None
    assert case.share_of("unknown", "a", 80.0) is None


def test_bars_are_judged_against_the_fastest_valid_peer() -> None:
    found = {v.bar.text: v for v in judge.judge(results(contest())) if v.bar.group is Group.ROW_HOT}
    peer = found["int8 × ternary, fastest baseline"]
    assert peer.found == judge.Found(pytest.approx(1.6), "quick int8")
    assert peer.met
    assert found["int8 × ternary, torch fp32"].found.value == pytest.approx(30)
    assert found["int8 × ternary, vpdpbusd peak"].found.value == pytest.approx(0.8)
    slower = contest()
    slower.cases[0].rows[INT8] = row([1.5e-3] * 4)
    assert not any(v.met for v in judge.judge(results(slower)) if v.bar.group is Group.ROW_HOT)


def test_cold_bars_are_bytes_and_bits() -> None:
    found = {v.bar.text: v for v in judge.judge(results(contest(state="cold")))}
    assert found["int8 × ternary, read bandwidth"].found.value == pytest.approx(0.9)
    assert found["int8 × ternary, bits per weight"].found.value == pytest.approx(1.6)
    assert all(verdict.bar.group is Group.ROW_COLD and verdict.met for verdict in found.values())


def test_small_layers_and_forced_kernels_have_bars_of_their_own() -> None:
    small = list(judge.judge(results(contest(depth=784))))
    assert {verdict.bar.group for verdict in small} == {Group.CALLS}
    forced = list(judge.judge(results(contest(kernels="avx2", best=False))))
    assert {verdict.bar.group for verdict in forced} == {Group.AVX2}
    assert {verdict.kernels for verdict in forced} == {"avx2"}


def bars_of(contest: Contest) -> list[tuple[str, str, str]]:
    return sorted(
        {(v.bar.group.value, v.bar.text, v.bar.aim) for v in judge.judge(results(contest))}
    )


def test_bars_of_avx512_do_not_bind_a_cpu_with_avx2_only() -> None:
    assert bars_of(everything("avx2")) == [
        ("AVX2", "int8 × ternary, fastest AVX2 baseline", "≥ 1.30×"),
        ("AVX2", "int8 × ternary, torch fp32 of AVX2", "≥ 2.50×"),
        ("calls", "int8 × ternary with telemetry, nn.Linear fp32", "≥ 1.00×"),
        ("calls", "int8 × ternary, nn.Linear fp32", "≥ 1.00×"),
        ("calls", "ternary × ternary with telemetry, nn.Linear fp32", "≥ 1.00×"),
        ("calls", "ternary × ternary, nn.Linear fp32", "≥ 1.00×"),
        ("many rows", "int8 × ternary, fastest baseline", "≥ 0.97×"),
        ("one row, cold", "int8 × ternary from C++, read bandwidth", "≥ 75 %"),
        ("one row, cold", "int8 × ternary, bits per weight", "≤ 1.65 bits"),
        ("one row, cold", "int8 × ternary, fastest baseline", "≥ 1.20×"),
        ("one row, cold", "int8 × ternary, read bandwidth", "≥ 75 %"),
        ("telemetry", "int8 × ternary, telemetry on : off", "≤ 1.10×"),
        ("telemetry", "int8 × ternary, telemetry on : off", "≤ 1.15×"),
        ("telemetry", "ternary × ternary, telemetry on : off", "≤ 1.10×"),
        ("ternary × ternary", "ternary × ternary, int8 × ternary", "≥ 1.00×"),
    ]
    assert {group for group, _, _ in bars_of(everything("avx2", best=False))} == {"AVX2"}


def test_bars_of_avx2_are_of_no_cpu_with_more_unless_it_is_forced() -> None:
    found = bars_of(everything("avx512"))
    assert {group for group, _, _ in found} == {
        "one row, hot", "one row, cold", "many rows", "ternary × ternary", "calls", "telemetry",
    }  # fmt: skip
    assert ("one row, cold", "int8 × ternary, read bandwidth", "≥ 85 %") in found
    assert not [aim for _, text, aim in found if "bandwidth" in text and aim != "≥ 85 %"]
    assert {bar.aim for bar in judge.BARS if bar.group is Group.ROW_HOT} == {
        aim for group, _, aim in found if group == "one row, hot"
    }


def test_a_cpu_with_avx_vnni_is_held_to_what_needs_no_vbmi() -> None:
    found = bars_of(everything("avxvnni"))
    assert {group for group, _, _ in found} == {
        "one row, cold", "many rows", "ternary × ternary", "calls", "telemetry",
    }  # fmt: skip
    assert {aim for _, text, aim in found if "bandwidth" in text} == {"≥ 75 %"}


@pytest.mark.parametrize("kernels", [name for name, v in VARIANTS.items() if v.targets])
def test_a_case_is_held_to_one_ratio_to_another_once(kernels: str) -> None:
    found = [
        (v.bar.name, v.found.against, v.bar.state, v.batch)
        for v in judge.judge(results(everything(kernels)))
        if v.bar.group
        is not Group.CALLS  # which holds every shape to fp32, and others large ones to multiples
    ]
    assert found
    assert len(found) == len(set(found))


def test_bars_that_are_left_out_are_said() -> None:
    avx2, avx512 = contest(kernels="avx2"), contest(kernels="avx512")
    assert (
        judge.left_out(results(avx2))
        == "Not checked: targets of CPUs whose own ISA variant is avx512."
    )
    others = " or ".join(sorted(held_to("avx2") | held_to("without_vbmi")))
    assert (
        judge.left_out(results(avx512))
        == f"Not checked: targets of CPUs whose own ISA variant is {others}."
    )
    assert judge.left_out(results(avx2, avx512)) == ""


def test_layers_from_cpp_have_bars_of_the_machines_limits() -> None:
    for state, bar in (("hot", "vpdpbusd peak"), ("cold", "read bandwidth")):
        measured_contest = contest(state=state)
        rows = measured_contest.cases[0].rows
        rows[from_cpp.Int8Cpp.name] = row([0.96e-3] * 4)
        found = {v.bar.text: v.found.value for v in judge.judge(results(measured_contest))}
        assert found[f"int8 × ternary from C++, {bar}"] == pytest.approx(
            found[f"int8 × ternary, {bar}"] / 0.96
        )


def test_every_bar_is_of_somebody_who_takes_part() -> None:
    assert {bar.name for bar in judge.BARS} <= {kind.name for kind in CONTESTANTS}


def test_every_target_of_a_variant_is_one_of_a_bar() -> None:
    named = {target for variant in VARIANTS.values() for target in variant.targets}
    assert {held_to(target) for target in named} == {bar.sets for bar in judge.BARS if bar.sets}


def test_every_aim_has_a_bar_and_every_bar_one_limit() -> None:
    assert {bar.group for bar in judge.BARS} == set(Group) - {Group.GROWTH}
    assert all((bar.least is None) != (bar.most is None) for bar in judge.BARS)


def test_growth_is_the_spread_and_the_speed_up() -> None:
    found = {verdict.text: verdict for verdict in judge.judge_growth(GROWTH)}
    weights = found[f"{INT8}, cache: time per weight, 8,388,608 to 16,777,216 weights, 1 thr."]
    assert (weights.value, weights.met) == (pytest.approx(1.1), True)
    rows = found[f"{TRIT}, 4096→4096: time per row, 64 to 128 rows, 1 thr."]
    assert (rows.value, rows.met) == (pytest.approx(1.25), False)
    assert f"{INT8}, cache: time per weight, 16,777,216 weights, 2 thr." in found
    assert found[f"{INT8}, 16,777,216 weights: two threads"].value == pytest.approx(2.0)
