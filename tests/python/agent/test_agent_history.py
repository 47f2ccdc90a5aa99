"""What the agent observes, from every source, and its history on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from agent_models import chain, layers
from cases import campaign
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import AdaptiveRuntimeAgent, Fabric, FabricConfig
from pytfmbs.agent import LayerRecord, TelemetryError
from pytfmbs.agent.workload import Workload, workloads
from torch import nn

NETWORK = Path(__file__).resolve().parents[2] / "mlir" / "network.mlir"


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(FabricConfig()) as fabric:
        yield fabric


def work(agent: AdaptiveRuntimeAgent, samples: int | None = None) -> list[Workload]:
    return workloads(agent.history, agent.config, samples)


# --- sources -------------------------------------------------------------------------------------


def test_a_model(fabric: Fabric) -> None:
    model = chain(fabric, (200, 33, 7), weight_quantizer="twn")
    model(torch.randn(5, 200))
    agent = AdaptiveRuntimeAgent()
    seen = agent.observe(model)
    assert seen.source == "model"
    assert agent.history[0] is seen
    rows = fabric.profile_detailed()["layers"]
    for record, layer in zip(seen.layers, layers(model), strict=True):
        hint = layer.telemetry_hint
        del hint["resident"]
        found = record.to_dict()
        counters = found.pop("counters")
        assert found == hint
        assert counters
        assert all(rows[layer.name][key] == value for key, value in counters.items())


def test_a_profile_and_hints_are_joined(fabric: Fabric) -> None:
    """Apart they know too little; together what the model's observation knows."""
    model = chain(fabric, (200, 33, 7), activation="int8")
    model(torch.randn(5, 200))
    whole = AdaptiveRuntimeAgent()
    whole.observe(model)
    parts = AdaptiveRuntimeAgent()
    assert parts.observe(fabric.profile_detailed()).source == "profile"
    with pytest.raises(TelemetryError, match="'fc1', 'fc2' is unknown"):
        parts.decide()
    assert parts.observe([layer.telemetry_hint for layer in layers(model)]).source == "hints"
    assert work(parts) == work(whole)
    one = AdaptiveRuntimeAgent()
    for layer in layers(model):
        assert len(one.observe(layer.telemetry_hint).layers) == 1
    one.observe(fabric.profile_detailed())
    assert work(one) == work(whole)


@pytest.mark.usefixtures("dialect_tools")
@pytest.mark.parametrize("as_text", [True, False])
def test_a_module(as_text: bool) -> None:
    agent = AdaptiveRuntimeAgent()
    seen = agent.observe(NETWORK.read_text(encoding="utf-8") if as_text else NETWORK)
    assert seen.source == "module"
    assert [record.to_dict() for record in seen.layers] == [
        {
            "layer": "fc1", "in_features": 7, "out_features": 6, "activation": "ternary",
            "weight_quantizer": "sign", "sparsity": 0.381, "tile_mask": 1, "weight_addr": 4096,
        },
        {
            "layer": "fc2", "in_features": 6, "out_features": 3, "activation": "int8",
            "weight_quantizer": "twn", "sparsity": 0.3889, "tile_mask": 1,
        },
    ]  # fmt: skip
    plan = agent.decide(samples=3)
    assert plan.default
    assert [decision.action for decision in plan.decisions] == ["resident", "resident"]


