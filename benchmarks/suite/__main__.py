"""The command line: see `--help` of each command."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from . import results as results_module
from .machine import HELD_TO, describe
from .results import CONTESTS, GROWTH, Measured, Results
from .shapes import Shape, select_shapes

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_JSON = ROOT / "build" / "bench.json"
PICTURES = ROOT / "docs" / "images"
BATCHES, COLD_BATCHES = (1, 8, 64, 512), (1,)
QUICK_SHAPES = ("784x60", "60x10", "4096x4096")
QUICK_BATCHES = (1, 64)
# Of a kernel set that the machine would not choose: enough for what is asked of it.
FORCED_BATCHES = (1, 512)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m benchmarks.suite")
    commands = main.add_subparsers(dest="command", required=True)

    run = commands.add_parser("run", help="measure, show tables, write JSON")
    run.add_argument(
        "--shapes",
        nargs="+",
        metavar="SHAPE",
        help="files of shapes, shapes as 4096x4096 (in x out), or parts of names and "
        "labels in benchmarks/shapes.txt (all of it)",
    )
    run.add_argument("--batches", nargs="+", type=int, help=" ".join(map(str, BATCHES)))
    run.add_argument("--threads", nargs="+", type=int, help="1 2, or 1 with --quick")
    run.add_argument(
        "--kernel",
        nargs="+",
        metavar="SET",
        help="kernel sets, each in a process of its own: the best one, and avx2",
    )
    run.add_argument(
        "--products", nargs="+", choices=("int8", "ternary"), default=["int8", "ternary"]
    )
    run.add_argument("--state", nargs="+", choices=("hot", "cold"), default=["hot", "cold"])
    run.add_argument("--peers", nargs="*", metavar="NAME", help="parts of names (all)")
    run.add_argument(
        "--slow-peers",
        action="store_true",
        help="peers of hundreds of ms a call too, at every shape",
    )
    run.add_argument(
        "--quick",
        action="store_true",
        help="few rounds, three shapes, batches 1 and 64, one thread: to see it work",
    )
    run.add_argument(
        "--json",
        type=Path,
        default=DEFAULT_JSON,
        help="where the results go; a growth of this machine that is there stays",
    )

    growth = commands.add_parser("growth", help="time per weight and per row, over sizes")
    growth.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    growth.add_argument("--quick", action="store_true")
    growth.add_argument(
        "--json",
        type=Path,
        default=DEFAULT_JSON,
        help="where the growth goes; other results of this machine that are there stay",
    )

    judge = commands.add_parser("judge", help="the ratios that the project is held to")
    judge.add_argument("json", type=Path, nargs="*", default=[DEFAULT_JSON])
    judge.add_argument("--every", action="store_true", help="every shape, not the worst one")

    show = commands.add_parser("show", help="the tables of a JSON file")
    show.add_argument("json", type=Path, nargs="*", default=[DEFAULT_JSON])

    draw = commands.add_parser("draw", help="the pictures of a JSON file")
    draw.add_argument("json", type=Path, nargs="*", default=[DEFAULT_JSON])
    draw.add_argument("--folder", type=Path, default=PICTURES)

    for command in (run, growth):
        command.add_argument("--plots", action="store_true", help="draw beside the JSON")
        command.add_argument(
            "--write-docs", action="store_true", help="pictures and figures into docs/"
        )
    worker = commands.add_parser("worker", help="one process of a run; not for people")
    worker.add_argument("job", type=Path)
    worker.add_argument("output", type=Path)
    return main  # fmt: skip


def plan(arguments: argparse.Namespace, best: str, sets: Sequence[str]) -> list[dict[str, object]]:
    """The jobs, as JSON has them. best: the set that this CPU gets by itself; sets: all it has."""
    kernels = arguments.kernel or [best, *(["avx2"] if best != "avx2" and "avx2" in sets else [])]
    for name in kernels:
        if name not in sets:
            raise ValueError(f"kernel set {name!r}: this CPU has {', '.join(sets)}")
    quick = arguments.quick
    cores = os.cpu_count() or 1
    threads = arguments.threads or ([1] if quick or cores == 1 else [1, 2])
    if any(not 1 <= count <= cores for count in threads):
        raise ValueError(f"--threads {threads}: this machine has 1 to {cores}")
    if any(batch < 1 for batch in arguments.batches or ()):
        raise ValueError(f"--batches {arguments.batches}: at least 1")
    shapes = select_shapes(arguments.shapes or (QUICK_SHAPES if quick else None))
    by_kernels = {
        name: arguments.batches
        or (FORCED_BATCHES if name != best else QUICK_BATCHES if quick else BATCHES)
        for name in kernels
    }
    return [
        {
            "kernels": name,
            "best": name == best,
            "threads": count,
            "shapes": [dataclasses.astuple(shape) for shape in shapes],
            "batches": list(batches),
            "cold_batches": list(COLD_BATCHES),
            "states": arguments.state,
            "products": arguments.products,
            "peers": arguments.peers,
            "slow_everywhere": arguments.slow_peers,
            "quick": quick,
        }
        for name, batches in by_kernels.items()
        for count in threads
    ]


def kernel_sets() -> tuple[str, list[str]]:
    """The set that this CPU gets by itself, and all that it supports: asked in a process without
    TFMBS_KERNEL."""
    code = "import json, pytfmbs; print(json.dumps([pytfmbs.active_kernels(), pytfmbs.isa_variants()]))"
    environment = {k: v for k, v in os.environ.items() if k != "TFMBS_KERNEL"}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    best, sets = json.loads(answer.stdout)
    return best, list(sets)


def run_job(job: dict[str, object]) -> results_module.Contest:
    """In a process of its own, held to the kernel set's instructions."""
    name = str(job["kernels"])
    environment = {
        **os.environ,
        "TFMBS_KERNEL": name,
        "OMP_NUM_THREADS": str(job["threads"]),
        "MKL_NUM_THREADS": str(job["threads"]),
        **({} if job["best"] else HELD_TO.get(name, {})),
    }
    with tempfile.TemporaryDirectory() as folder:
        given, output = Path(folder) / "job.json", Path(folder) / "contest.json"
        given.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.suite", "worker", str(given), str(output)]
        subprocess.run(command, env=environment, cwd=ROOT, check=True)
        return results_module.contest_from(json.loads(output.read_text(encoding="utf-8")))


