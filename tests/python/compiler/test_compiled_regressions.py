"""What once went wrong with compiled models."""

import os
import signal
import threading

import pytest
import torch
from pytfmbs import TFMBSLinear
from pytfmbs.compiler import compile
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("dialect_tools")


class TwoReaders(nn.Module):
    """Bufferization leaves a copy between buffers with gaps here."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = TFMBSLinear(2, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        both = torch.cat([y, y], 1)
        return both, torch.relu(both / 3)


class AnyNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = TFMBSLinear(3, 4)

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        return self.layer(first + sum(others))


@pytest.mark.parametrize("target", ["linalg", "runtime"])
def test_a_copy_between_buffers_with_gaps_links(target: str) -> None:
    model, x = TwoReaders().eval(), torch.randn(7, 2)
    with compile(model, torch.randn(2, 2), target=target) as compiled:
        for got, expected in zip(compiled(x), model(x), strict=True):
            assert torch.equal(got, expected)


def test_a_model_of_any_number_of_inputs() -> None:
    model = AnyNumber().eval()
    inputs = [torch.randn(5, 3) for _ in range(3)]
    with compile(model, tuple(torch.randn(2, 3) for _ in inputs)) as compiled:
        assert torch.equal(compiled(*inputs), model(*inputs))


def test_a_child_closes_what_the_parents_threads_were_in() -> None:
    compiled = compile(nn.Sequential(TFMBSLinear(64, 64)), torch.randn(2, 64))
    x, stop = torch.randn(64, 64).numpy(), threading.Event()

    def call() -> None:
        while not stop.is_set():
            compiled(x)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs dies of it
                compiled.close()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        compiled.close()
