"""Several threads on one device, forked and spawned children, and data-parallel training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import pytfmbs
import torch
from pytfmbs import TFD, Fabric, FabricConfig, TFMBSLinear
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

pytestmark = pytest.mark.timeout(120)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Runs work(0) … work(count − 1) beside each other; the first error is raised here."""
    failures: list[BaseException] = []
    start = threading.Barrier(count)

    def body(index: int) -> None:
        try:
            start.wait()
            work(index)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def run_python(code: str, timeout: float = 100) -> str:
    """The output of a program in a process of its own, where a hang can be ended."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


# --- threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["closed_form", "stepped"])
def test_threads_share_a_device_and_its_counters_add_up(engine: str) -> None:
    """Each thread has a layer of its own and one that all share; counters equal the serial sum."""
    inputs = [torch.randn(5, 24, generator=torch.Generator().manual_seed(i)) for i in range(4)]

    def measure(run: Callable[[Callable[[int], None]], None]) -> dict[str, Any]:
        torch.manual_seed(0)
        with Fabric(FabricConfig(tiles=2, bank_depth=256), engine=engine) as fabric:
            shared = TFMBSLinear(24, 20, fabric=fabric, name="shared", activation="int8").eval()
            own = [TFMBSLinear(24, 9, fabric=fabric, name=f"own-{i}").eval() for i in range(4)]
            expected = [(own[i](inputs[i]), shared(inputs[i])) for i in range(4)]
            fabric.reset_counters()

            def work(index: int) -> None:
                for _ in range(40):
                    with torch.no_grad():
                        mine, ours = own[index](inputs[index]), shared(inputs[index])
                    assert torch.equal(mine, expected[index][0])
                    assert torch.equal(ours, expected[index][1])

            run(work)
            return fabric.profile_detailed()

    serial = measure(lambda work: [work(i) for i in range(4)] and None)
    threaded = measure(lambda work: in_threads(4, work))
    assert threaded == serial
    assert serial["layers"]["shared"]["residency_hits"] == 160


def test_threads_make_and_drop_layers_while_others_run_and_look() -> None:
    with Fabric(FabricConfig(bank_depth=128)) as fabric:
        kept = TFMBSLinear(60, 30, fabric=fabric).eval()
        x = torch.randn(2, 60)
        with torch.no_grad():
            expected = kept(x)

        def work(index: int) -> None:
            for i in range(60):
                if index == 0:
                    layer = TFMBSLinear(60, 30, fabric=fabric, name=f"short-{i}")
                    layer(x)
                    assert layer.telemetry_hint["layer"] == f"short-{i}"
                elif index == 1:
                    with torch.no_grad():
                        assert torch.equal(kept(x), expected)
                elif index == 2:
                    assert fabric.profile_detailed()["layers"][kept.name]["tile_mask"] == 3
                else:
                    fabric.read(fabric.config.bank_a_base(0), 512)
                    fabric.wait(fabric.submit(TFD(15, 15)))

        in_threads(4, work)
        assert list(fabric.profile_detailed()["layers"]) == [kept.name]


def test_threads_train_one_model() -> None:
    """Gradients of the same parameters from several threads add up, as for nn.Linear."""
    layer = TFMBSLinear(16, 8)
    x = torch.randn(4, 16)
    layer(x).sum().backward()
    once = layer.weight.grad.clone()
    layer.weight.grad = None
    in_threads(3, lambda _: [layer(x).sum().backward() for _ in range(10)] and None)
    torch.testing.assert_close(layer.weight.grad, 30 * once)


def test_a_thread_may_wait_for_a_task_of_another() -> None:
    with Fabric(FabricConfig()) as fabric:
        handles = [fabric.submit(TFD(1000, 15)) for _ in range(20)]
        in_threads(4, lambda _: [fabric.wait(handle) for handle in handles] and None)
        assert all(fabric.is_done(handle) for handle in handles)


_GIVE_BACK = """
import os, threading, time, torch
from pytfmbs import TFMBSLinear
# A storage that Python has seen needs the interpreter to end; here it ends inside an op, while
# another thread has the interpreter and asks the layer, or forks.
layer = TFMBSLinear(64, 30).eval()
x = torch.randn(2, 64)
stop = False
def churn():
    while not stop:
        with torch.no_grad():
            new = torch.randn(30, 64)
            new.untyped_storage().tag = 1
            layer.weight.data = new
            del new
            layer(x)
thread = threading.Thread(target=churn)
thread.start()
end = time.monotonic() + 3
turns = 0
while time.monotonic() < end:
    layer.packed_bytes
    turns += 1
    if turns % 500 == 0:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
stop = True
thread.join()
print("done")
"""


def test_a_weight_that_ends_inside_an_op_locks_nobody_out() -> None:
    assert run_python(_GIVE_BACK, timeout=30) == "done"


# --- fork and spawn -------------------------------------------------------------------------------

_FORK = """
import os, signal, threading, torch
from pytfmbs import Fabric, TFD, TFMBSLinear
torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
layers = [TFMBSLinear(64, 30).eval() for _ in range(3)]
x = torch.randn(2, 64)
with torch.no_grad():
    expected = [layer(x) for layer in layers]
stop = False
# Packed weights of 128 KiB and more lie in memory that layers share.
large, wide = TFMBSLinear(2048, 1200).eval(), torch.randn(1, 2048)
def packs():
    with torch.no_grad():
        while not stop:
            large.refresh()
            large(wide)
def forwards(layer):
    with torch.no_grad():
        while not stop:
            layer(x)
def tasks():
    fabric = Fabric()
    while not stop:
        fabric.wait(fabric.submit(TFD(15, 15)))
