"""Any arguments of a device, drawn at random: it does what it was told, or refuses and is as before."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import numpy as np
from bad_calls import BANK_A, BANK_B, CONFIG, HUGE, WORD
from cases import campaign
from hypothesis import given
from hypothesis import strategies as st
from pytfmbs import TFD, Fabric, FabricConfig, FabricError

odd = st.one_of(
    st.integers(-5, 70),
    st.integers(),
    st.sampled_from([0, 1, 2**31, 2**32, 2**63, 2**64, -(2**63), HUGE, -HUGE]),
    st.none(),
    st.booleans(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=5),
)
address = st.one_of(odd, st.integers(0, 64).map(lambda i: BANK_A + 4 * i), st.integers(0, 0x6000))
payload = st.one_of(
    st.binary(max_size=64),
    st.lists(st.integers(0, 242), max_size=12).map(
        lambda v: bytes(b for i in v for b in (i, 0, 0, 0))
    ),
    odd,
    st.lists(st.integers(0, 255), max_size=8).map(lambda v: np.array(v, dtype=np.int64)),
)
DOCUMENTED = (FabricError, TypeError)


@campaign(400)
@given(st.tuples(odd, odd, odd), st.tuples(odd, odd, odd))
def test_any_config_is_built_or_refused(sizes: tuple[Any, ...], energies: tuple[Any, ...]) -> None:
    try:
        config = FabricConfig(*sizes, mac_pj=energies[0], sram_pj=energies[1], dram_pj=energies[2])
    except DOCUMENTED:
        return
    assert 1 <= config.tiles <= 64
    assert config.broadcast_base + 4 * config.bank_depth <= 1 << 32
    assert pickle.loads(pickle.dumps(config)) == config


@campaign(400)
@given(address, payload, address, odd)
def test_any_load_and_read_work_or_are_refused(
    where: Any, data: Any, source: Any, size: Any
) -> None:
    with Fabric(CONFIG) as fabric:
        try:
            fabric.load(where, data)
        except DOCUMENTED:
            assert not any(fabric.profile().values())
            assert not any(fabric.results())
        else:
            assert fabric.profile()["mem_reads"] == memoryview(data).nbytes // 4
        with contextlib.suppress(*DOCUMENTED):
            assert len(fabric.read(source, size)) == size


@campaign(400)
@given(
    st.fixed_dictionaries(
        {"depth": odd},
        optional={
            name: st.one_of(st.integers(0, 6), odd)
            for name in (
                "lanes", "weight_base", "activation_base", "lane_mask", "tile_mask", "planes",
                "accumulate", "zero_skip",
            )
        },
    )
)  # fmt: skip
def test_any_task_runs_or_is_refused(fields: dict[str, Any]) -> None:
    with Fabric(CONFIG) as fabric:
        fabric.load(BANK_A, WORD * 64)
        fabric.load(BANK_B, WORD * 64)
        fabric.reset_counters()
        try:
            task = TFD(**fields)
            fabric.run(task)
        except DOCUMENTED:
            assert not any(fabric.profile().values())
            assert not any(fabric.results())
            return
        assert fabric.profile()["compute_cycles"] > 0
        first = fabric.profile()
        fabric.reset_counters()
        fabric.wait(fabric.submit(pickle.loads(pickle.dumps(task))))
        assert fabric.profile() == first


@campaign(150)
@given(st.binary(min_size=1, max_size=40), st.integers(0, 400), st.booleans())
def test_a_corrupt_pickle_of_a_config_is_an_error_or_a_config(
    noise: bytes, at: int, insert: bool
) -> None:
    whole = pickle.dumps((2, 15, 64, 0.1, 5.0, 650.0))
    at %= len(whole)
    broken = whole[:at] + noise + whole[at if insert else at + len(noise) :]
    try:
        state = pickle.loads(broken)
    except Exception:
        return  # pickle's own errors
    config = FabricConfig.__new__(FabricConfig)
    try:
        config.__setstate__(state)
    except DOCUMENTED:
        return
    assert 1 <= config.tiles <= 64
