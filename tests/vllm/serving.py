"""Processes of vLLM, in .venv-vllm: none of them writes outside a folder of the test's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
#: LLM's options of every run. The references are computed in fp32.
OPTIONS: dict[str, Any] = {
    "dtype": "float32", "enforce_eager": True, "max_model_len": 64, "max_num_seqs": 4,
    "max_num_batched_tokens": 64, "disable_log_stats": True,
}  # fmt: skip


def environment(folder: Path, **more: str) -> dict[str, str]:
    """vLLM's caches and sockets in the folder, no network, no multiprocessing for one rank."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "PYTHON"))}
    cache = folder / "cache"
    return {
        **kept,
        "VLLM_CACHE_ROOT": str(cache / "vllm"), "VLLM_CONFIG_ROOT": str(cache / "config"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"), "VLLM_RPC_BASE_PATH": str(folder),
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "WARNING",
        **more,
    }  # fmt: skip


def run(folder: Path, requests: list[dict[str, Any]], **more: str) -> list[dict[str, Any]]:
    """What run_vllm.py answers; its requests' options get OPTIONS beneath them. more: environment."""
    folder.mkdir(parents=True, exist_ok=True)
    asked, answers = folder / "requests.json", folder / "answers.json"
    whole = [
        {**request, "options": {**OPTIONS, **request.get("options", {})}} for request in requests
    ]
    asked.write_text(json.dumps(whole))
    command = [str(PYTHON), str(Path(__file__).with_name("run_vllm.py")), str(asked), str(answers)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=1800, check=False,
        env=environment(folder, **more),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    found: list[dict[str, Any]] = json.loads(answers.read_text())
    return found


@contextmanager
def server(folder: Path, model: Path) -> Iterator[str]:
    """The address of an OpenAI-compatible server of the model, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager",
        "--max-model-len", "64", "--max-num-seqs", "4",
    ]  # fmt: skip
    log = folder / "server.log"
    with log.open("w") as output:
        # As users run it: the engine in a process of its own.
        env = environment(folder, VLLM_ENABLE_V1_MULTIPROCESSING="1")
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()[-6000:]
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        else:
            raise AssertionError(log.read_text()[-6000:])
        yield address
    finally:
        process.terminate()
        process.wait(60)


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)