threads = [threading.Thread(target=forwards, args=(layer,)) for layer in layers[:2]]
threads.append(threading.Thread(target=tasks))
threads.append(threading.Thread(target=packs))
for thread in threads:
    thread.start()
bad = 0
for turn in range(100):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # a child that hangs ends here, and is counted
        with torch.no_grad():
            same = all(torch.equal(layer(x), y) for layer, y in zip(layers, expected))
            same = same and TFMBSLinear(10, 3)(torch.ones(1, 10)).shape == (1, 3)
            same = same and TFMBSLinear(2048, 1200)(wide).shape == (1, 1200)
        fabric = Fabric()
        fabric.wait(fabric.submit(TFD(15, 15)))
        fabric.profile_detailed()
        os._exit(0 if same else 1)
    bad += os.waitpid(pid, 0)[1] != 0
stop = True
for thread in threads:
    thread.join()
print(bad)
"""


def test_fork_while_other_threads_are_in_forwards() -> None:
    assert run_python(_FORK) == "0"


_FORK_AFTER_A_MOVE = """
import os, signal, torch, pytfmbs
signal.alarm(60)  # a fork that hangs ends here
layer = pytfmbs.TFMBSLinear(20, 5).eval()
x = torch.randn(3, 20)
expected = layer(x)
def child_and_parent():
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        os._exit(0 if torch.equal(layer(x), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert torch.equal(layer(x), expected)
layer.ste_clip = 2.0
child_and_parent()
layer.name = "moved"
child_and_parent()
layer.tile_mask = 1
child_and_parent()
layer.name = "moved again"
child_and_parent()
print(0)
"""


def test_fork_after_a_layer_has_moved() -> None:
    assert run_python(_FORK_AFTER_A_MOVE) == "0"


def test_a_child_has_its_own_copy_of_a_device() -> None:
    with Fabric(FabricConfig()) as fabric:
        layer = TFMBSLinear(20, 5, fabric=fabric).eval()
        x = torch.randn(1, 20)
        layer(x)
        before = fabric.profile_detailed()
        pid = os.fork()
        if pid == 0:  # pragma: no cover (another process)
            signal.alarm(30)  # a child that hangs ends here
            code = 1
            try:
                layer(x)
                fabric.load(fabric.config.bank_a_base(0), bytes(64))
                grown = fabric.profile()["cycles"] > before["cycles"]
                code = 0 if grown and not layer.resident else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert fabric.profile_detailed() == before
        assert layer.resident


class Features(Dataset[Tensor]):
    """Items that a layer computes, in the loader's workers."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.data = torch.randn(12, 20, generator=torch.Generator().manual_seed(5))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.layer(self.data[index])


class Collate:
    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, items: list[Tensor]) -> Tensor:
        with torch.no_grad():
            return self.layer(torch.stack(items))


def test_forwards_in_the_workers_of_a_data_loader() -> None:
    with Fabric(FabricConfig()) as fabric:
        first = TFMBSLinear(20, 10, fabric=fabric, weight_quantizer="twn").eval()
        second = TFMBSLinear(10, 4, fabric=fabric, activation="int8").eval()
        data = Features(first)
        with torch.no_grad():
            expected = second(first(data.data))  # used in the parent, then forked
        counters = fabric.profile()
        loader = DataLoader(
            data,
            batch_size=3,
            num_workers=2,
            collate_fn=Collate(second),
            multiprocessing_context="fork",
            timeout=60,
        )
        for _ in range(2):
            assert torch.equal(torch.cat(list(loader)), expected)
        assert fabric.profile() == counters  # the workers counted on devices of their own


def _spawned(rank: int, layer: nn.Module, x: Tensor, expected: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    assert layer.name == "sent"
    assert pytfmbs.Fabric().profile_detailed()["layers"]["sent"]["residency_misses"] == 1


def test_spawned_children_get_the_layer() -> None:
    layer = TFMBSLinear(20, 5, name="sent").eval()
    if layer.name != "sent":  # the default device is shared by all tests
        pytest.fail(f"another layer is called {layer.name}")
    x = torch.randn(3, 20)
    with torch.no_grad():
        expected = layer(x)
    torch.multiprocessing.spawn(_spawned, (layer, x, expected), nprocs=1)


# --- data parallel --------------------------------------------------------------------------------

# Ends without the interpreter's own end: DistributedDataParallel keeps gloo's threads alive after
# destroy_process_group, with any layers (torch 2.13), and one that frees a tensor while the
# interpreter ends aborts the process ("terminate called without an active exception").
_DDP = """
import os, sys, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from pytfmbs import TFMBSLinear
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.manual_seed(0)
model = torch.nn.Sequential(TFMBSLinear(12, 8), torch.nn.ReLU(), TFMBSLinear(8, 2))
parallel = DistributedDataParallel(model)
optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
data = torch.randn(8, 12, generator=torch.Generator().manual_seed(1))
for _ in range(3):
    optimizer.zero_grad()
    parallel(data[rank::world]).square().mean().backward()
    optimizer.step()
torch.save([p.detach() for p in model.parameters()], f"{store}.{world}.{rank}")
dist.destroy_process_group()
os._exit(0)
"""


def test_distributed_data_parallel_trains_as_one_process_does(tmp_path: Any) -> None:
    results = []
    for world in (1, 2):
        store = str(tmp_path / f"store{world}")
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", _DDP, str(rank), str(world), store], stderr=subprocess.PIPE
            )
            for rank in range(world)
        ]
        errors = [rank.communicate(timeout=100)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0] * world, errors
        results += [torch.load(f"{store}.{world}.{rank}") for rank in range(world)]
    alone, *pair = results
    for ours in pair:
        torch.testing.assert_close(ours, alone)
