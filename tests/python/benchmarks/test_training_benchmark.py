"""benchmarks/training.py measures, and writes its JSON and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from benchmark_scripts import load_script


def test_a_short_run(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    out, picture = tmp_path / "training.json", tmp_path / "training.png"
    try:
        load_script("training").main(
            [
                *("--quick", "--shapes", "0", "--seconds", "0.01", "--dtype", "bfloat16"),
                *("--json", str(out), "--picture", str(picture)),
            ]
        )
    finally:
        torch.set_num_threads(threads)
    (contest,) = json.loads(out.read_text())["contests"]
    (case,) = contest["cases"]
    plain, ternary, int8 = (case[n] for n in ("linear", "sign/ternary", "absmean/int8"))
    assert plain["kept_bytes"] == 784 * 64 * 2
    assert ternary["kept_bytes"] < int8["kept_bytes"] < plain["kept_bytes"]
    assert min(ternary["ratio"], int8["ratio"], plain["backward"]) > 0
    assert picture.stat().st_size > 1000