@pytest.mark.parametrize("activation", ["ternary", "int8"])
@pytest.mark.parametrize("widths", [(784, 60, 10), (1500, 100, 33), (40, 300, 20)])
def test_workloads_are_what_ran(fabric: Fabric, activation: str, widths: tuple[int, ...]) -> None:
    """Samples, and engine steps: with no zero anywhere, every depth of every plane is one; resident
    or streamed, in several passes or one."""
    model = chain(fabric, widths, activation=activation)
    with torch.no_grad():
        for layer in layers(model):
            layer.weight.fill_(1.0)
            layer.bias.fill_(0.0)
    agent = AdaptiveRuntimeAgent()
    for _ in range(3):
        model(torch.ones(6, widths[0]))
    agent.observe(model)
    for layer, found in zip(layers(model), work(agent), strict=True):
        assert (found.samples, found.measured) == (6, True)
        # The int8 value 127 is (1, -1, -1, -1, 0, 1): one plane of six is empty, a cycle a word.
        words = -(-layer.in_features // 15)
        steps = layer.in_features if activation == "ternary" else 5 * layer.in_features + words
        assert found.steps == pytest.approx(steps, abs=1e-9)
    unseen = AdaptiveRuntimeAgent()
    unseen.observe([layer.telemetry_hint for layer in layers(model)])
    for layer, found in zip(layers(model), work(unseen), strict=True):
        assert (found.samples, found.measured) == (1, False)
        planes = 6 if activation == "int8" else 1
        assert found.steps == planes * layer.in_features
    assert [found.samples for found in work(unseen, 9)] == [9] * (len(widths) - 1)


def test_sparse_weights_without_counters() -> None:
    agent = AdaptiveRuntimeAgent()
    hint = {"layer": "a", "in_features": 300, "out_features": 60, "sparsity": 0.95}
    agent.observe(hint)
    agent.observe({**hint, "layer": "b", "sparsity": 1.0})
    dense, empty = work(agent)
    assert dense.steps == pytest.approx(300 * (1 - 0.95**15))
    assert empty.steps == 20  # a cycle a word


def test_counters_go_on_or_begin_anew(fabric: Fabric) -> None:
    """What grew is the same count; what fell was reset, or the layer moved."""
    model = chain(fabric, (100, 20))
    agent = AdaptiveRuntimeAgent()

    def run(samples: int, forwards: int) -> None:
        for _ in range(forwards):
            model(torch.ones(samples, 100))
        agent.observe(model)

    run(4, 3)
    run(4, 3)
    assert [found.samples for found in work(agent)] == [4]
    run(10, 6)  # 6 of 4 and 6 of 10
    assert [found.samples for found in work(agent)] == [7]
    fabric.reset_counters()
    run(1, 4)  # 88 samples in 16 forwards
    assert [found.samples for found in work(agent)] == [round(88 / 16)]
    layers(model)[0].tile_mask = 0b0100
    run(40, 8)  # 408 samples in 24
    found = work(agent)[0]
    assert found.samples == round(408 / 24)
    assert len(agent.history) == 5


def test_what_is_no_telemetry(fabric: Fabric) -> None:
    agent = AdaptiveRuntimeAgent()
    hint = {"layer": "a", "in_features": 10, "out_features": 5}
    bad: list[tuple[Any, type[Exception], str]] = [
        (3, TypeError, "not int"),
        ([3], TelemetryError, "mapping, not int"),
        ({}, TelemetryError, "'layer' is None"),
        ({**hint, "layer": ""}, TelemetryError, "'layer' is ''"),
        ({**hint, "sparsity": 1.5}, TelemetryError, "'a': sparsity is 1.5; allowed is 0 to 1"),
        ({**hint, "sparsity": float("nan")}, TelemetryError, "sparsity is nan"),
        ({**hint, "sparsity": "0.5"}, TelemetryError, "sparsity is '0.5'"),
        ({**hint, "tile_mask": 0}, TelemetryError, "tile_mask is 0; it must be 1 or more"),
        ({**hint, "tile_mask": True}, TelemetryError, "tile_mask is True"),
        ({**hint, "in_features": -1}, TelemetryError, "in_features is -1"),
        ({**hint, "in_features": 10**6000}, TelemetryError, "in_features is above 184467"),
        ({**hint, "tile_mask": 2**64}, TelemetryError, "tile_mask is above 18446744073709551615"),
        ({**hint, "activation": "int4"}, TelemetryError, "allowed are 'ternary', 'int8'"),
        ({**hint, "counters": {"cycles": -1}}, TelemetryError, "cycles is -1"),
        ({"layers": []}, TelemetryError, "mapping by name"),
        ({"layers": {"a": 3}}, TelemetryError, "'a' of a profile is 3"),
        (nn.Linear(3, 3), ValueError, "has no TFMBSLinear"),
    ]
    for source, kind, text in bad:
        with pytest.raises(kind, match=text):
            agent.observe(source)
    with Fabric(FabricConfig(tiles=2)) as other:
        with pytest.raises(ValueError, match=r"tiles=2.*plans for.*tiles=4"):
            agent.observe(chain(other, (10, 5)))
        mixed = nn.Sequential(chain(fabric, (10, 5)), chain(other, (5, 5)))
        with pytest.raises(ValueError, match="two devices"):
            agent.observe(mixed)
    assert len(agent.history) == 0
    with pytest.raises(TelemetryError, match="no layer was observed"):
        agent.decide()
    agent.observe({**hint, "tile_mask": 1 << 20, "counters": {"broadcasts": 1}})
    with pytest.raises(TelemetryError, match=r"layer 'a'.*tile_mask"):
        agent.decide()


@pytest.mark.parametrize("shape", [(10, 5), (784, 60), (2**24, 1), (1, 2**32), (2**24, 2**32)])
@pytest.mark.parametrize("activation", ["ternary", "int8"])
def test_counters_that_no_device_could_count(shape: tuple[int, int], activation: str) -> None:
    """Every counter fits its 64 bits; what follows from them does not."""
    hint = {"layer": "a", "in_features": shape[0], "out_features": shape[1]}
    most = 2**64 - 1
    for counters in (
        {"broadcasts": most},
        {"broadcasts": most, "mem_writes": most, "compute_cycles": most},
        {"broadcasts": most, "residency_hits": 1},
    ):
        agent = AdaptiveRuntimeAgent()
        agent.observe({**hint, "activation": activation, "counters": counters})
        with pytest.raises(TelemetryError, match=r"layer 'a': .*samples"):
            agent.decide()


def test_samples_that_no_device_could_run() -> None:
    agent = AdaptiveRuntimeAgent()
    agent.observe({"layer": "a", "in_features": 784, "out_features": 60})
    for samples, shown in (
        (10**12, f"{10**12} samples"),
        (10**400, "samples is an integer of 1329"),
    ):
        with pytest.raises(ValueError, match=f"layer 'a': .*{shown}.*allowed are"):
            agent.decide(samples=samples)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"clock_hz": 0}, "clock_hz is 0"),
        ({"min_gain": 1}, "min_gain is 1"),
        ({"min_gain": float("nan")}, "min_gain is nan"),
        ({"max_candidates": 0}, "max_candidates is 0"),
        ({"config": 4}, "not int"),
        ({"cpu": 4}, "not int"),
    ],
)
def test_arguments(options: dict[str, Any], text: str) -> None:
    with pytest.raises((ValueError, TypeError), match=text):
        AdaptiveRuntimeAgent(**options)
    for samples in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="samples is"):
            AdaptiveRuntimeAgent().decide(samples=samples)  # type: ignore[arg-type]


