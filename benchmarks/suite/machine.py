"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

# What makes two machines differ, of describe(); the rest, the measured pytfmbs too, changes from
# day to day on one machine. A host may hide instructions from a guest under one name of CPU: hence
# the kernel set.
HARDWARE = ("cpu", "family", "cores", "caches", "kernels")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
PACKAGES = (
    "torch", "numpy", "onnxruntime", "transformers", "llama-cpp-python", "litespark-inference",
)  # fmt: skip
# What an instruction set's contestants are held to, in a process of its own; read at start-up.
HELD_TO = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "LITESPARK_KERNEL_TIER": "avx2",
    },
}


def cache_sizes() -> dict[str, int]:
    """Bytes of the data caches that one core sees, by level; empty where the system hides them."""
    sizes = {}
    for index in sorted(CACHES.glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        size = (index / "size").read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20}.get(size[-1])
        level = f"L{(index / 'level').read_text().strip()}"
        sizes[level] = int(size[:-1]) * unit if unit else int(size)
    return sizes


def last_level_cache() -> int:
    """Bytes; 32 MiB where unknown."""
    return max(cache_sizes().values(), default=32 << 20)


def cpu_flags() -> set[str]:
    try:
        from cpuinfo import get_cpu_info
    except ImportError:
        return set()
    return set(get_cpu_info().get("flags", []))


def differences(one: dict[str, Any], other: dict[str, Any]) -> str:
    """In what the hardware of two descriptions differs, in words; empty where it does not."""
    return "; ".join(
        f"{key}: {one.get(key)}, {other.get(key)}"
        for key in HARDWARE
        if one.get(key) != other.get(key)
    )


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def revision(folder: Path) -> str | None:
    """What `git describe` says of the checkout that the folder is a part of: None where it is none,
    as site-packages within one, and where there is no git."""
    git = ["git", "--no-optional-locks", "-C", str(folder)]
    # Fails where git does not know the file.
    tracked = [*git, "ls-files", "--error-unmatch", "__init__.py"]
    describe = [*git, "describe", "--always", "--dirty"]
    try:
        for command in (tracked, describe):
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip() or None


def package() -> dict[str, str | None]:
    """The pytfmbs that is measured; no path of it, for it gets onto a page."""
    import pytfmbs

    found = revision(Path(pytfmbs.__file__).parent)
    return {"version": pytfmbs.__version__, "revision": found}


def describe(kernels: str) -> dict[str, Any]:
    """As JSON holds it: it comes back from a file as it is here. kernels: the set that this CPU
    gets by itself."""
    try:
        from cpuinfo import get_cpu_info

        cpu = get_cpu_info()
    except ImportError:
        cpu = {}
    return {
        "cpu": cpu.get("brand_raw", platform.processor()),
        "family": [cpu.get("family"), cpu.get("model"), cpu.get("stepping")],
        "flags": sorted(cpu.get("flags", [])),
        "kernels": kernels,
        "cores": os.cpu_count(),
        "caches": cache_sizes(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": list(os.getloadavg()),
        "versions": {name: version(name) for name in PACKAGES},
        "pytfmbs": [package()],  # several where results are merged
    }
