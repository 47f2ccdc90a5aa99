"""Damaged checkpoints: an error that names the file, or the numbers that an independent reader finds.
tests/python/support/checkpoint_fuzz.py has the damage, and runs it by the hundred thousand.
PYTFMBS_FUZZ_CASES sets the number of cases a format."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("gguf")
import checkpoint_fuzz as fuzz
from checkpoint_fuzz import FORMATS, read

CASES = int(os.environ.get("PYTFMBS_FUZZ_CASES", "500"))


@pytest.fixture
def _limited() -> Iterator[None]:
    """Addresses are limited to 1 GiB more than the process has."""
    before = fuzz.limit_memory(1 << 30)
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("_limited")
def test_damage_is_an_error_or_has_no_effect(tmp_path: Path, name: str) -> None:
    outcomes = fuzz.campaign(name, tmp_path, CASES)
    right = outcomes["read, right numbers"]
    assert CASES // 50 < right < CASES - CASES // 50, outcomes


def test_the_campaign_is_a_command() -> None:
    command = [sys.executable, fuzz.__file__, "--cases", "50", "--formats", "q2_0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "q2_0: 50 cases" in done.stdout


@pytest.mark.parametrize("name", FORMATS)
def test_truncation_anywhere_is_an_error(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    path = form.write(tmp_path)
    file = path if path.is_file() else path / "model.safetensors"
    content = file.read_bytes()
    end = len(content.rstrip(b"\0")) if path.is_file() else len(content)  # it ends in padding
    for size in range(0, end, max(1, 1500 * end // max(CASES, 1500) // 300)):
        file.unlink()
        file.write_bytes(content[:size])
        assert read(path, form) is not None, size


@pytest.mark.parametrize("name", ["tfmbs", "bitnet"])
def test_configurations_with_other_values(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    path = form.write(tmp_path)
    file = path / "config.json"
    whole = json.loads(file.read_text())
    options = whole["quantization_config"]
    extra = {"use_rms_norm": True} if name == "bitnet" else {}
    for key in [*options, "rms_norm_eps"]:
        for value in fuzz.VALUES:
            changed = {**whole, "quantization_config": {**options, **extra, key: value}}
            file.write_text(json.dumps(changed))
            read(path, form)
    for entry in options.get("layers", {}):
        for key in [*options["layers"][entry], "rms_norm_eps", "group_size"]:
            for value in fuzz.VALUES:
                layers = json.loads(json.dumps(options["layers"]))
                layers[entry][key] = value
                changed = {"quantization_config": {**options, "layers": layers}}
                file.write_text(json.dumps(changed))
                read(path, form)


@pytest.mark.parametrize("name", ["tfmbs", "bitnet"])
def test_other_dtypes_and_shapes(tmp_path: Path, name: str) -> None:
    form = FORMATS[name]
    path = form.write(tmp_path)
    file = path / "model.safetensors"
    tensors = load_file(file)
    tensors = {key: value.clone() for key, value in tensors.items()}
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8,
              torch.int64, torch.bool]  # fmt: skip
    for key, value in tensors.items():
        others = [value.to(dtype) for dtype in dtypes]
        others += [value[None], value.reshape(-1), value[:0], value[:1], value[..., :1]]
        others += [torch.cat([value, value])]
        others += [torch.zeros(0, 1 << 40, dtype=value.dtype), torch.zeros((), dtype=value.dtype)]
        for other in others:
            if value.dim() == 2 and other.dim() == 1 and key.startswith("c."):
                continue
            file.unlink()
            save_file({**tensors, key: other.contiguous()}, file)
            read(path, form)
        file.unlink()
        save_file({k: v for k, v in tensors.items() if k != key}, file)
        needed = not key.startswith("c.") and not key.endswith("bias")
        assert not (needed and read(path, form) is None), key