def work(given: Path, output: Path) -> None:
    from . import worker

    job = json.loads(given.read_text(encoding="utf-8"))
    shapes = [Shape(*shape) for shape in job.pop("shapes")]
    contest = worker.run(worker.Job(shapes=shapes, **job))
    output.write_text(json.dumps(dataclasses.asdict(contest)), encoding="utf-8")


def judge(results: Results, every: bool = False) -> None:
    from . import judge as judge_module
    from . import tables

    out = tables.console()
    if results.contests:
        verdicts = judge_module.judge(results)
        out.print(tables.verdict_table(verdicts, every, judge_module.left_out(results)))
    if results.growth:
        out.print(tables.growth_table(judge_module.judge_growth(results.growth)))
    out.print(f"{results.machine['cpu']}, {results.kernels}: {results.provenance}")


def measured_now(arguments: argparse.Namespace, best: str) -> Measured:
    """At the beginning of what is measured. best: the set that this CPU gets by itself."""
    known = ("command", "json", "plots", "write_docs")
    options = {key: value for key, value in vars(arguments).items() if key not in known}
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Measured(when, describe(best), options)


def read_older(path: Path) -> Results | None:
    """What the file holds, whose parts that are not measured now are kept. Asked before anything is
    measured: ValueError where the file is something else, which is not to be overwritten."""
    return results_module.read(path) if path.exists() else None


def keep_others(results: Results, older: Results | None) -> None:
    for line in results.keep(older) if older is not None else ():
        print(line)
    say_mixture(results)


def say_mixture(results: Results) -> None:
    if results.mixture:
        print(results.mixture)


def finish(results: Results, arguments: argparse.Namespace) -> None:
    from . import docs, pictures

    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    results.write(arguments.json)
    print(f"written: {arguments.json}")
    if arguments.plots:
        pictures.draw(results, arguments.json.parent)
    if arguments.write_docs:
        pictures.draw(results, PICTURES)
        docs.write(results)


def main(given: Sequence[str] | None = None) -> None:
    from . import tables

    arguments = parser().parse_args(given)
    if arguments.command == "worker":
        return work(arguments.job, arguments.output)
    if arguments.command == "run":
        older = read_older(arguments.json)
        start = time.monotonic()
        best, sets = kernel_sets()
        jobs = plan(arguments, best, sets)
        measured = measured_now(arguments, best)
        results = Results({CONTESTS: measured}, contests=[run_job(job) for job in jobs])
        measured.seconds = time.monotonic() - start
        keep_others(results, older)
        tables.show_cases(results, tables.console())
        judge(results)
        return finish(results, arguments)
    if arguments.command == "growth":
        from . import growth

        older = read_older(arguments.json)
        best, _ = kernel_sets()
        if (forced := os.environ.get("TFMBS_KERNEL", best)) != best:
            raise ValueError(f"TFMBS_KERNEL={forced}: growth is of {best}, the best of this CPU")
        start = time.monotonic()
        measured = measured_now(arguments, best)
        results = Results({GROWTH: measured}, growth=growth.run(arguments.threads, arguments.quick))
        measured.seconds = time.monotonic() - start
        keep_others(results, older)
        judge(results)
        return finish(results, arguments)
    results = results_module.merge(results_module.read(path) for path in arguments.json)
    say_mixture(results)
    if arguments.command == "judge":
        judge(results, arguments.every)
    elif arguments.command == "show":
        tables.show_cases(results, tables.console())
    else:
        from . import pictures

        pictures.draw(results, arguments.folder)
    return None


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"benchmarks.suite: {error}")
    except subprocess.CalledProcessError as error:  # it has said why
        sys.exit(f"benchmarks.suite: a process of the run ended with status {error.returncode}")
