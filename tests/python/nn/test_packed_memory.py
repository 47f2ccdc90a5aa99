"""What packed layers cost in resident memory, and what loading them costs on the way."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Layers of one width share the trits that they are made of, so what grows is theirs. Each child
# process prints bits per weight.
_HELD = """
import sys, torch, pytfmbs
torch.set_num_threads(2)
count, width, packing, group = int(sys.argv[1]), 4096, sys.argv[2], int(sys.argv[3])

def resident(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) << 10

trits = torch.randint(-1, 2, (width, width), dtype=torch.int8)
scale = torch.rand(width) if group == 0 else torch.rand(width, width // group)
x = torch.randn(1, width)

def made():
    layer = pytfmbs.TFMBSPackedLinear.from_trits(
        trits, scale, packing=packing, group_size=group or None)
    with torch.no_grad():
        layer(x)
    return layer

made()  # what is allocated once
before = resident("VmRSS")
layers = [made() for _ in range(count)]
held = resident("VmRSS") - before
assert pytfmbs.Fabric().telemetry
print(layers[0].packed_bytes * 8 / (width * width), held * 8 / (count * width * width))
"""

# A model of empty layers gets the state of one, memory-mapped, layer after layer.
_LOADED = """
import sys, tempfile, torch, pytfmbs
count, width = int(sys.argv[1]), 4096

def resident(key):
    return int(next(l for l in open("/proc/self/status") if l.startswith(key)).split()[1]) << 10

layer = pytfmbs.TFMBSPackedLinear.from_trits(torch.randint(-1, 2, (width, width), dtype=torch.int8))
file = tempfile.NamedTemporaryFile()
torch.save({f"{i}.{k}": v for i in range(count) for k, v in layer.state_dict().items()}, file.name)
model = torch.nn.Sequential(*[
    pytfmbs.TFMBSPackedLinear(width, width, bias=False, device="meta") for _ in range(count)])
before = resident("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
state = torch.load(file.name, mmap=True, weights_only=True)
model.load_state_dict(state, assign=True)
print((resident("VmHWM") - before) * 8 / (count * width * width))
"""


def numbers(code: str, *arguments: object) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [float(number) for number in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("packing", "group", "most"),
    [("packed2", 0, 2.1), ("packed_base3", 0, 1.65), ("packed2", 128, 2.1)],
)
def test_bits_per_weight(packing: str, group: int, most: float) -> None:
    """Resident memory of 100 layers that ran, telemetry on, without what their scales take: float32
    each, and float64 in the runtime for one an output."""
    packed, resident = numbers(_HELD, 100, packing, group)
    scales = 32 / group if group else (32 + 64) / 4096
    print(f"{packing}, groups of {group}: {packed:.4f} bits per weight, {resident:.4f} resident")
    assert packed <= most
    assert resident - scales <= most


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_keeps_no_second_copy() -> None:
    """At the peak: the layers, 2 bits per weight, the file's pages that are mapped, 1.6, and one
    layer in the making."""
    count = 20
    (found,) = numbers(_LOADED, count)
    print(f"peak while loading: {found:.4f} bits per weight")
    assert found <= 2 * (2.1 + 1.65)
