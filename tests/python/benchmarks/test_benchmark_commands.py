"""The benchmark suite's command line: what runs, and what becomes of older figures in its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_figures import GROWTH, MACHINE, contest, package, results

from benchmarks.suite import __main__ as command_line
from benchmarks.suite import docs, growth
from benchmarks.suite import results as results_module
from benchmarks.suite.results import Results


def jobs(*given: str) -> list[dict[str, object]]:
    arguments = command_line.parser().parse_args(["run", *given])
    return command_line.plan(arguments, "avx512", ["portable", "avx2", "avx512"])


def test_a_run_has_a_process_for_each_kernel_set_and_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_line.os, "cpu_count", lambda: 2)
    found = [(j["kernels"], j["best"], j["threads"], j["batches"]) for j in jobs()]
    assert found == [
        ("avx512", True, 1, [1, 8, 64, 512]), ("avx512", True, 2, [1, 8, 64, 512]),
        ("avx2", False, 1, [1, 512]), ("avx2", False, 2, [1, 512]),
    ]  # fmt: skip
    assert [j["threads"] for j in jobs("--quick", "--kernel", "avx2")] == [1]
    assert jobs("--batches", "4", "--kernel", "portable")[0]["batches"] == [4]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--kernel", "amx"], "kernel set 'amx': this CPU has portable, avx2, avx512"),
        (["--threads", "0"], "this machine has 1 to"),
        (["--batches", "0"], "at least 1"),
        (["--shapes", "nothing"], "no shape matches 'nothing'"),
    ],
)
def test_bad_options_say_what_is_allowed(given: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jobs(*given)


class Commands:
    """The command line on a machine that is described here, with figures from here."""

    def __init__(self, patch: pytest.MonkeyPatch, path: Path) -> None:
        self.path, self.machine, self.best = path, MACHINE, "avx512"
        patch.delenv("TFMBS_KERNEL", raising=False)
        patch.setattr(command_line, "describe", lambda best: {**self.machine, "kernels": best})
        patch.setattr(command_line, "kernel_sets", lambda: (self.best, [self.best]))
        patch.setattr(command_line, "run_job", lambda job: contest(kernels=str(job["kernels"])))
        patch.setattr(growth, "run", lambda threads, quick: {**GROWTH, "kernels": self.best})

    def __call__(self, *given: str) -> Results:
        command_line.main([*given, "--json", str(self.path)])
        return results_module.read(self.path)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Commands:
    return Commands(monkeypatch, tmp_path / "bench.json")


def test_a_command_keeps_what_it_does_not_measure(
    commands: Commands, capsys: pytest.CaptureFixture[str]
) -> None:
    run = commands("run", "--threads", "1")
    assert list(run.measured) == ["contests"]
    grown = commands("growth", "--threads", "1")
    assert grown.contests == run.contests
    assert grown.measured["contests"] == run.measured["contests"]
    assert grown.measured["growth"].options["threads"] == [1]
    # Another torch, on the machine that it was.
    commands.machine = {**MACHINE, "load": [1.5], "versions": {"torch": "3"}}
    capsys.readouterr()
    again = commands("run", "--quick", "--threads", "1")
    assert again.growth == GROWTH
    assert again.measured["growth"] == grown.measured["growth"]
    assert again.measured["contests"].options["quick"]
    assert again.machine["versions"] == {"torch": "3"}
    text = " ".join(capsys.readouterr().out.split())
    assert "Held to: growth" in text
    assert "UTC, --quick, with torch 3; growth measured 20" in text


@pytest.mark.parametrize(("first", "second"), [("run", "growth"), ("growth", "run")])
def test_figures_of_another_revision_are_kept_and_it_is_said(
    commands: Commands, capsys: pytest.CaptureFixture[str], first: str, second: str
) -> None:
    commands.machine = {**MACHINE, "pytfmbs": package("abc")}
    commands(first, "--threads", "1")
    assert commands(second, "--threads", "1").mixture == ""
    assert "revision" not in capsys.readouterr().out
    commands.machine = {**MACHINE, "pytfmbs": package("def")}
    found = commands(second, "--threads", "1")
    assert len(found.measured) == 2
    parts = {"run": "contests", "growth": "growth"}
    said = (
        f"figures of different revisions: {parts[second]} of pytfmbs 0.1 (def), "
        f"{parts[first]} of pytfmbs 0.1 (abc)"
    )
    assert said in capsys.readouterr().out
    command_line.main(["judge", str(commands.path)])
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second"), [("run", "growth"), ("growth", "run")])
def test_figures_of_another_machine_machine_are_dropped_and_it_is_said(
    commands: Commands, capsys: pytest.CaptureFixture[str], first: str, second: str
) -> None:
    (part,) = commands(first, "--threads", "1").measured
    commands.machine = {**MACHINE, "cores": 4}
    found = commands(second, "--threads", "1")
    assert list(found.measured) == [{"run": "contests", "growth": "growth"}[second]]
    assert bool(found.contests) != bool(found.growth)
    assert found.machine["cores"] == 4
    text = capsys.readouterr().out
    assert f"{part} of another machine dropped, measured 20" in text
    assert "(cores: 2, 4)" in text


@pytest.mark.parametrize(("first", "second"), [("run", "growth"), ("growth", "run")])
def test_a_guest_from_which_instructions_are_hidden_is_another_machine(
    commands: Commands, capsys: pytest.CaptureFixture[str], first: str, second: str
) -> None:
    commands(first, "--threads", "1")
    commands.best = "avx2"
    found = commands(second, "--threads", "1")
    assert found.kernels == "avx2"
    assert len(found.measured) == 1
    assert bool(found.contests) != bool(found.growth)
    assert "(kernels: avx512, avx2)" in capsys.readouterr().out
    with pytest.raises(ValueError, match="two machines: kernels: avx2, avx512"):
        results_module.merge([found, results(contest())])


def test_docs_of_one_set_leave_the_others(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pictures_of = tmp_path / "images"
    monkeypatch.setattr(docs, "FOLDER", tmp_path / "measured")
    monkeypatch.setattr(command_line, "PICTURES", pictures_of)
    commands("run", "--threads", "1")
    commands("growth", "--write-docs")
    first = docs.page("avx512").read_bytes()
    drawn = {path: path.read_bytes() for path in pictures_of.iterdir()}
    assert len(drawn) == 3
    commands.best = "avx2"
    commands("run", "--threads", "1", "--write-docs")
    assert docs.page("avx512").read_bytes() == first
    assert docs.page("avx2").exists()
    assert {path: path.read_bytes() for path in drawn} == drawn
    assert {path.name for path in pictures_of.iterdir()} - {path.name for path in drawn} == {
        "bench-roofline-avx2.png", "bench-bars-avx2.png",
    }  # fmt: skip


def test_growth_is_of_the_best_set_alone(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands("run", "--threads", "1")
    before = commands.path.read_bytes()
    monkeypatch.setenv("TFMBS_KERNEL", "avx2")
    with pytest.raises(ValueError, match="TFMBS_KERNEL=avx2: growth is of avx512"):
        commands("growth")
    assert commands.path.read_bytes() == before
    monkeypatch.setenv("TFMBS_KERNEL", "avx512")
    assert commands("growth").growth == GROWTH


@pytest.mark.parametrize("command", ["run", "growth"])
def test_a_file_that_nobody_reads_is_not_overwritten(
    commands: Commands, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    commands.path.write_text('{"schema": 999}', encoding="utf-8")
    with pytest.raises(ValueError, match="has schema 999"):
        commands(command)
    assert commands.path.read_text(encoding="utf-8") == '{"schema": 999}'