# --- on disk -------------------------------------------------------------------------------------

_counts = st.integers(0, 2**64 - 1)
_records = st.builds(
    LayerRecord,
    layer=st.text(min_size=1, max_size=8),
    in_features=st.none() | st.integers(0, 5000),
    out_features=st.none() | st.integers(0, 5000),
    activation=st.sampled_from([None, "ternary", "int8"]),
    weight_quantizer=st.none() | st.text(max_size=5),
    sparsity=st.none() | st.floats(0, 1),
    tile_mask=st.none() | st.integers(1, 2**64 - 1),
    weight_addr=st.none() | st.integers(0, 2**32 - 4),
    counters=st.dictionaries(st.sampled_from(["cycles", "broadcasts"]), _counts),
)


@campaign(100)
@given(observations=st.lists(st.lists(_records, max_size=3), max_size=4))
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, observations: list[list[LayerRecord]]
) -> None:
    path = tmp_path_factory.mktemp("history") / "history.json"
    agent, other = AdaptiveRuntimeAgent(), AdaptiveRuntimeAgent()
    for records in observations:
        agent.observe([record.to_dict() for record in records])
    agent.save_history(path)
    other.observe({"layer": "its own"})
    other.load_history(path)
    assert other.history == agent.history
    assert [list(o.layers) for o in other.history] == observations
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["format"], content["version"]) == ("pytfmbs-agent-history", 1)


def test_a_loaded_history_decides_the_same(fabric: Fabric, tmp_path: Path) -> None:
    model = chain(fabric, (784, *[60] * 24, 10))
    for _ in range(3):
        model(torch.randn(1, 784))
    agent, other = AdaptiveRuntimeAgent(), AdaptiveRuntimeAgent()
    agent.observe(model)
    agent.save_history(tmp_path / "h.json")
    other.load_history(str(tmp_path / "h.json"))
    plan = agent.decide()
    assert not plan.default
    assert other.decide() == plan
    assert agent.decide() == plan
    assert json.loads(json.dumps(plan.to_dict())) == plan.to_dict()


GOOD = {"format": "pytfmbs-agent-history", "version": 1, "observations": []}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a history"),
        (b'{"version": 1}', "not a history"),
        (json.dumps({**GOOD, "format": "other"}).encode(), "not a history"),
        (json.dumps({**GOOD, "version": 2}).encode(), r"version 2; this pytfmbs reads version 1"),
        (json.dumps({**GOOD, "version": True}).encode(), r"version True"),
        (json.dumps({**GOOD, "version": None}).encode(), r"version None"),
        (json.dumps({**GOOD, "observations": {}}).encode(), "must be a list"),
        (json.dumps({**GOOD, "observations": [3]}).encode(), "list 'layers'"),
        (json.dumps({**GOOD, "observations": [{"layers": []}]}).encode(), "'source'"),
        (
            json.dumps({**GOOD, "observations": [{"source": "x", "layers": [{}]}]}).encode(),
            "'layer' is None",
        ),
        (
            json.dumps(
                {
                    **GOOD,
                    "observations": [
                        {
                            "source": "x",
                            "layers": [{"layer": "a", "counters": {"cycles": 10**400}}],
                        }
                    ],
                }
            ).encode(),
            "'a': cycles is above",
        ),
    ],
)
def test_a_file_that_is_no_history(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "h.json"
    path.write_bytes(content)
    agent = AdaptiveRuntimeAgent()
    agent.observe({"layer": "kept"})
    before = list(agent.history)
    with pytest.raises(TelemetryError, match=text) as raised:
        agent.load_history(path)
    assert str(path) in str(raised.value)
    assert list(agent.history) == before
    with pytest.raises(FileNotFoundError):
        agent.load_history(tmp_path / "none.json")
    assert list(agent.history) == before


def test_a_history_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "h.json"
    agent = AdaptiveRuntimeAgent()
    agent.save_history(path)
    before = path.read_bytes()
    agent.observe({"layer": "a"})

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        agent.save_history(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_history_has_an_end() -> None:
    agent = AdaptiveRuntimeAgent()
    for index in range(300):
        agent.observe({"layer": f"l{index}"})
    assert len(agent.history) == 256
    assert agent.history[0].layers[0].layer == "l44"
