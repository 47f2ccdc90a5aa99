"""Settings of all Python tests of this folder."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

# "repeat", the default, draws the same examples each time; "explore" draws new ones.
settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    # One: the layers of most tests are small, and a second one only waits on a busy machine. Tests
    # of the
    # threaded paths set their own number.
    torch.set_num_threads(1)
