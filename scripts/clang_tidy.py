"""Runs clang-tidy over the C++ sources, in parallel, and only over what changed since it was clean.

A file is clean for a given clang-tidy, configuration, compile command, text, and text of every
header of the repository that it includes; a stamp beside the build says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def recorded_headers(build: Path) -> dict[str, list[Path]]:
    """The repository's headers by object file, as Ninja recorded them in the last build."""
    text = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True
    ).stdout
    headers: dict[str, list[Path]] = {}
    current: list[Path] = []
    for line in text.splitlines():
        if line.startswith("    "):
            path = (build / line.strip()).resolve()
            if path.is_relative_to(ROOT) and path.suffix in {".hpp", ".h", ".inc"}:
                current.append(path)
        elif ": #deps" in line:
            current = headers.setdefault(line.split(": #deps")[0], [])
    return headers


def key_of(entry: dict[str, str], headers: list[Path], common: bytes) -> str:
    digest = hashlib.sha256(common)
    digest.update(entry["command"].encode())
    for path in [Path(entry["file"]), *sorted(headers)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=Path, help="a Ninja build folder")
    parser.add_argument("--all", action="store_true", help="also what is known to be clean")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("only", nargs="*", help="parts of paths; default: every file")
    arguments = parser.parse_args()

    build = arguments.build.resolve()
    stamps = build / "clang-tidy"
    stamps.mkdir(exist_ok=True)
    version = subprocess.run(["clang-tidy", "--version"], capture_output=True, check=True).stdout
    common = version + (ROOT / ".clang-tidy").read_bytes()
    all_headers = [
        path
        for folder in ("cpp", "mlir")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".hpp", ".h"}
    ]
    headers = recorded_headers(build)

    todo: list[tuple[Path, Path]] = []
    clean = 0
    for entry in json.loads((build / "compile_commands.json").read_text()):
        source = Path(entry["file"])
        name = str(source.relative_to(ROOT)) if source.is_relative_to(ROOT) else ""
        if not name.startswith(("cpp/", "cmake/", "mlir/")):
            continue
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        # A file that was never compiled has no record: any header may matter to it.
        stamp = stamps / key_of(entry, headers.get(entry.get("output", ""), all_headers), common)
        if stamp.exists() and not arguments.all:
            clean += 1
        else:
            todo.append((source, stamp))

    seen: set[str] = set()

    def check(item: tuple[Path, Path]) -> bool:
        source, stamp = item
        started = time.monotonic()
        # The compile commands are another compiler's: what clang does not know is no finding.
        run = subprocess.run(
            ["clang-tidy", "--quiet", "-p", str(build), "--extra-arg=-Wno-unknown-warning-option",
             "--extra-arg=-Wno-error", str(source)],
            capture_output=True,
            text=True,
        )  # fmt: skip
        verdict = "clean" if run.returncode == 0 else "findings"
        seconds = time.monotonic() - started
        print(f"clang-tidy {source.relative_to(ROOT)}: {verdict} ({seconds:.0f} s)", flush=True)
        if run.returncode == 0:
            stamp.touch()
        else:
            # A finding in a header comes with every file that includes it: show it once.
            findings = re.split(r"(?m)^(?=\S+:\d+:\d+: (?:error|warning):)", run.stdout)
            new = [finding for finding in findings if finding not in seen]
            seen.update(new)
            print(*new, sep="", flush=True)
            if len(findings) == 1:
                print(run.stderr, flush=True)
        return run.returncode == 0

    with ThreadPoolExecutor(arguments.jobs) as pool:
        results = list(pool.map(check, todo))
    failed = results.count(False)
    print(f"clang-tidy: {failed} with findings, {len(todo) - failed} clean, {clean} clean before")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
