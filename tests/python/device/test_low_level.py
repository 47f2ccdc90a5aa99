"""The device by its address map: load, read, run, submit, wait, results, profiles and handles."""

from __future__ import annotations

import copy
import pickle
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import pytfmbs
import torch
from pytfmbs import TFD, AddressError, ArgumentError, ClosedError, Fabric, FabricConfig, TFMBSLinear

CONFIG = FabricConfig(tiles=2, lanes=4, bank_depth=64)


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    with Fabric(CONFIG) as device:
        yield device


def words(trits: np.ndarray) -> bytes:
    """Rows of trits as fabric words, 15 a word, in PT-5."""
    rows = np.atleast_2d(trits)
    padded = np.zeros((rows.shape[0], -(-rows.shape[1] // 15) * 15), dtype=np.int8)
    padded[:, : rows.shape[1]] = rows
    packed = pytfmbs.pack_pt5(padded).reshape(-1, 3)
    return np.pad(packed, ((0, 0), (0, 1))).tobytes()


def problem(depth: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights [depth, lanes], a word a depth, and activations [depth]."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(-1, 2, (depth, CONFIG.lanes)).astype(np.int8)
    return weights, rng.integers(-1, 2, depth).astype(np.int8)


def sums(weights: np.ndarray, activations: np.ndarray) -> list[int]:
    return (activations.astype(np.int64) @ weights.astype(np.int64)).tolist()


def fill(fabric: Fabric, weights: np.ndarray, activations: np.ndarray, tile: int = 0) -> None:
    fabric.load(fabric.config.bank_a_base(tile), words(weights))
    fabric.load(fabric.config.bank_b_base(tile), words(activations))


def test_load_and_run_compute_the_product(fabric: Fabric) -> None:
    weights, activations = problem()
    fill(fabric, weights, activations)
    fabric.run(TFD(40, 4))
    assert fabric.results(0) == sums(weights, activations)
    assert fabric.results() == sums(weights, activations) + [0] * 4
    raw = np.frombuffer(fabric.read(CONFIG.results_base(0), 16), dtype="<i4")
    assert raw.tolist() == fabric.results(0)


def test_each_hint_of_a_descriptor_does_what_it_says(fabric: Fabric) -> None:
    weights, activations = problem()
    fill(fabric, weights, activations)
    expected = np.array(sums(weights, activations))

    fabric.run(TFD(40, 4))
    fabric.run(TFD(40, 4, accumulate=True))
    assert fabric.results(0) == (2 * expected).tolist()

    fabric.run(TFD(40, 4))
    fabric.run(TFD(40, 4, lane_mask=0b0101, accumulate=True))
    assert fabric.results(0) == (expected * [2, 1, 2, 1]).tolist()

    fabric.run(TFD(20, 4, weight_base=4 * 20, activation_base=4 * 1))
    assert fabric.results(0) == sums(weights[20:], activations[15:35])

    fabric.run(TFD(15, 2, tile_mask=0b11))
    assert fabric.results(1) == [0, 0, 0, 0]
    assert fabric.results(0)[:2] == sums(weights[:15], activations[:15])[:2]

    for zero_skip in (True, False):
        fabric.reset_counters()
        fabric.run(TFD(40, 4, zero_skip=zero_skip))
        assert fabric.results(0) == expected.tolist()
        counters = fabric.profile()
        assert (counters["zero_skips"] == 0) is not zero_skip
        assert (counters["cycles"] == counters["dense_cycles"]) is not zero_skip
        assert counters["active_ops"] + counters["zero_skips"] == 160


def test_int8_runs_as_six_planes(fabric: Fabric) -> None:
    weights, _ = problem(15)
    values = np.random.default_rng(2).integers(-127, 128, 15)
    planes, rest = [], values.copy()
    for _ in range(6):  # balanced ternary digits, the least significant first
        digit = (rest + 1) % 3 - 1
        planes.insert(0, digit.astype(np.int8))
        rest = (rest - digit) // 3
    fabric.load(CONFIG.bank_a_base(0), words(weights))
    fabric.load(CONFIG.bank_b_base(0), b"".join(words(plane) for plane in planes))
    fabric.run(TFD(15, 4, planes=6))
    assert fabric.results(0) == (values @ weights).tolist()


def test_the_broadcast_window_writes_every_tile(fabric: Fabric) -> None:
    weights, activations = problem()
    for tile in range(2):
        fabric.load(CONFIG.bank_a_base(tile), words(weights))
    data = words(activations)
    fabric.load(CONFIG.broadcast_base, data)
    assert fabric.profile()["broadcasts"] == len(data) // 4
    for tile in range(2):
        assert fabric.read(CONFIG.bank_b_base(tile), len(data)) == data
    fabric.run(TFD(40, 4, tile_mask=3))
    assert fabric.results() == 2 * sums(weights, activations)
    with pytest.raises(AddressError):
        fabric.read(CONFIG.broadcast_base, 4)


def test_read_gives_what_load_wrote(fabric: Fabric) -> None:
    data = words(problem()[0])
    kinds: list[Any] = [
        data,
        bytearray(data),
        memoryview(data),
        np.frombuffer(data, dtype=np.uint8),
        np.frombuffer(data, dtype="<u4"),
        np.frombuffer(data, dtype="<i4").reshape(4, 10),
        torch.frombuffer(bytearray(data), dtype=torch.uint8),
        torch.frombuffer(bytearray(data), dtype=torch.int32),
    ]
    for i, kind in enumerate(kinds):
        fabric.load(CONFIG.bank_a_base(1), bytes(len(data)))
        fabric.load(CONFIG.bank_a_base(1), kind)
        assert fabric.read(CONFIG.bank_a_base(1), len(data)) == data, i
    assert fabric.read(CONFIG.bank_a_base(1) + 8, 12) == data[8:20]
    signed = (-5).to_bytes(4, "little", signed=True)
    fabric.load(CONFIG.results_base(1) + 4, signed)
    assert fabric.results(1) == [0, -5, 0, 0]


def test_the_map_of_the_default_device() -> None:
    config = Fabric().config
    assert config == FabricConfig()
    assert [config.results_base(t) for t in range(4)] == [0x100, 0x140, 0x180, 0x1C0]
    assert [config.bank_a_base(t) for t in range(4)] == [0x1000, 0x3000, 0x5000, 0x7000]
    assert [config.bank_b_base(t) for t in range(4)] == [0x2000, 0x4000, 0x6000, 0x8000]
    assert config.broadcast_base == 0x9000


def test_counters_of_one_run_and_their_reset(fabric: Fabric) -> None:
    weights, activations = problem(30)
    fill(fabric, weights, activations)
    fabric.reset_counters()
    assert not any(fabric.profile().values())
    fabric.run(TFD(30, 4))
    occupied = (weights != 0).any(axis=1) & (activations != 0)
    compute = 4 + sum(max(1, int(part.sum())) for part in occupied.reshape(2, 15)) + 3
    counters = fabric.profile()
    assert counters["compute_cycles"] == counters["cycles"] == compute
    assert counters["dense_cycles"] == 4 + 30 + 3
    active = int(((weights != 0) & (activations != 0)[:, None]).sum())
    assert counters["active_ops"] == active
    assert counters["zero_skips"] == 4 * 30 - active
    tile = fabric.profile_tile(0)
    detailed = fabric.profile_detailed()
    assert detailed["tiles"] == [tile, fabric.profile_tile(1)]
    assert tile["active_ops"] == active
    assert fabric.profile_tile(1)["active_ops"] == 0
    assert {k: v for k, v in detailed.items() if k not in ("tiles", "layers")} == counters


def test_telemetry_can_be_turned_off(fabric: Fabric) -> None:
    weights, activations = problem()
    assert fabric.telemetry
    fabric.telemetry = False
    fill(fabric, weights, activations)
    fabric.run(TFD(40, 4))
    layer = TFMBSLinear(20, 5, fabric=fabric)
    layer(torch.randn(3, 20))
    assert fabric.results(0) != [0] * 4
    assert not any(fabric.profile().values())
    assert layer.resident
    fabric.telemetry = True
    layer(torch.randn(3, 20))
    assert fabric.profile()["residency_hits"] == 1


def test_run_batch_runs_in_order_and_checks_first(fabric: Fabric) -> None:
    weights, activations = problem()
    fill(fabric, weights, activations)
    fabric.run_batch([TFD(40, 4), TFD(40, 4, accumulate=True), TFD(40, 1)])
    expected = sums(weights, activations)
    assert fabric.results(0) == [expected[0]] + [2 * s for s in expected[1:]]
    fabric.run_batch([])
    before = fabric.profile_detailed(), fabric.results()
    with pytest.raises(pytfmbs.DescriptorError, match="task 1 of the batch"):
        fabric.run_batch([TFD(40, 4), TFD(65, 4), TFD(40, 4)])
    assert (fabric.profile_detailed(), fabric.results()) == before


# --- asynchronous tasks ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow() -> Iterator[tuple[Fabric, TFD]]:
    """A device, and a task that it steps through for a good part of a second."""
    config = FabricConfig(tiles=16, lanes=15, bank_depth=1 << 18)
    with Fabric(config) as device:
        ones = bytes([121, 121, 121, 0]) * (1 << 18)  # 121 = 11111 in base 3: five +1
        for tile in range(16):
            device.load(config.bank_a_base(tile), ones)
        device.load(config.broadcast_base, ones)
        task = TFD(1 << 18, 15, tile_mask=0xFFFF)
        started = time.perf_counter()
        device.run(task)
        assert time.perf_counter() - started > 0.02  # else it is not slow enough for the tests here
        yield device, task


def test_submit_returns_at_once_and_runs_beside_the_caller(slow: tuple[Fabric, TFD]) -> None:
    device, task = slow
    started = time.perf_counter()
    device.run(task)
    alone = time.perf_counter() - started

    device.reset_counters()
    handles = [device.submit(task)]
    time.sleep(alone / 4)  # it runs now, and holds the device
    started = time.perf_counter()
    handles += [device.submit(task) for _ in range(3)]
    submitted = time.perf_counter() - started
    assert not device.is_done(handles[-1])
    assert not handles[-1].done
    # Four tasks take four times as long as one; the caller has its hands free all the while.
    assert submitted < 0.4 * alone
    work = 0
    while not device.is_done(handles[0]):
        work += 1
    assert work > 100
    device.wait(handles[-1])
    assert all(device.is_done(handle) and handle.done for handle in handles)
    device.wait(handles[0])  # again, and in any order
    assert device.profile()["compute_cycles"] == 4 * (4 + (1 << 18) + 3)
    assert device.results(15) == [1 << 18] * 15


def test_what_was_submitted_runs_before_what_comes_after(slow: tuple[Fabric, TFD]) -> None:
    device, task = slow
    device.load(device.config.results_base(0), bytes(4))
    device.submit(task)
    assert device.results(0)[0] == 1 << 18
    device.reset_counters()
    device.submit(task)
    assert device.profile()["active_ops"] == 16 * 15 * (1 << 18)


def test_closed_and_telemetry_can_be_asked_while_a_task_runs(slow: tuple[Fabric, TFD]) -> None:
    device, task = slow
    handle = device.submit(task)
    time.sleep(0.01)
    assert not device.closed
    assert not device.is_done(handle)
    device.wait(handle)


def test_submitted_tasks_equal_the_same_tasks_run(fabric: Fabric) -> None:
    weights, activations = problem()
    fill(fabric, weights, activations)
    fabric.reset_counters()
    tasks = [TFD(40 - i, 4, accumulate=bool(i)) for i in range(10)]
    fabric.run_batch(tasks)
    expected = fabric.profile_detailed(), fabric.results()
    fabric.load(CONFIG.results_base(0), bytes(16))
    fabric.reset_counters()
    for handle in [fabric.submit(task) for task in tasks]:
        fabric.wait(handle)
    assert (fabric.profile_detailed(), fabric.results()) == expected


def test_a_handle_belongs_to_its_fabric(fabric: Fabric) -> None:
    with Fabric(CONFIG) as other:
        handle = other.submit(TFD(1, 1))
        for call in (fabric.wait, fabric.is_done):
            with pytest.raises(ArgumentError, match="handle is of fabric"):
                call(handle)
        other.wait(handle)


def test_a_bad_task_is_refused_at_submit(fabric: Fabric) -> None:
    with pytest.raises(pytfmbs.DescriptorError):
        fabric.submit(TFD(65, 4))
    assert not any(fabric.profile().values())


def test_a_handle_outlives_what_it_came_from() -> None:
    fabric = Fabric(CONFIG)
    handle = fabric.submit(TFD(10, 4))
    fabric.close()
    assert handle.done
    assert fabric.is_done(handle)
    fabric.wait(handle)
    del fabric
    assert handle.done


# --- handles and their ends -----------------------------------------------------------------------


def test_handles_share_the_default_device() -> None:
    one, two = Fabric(), Fabric()
    assert one == two
    assert hash(one) == hash(two)
    assert one.is_default
    layer = TFMBSLinear(8, 4)
    layer(torch.randn(1, 8))
    assert layer.fabric == one
    assert one.profile_detailed() == two.profile_detailed()
    one.telemetry = False
    assert not two.telemetry
    two.telemetry = True
    assert copy.copy(one) == copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == two


def test_the_default_device_cannot_be_closed() -> None:
    with pytest.raises(ClosedError, match="default"):
        Fabric().close()
    with Fabric() as default:
        pass
    assert not default.closed
    assert TFMBSLinear(4, 2)(torch.ones(1, 4)).shape == (1, 2)


def test_devices_of_their_own_share_nothing(fabric: Fabric) -> None:
    with Fabric(CONFIG) as other:
        assert other != fabric
        assert other.name != fabric.name
        fabric.load(CONFIG.results_base(0), b"\1\0\0\0")
        assert other.results(0) == [0] * 4
        assert fabric.results(0) == [1, 0, 0, 0]
        assert not any(other.profile().values())


def test_the_context_manager_closes_even_after_an_error() -> None:
    with pytest.raises(KeyError), Fabric(CONFIG) as device:
        raise KeyError("x")
    assert device.closed
    device.close()  # twice is fine
    assert Fabric(CONFIG).closed is False


def test_engines_are_named() -> None:
    assert Fabric().engine == "closed_form"
    with Fabric(engine="stepped") as stepped:
        assert stepped.engine == "stepped"
        assert stepped.config == FabricConfig()
        assert not stepped.is_default
        assert "stepped" in repr(stepped)


def test_a_descriptor_and_a_config_are_values() -> None:
    task = TFD(7, 3, lane_mask=(1 << 70) | 5, tile_mask=1 << 63, planes=6, accumulate=True)
    assert (task.depth, task.lanes, task.lane_mask) == (7, 3, (1 << 70) | 5)
    assert (task.weight_base, task.activation_base, task.tile_mask) == (0, 0, 1 << 63)
    assert (task.planes, task.accumulate, task.zero_skip) == (6, True, True)
    assert TFD(1).lane_mask is None
    for value in (task, FabricConfig(3, 31, 90, mac_pj=1.5)):
        twin = pickle.loads(pickle.dumps(value))
        assert twin == value == copy.deepcopy(value)
        assert hash(twin) == hash(value)
        assert twin is not value
    assert task != TFD(7, 3)
    assert eval(repr(task), {"TFD": TFD}) == task
    assert FabricConfig(3) != FabricConfig(4)
    assert FabricConfig(mac_pj=1) != FabricConfig()
    assert FabricConfig() != "FabricConfig"


def test_a_load_over_a_layers_weights_evicts_it() -> None:
    with Fabric(FabricConfig()) as device:
        layer = TFMBSLinear(30, 15, fabric=device)
        x = torch.randn(2, 30)
        y = layer(x)
        assert layer.resident
        device.load(layer.weight_addr or 0, bytes(4))
        assert not layer.resident
        assert device.profile()["evictions"] == 1
        assert torch.equal(layer(x), y)
        assert layer.resident
