"""The benchmark suite's JSON: comes back as it was, is read where it is older, refused where it is
something else."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import pytfmbs
from benchmark_figures import GROWTH, MACHINE, contest, measured, package, results

from benchmarks.suite import machine
from benchmarks.suite import results as results_module
from benchmarks.suite.results import Contest, Measured


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    written = results(contest(), contest(kernels="avx2", best=False))
    written.growth = GROWTH  # type: ignore[assignment]
    written.measured["growth"] = measured(11)
    written.write(tmp_path / "r.json")
    found = results_module.read(tmp_path / "r.json")
    assert found.contests[0].cases[0].rows == written.contests[0].cases[0].rows
    assert found.growth == GROWTH
    assert found.measured == written.measured
    # Floats have five digits, and keep them.
    found.write(tmp_path / "again.json")
    assert results_module.read(tmp_path / "again.json") == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "schema None"),
        ('{"schema": 999}', "schema 999; this program reads 1 to 3"),
        ('{"schema": 1}', "does not hold"),
        ('{"schema": 1, "machine": {}, "options": {}, "contests": [{}]}', "does not hold"),
        ('{"schema": 2, "measured": {}, "contests": [], "growth": {"rows": []}}', "does not hold"),
        ('{"schema": 2, "measured": [], "contests": [], "growth": null}', "does not hold"),
        ('{"schema": 2, "measured": {}, "contests": [], "growth": null}', "holds no results"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        results_module.read(path)


def test_results_of_two_machines_do_not_mix() -> None:
    both = results_module.merge([results(contest()), results(contest(), hour=8)])
    assert len(both.contests) == 2
    assert both.provenance == "contests measured 2026-05-01 08:00 UTC, with torch 2"
    with pytest.raises(ValueError, match="two machines: cpu: a CPU, another"):
        results_module.merge([results(contest()), results(contest(), cpu="another")])
    other = dataclasses.replace(contest(), cold_factor=8)
    with pytest.raises(ValueError, match=r"cold layers of \[4, 8\] times the cache"):
        results_module.merge([results(contest()), results(other)])
    quick, full = results(contest()), results(contest())
    quick.measured["contests"].options, quick.measured["contests"].seconds = {"quick": True}, 5.0
    full.measured["contests"].options, full.measured["contests"].seconds = {"quick": False}, 50.0
    merged = results_module.merge([quick, full]).measured["contests"]
    assert merged.options["quick"]
    assert merged.seconds == 55.0


def test_results_of_two_revisions_mix_and_it_is_said() -> None:
    one, other = (results(contest(), pytfmbs=package(revision)) for revision in ("abc", "def"))
    assert one.mixture == ""
    assert one.provenance == (
        "contests measured 2026-05-01 09:00 UTC, of pytfmbs 0.1 (abc), with torch 2"
    )
    wheel = results(contest(), pytfmbs=package(None))
    assert "UTC, of pytfmbs 0.1, with" in wheel.provenance
    unknown = results(contest())
    assert results_module.merge([results(contest()), unknown]).mixture == ""
    assert results_module.merge([one, other, wheel, unknown]).mixture == (
        "figures of different revisions: contests of pytfmbs 0.1 (abc) and pytfmbs 0.1 (def) and "
        "pytfmbs 0.1 and pytfmbs of an unknown version"
    )
    assert len(one.contests) == 4
    same = [results(contest(), pytfmbs=package("abc")) for _ in range(2)]
    assert results_module.merge(same).mixture == ""


def test_a_part_of_another_revision_is_kept_and_it_is_said(tmp_path: Path) -> None:
    grown = results(pytfmbs=package("abc"))
    grown.measured = {"growth": grown.measured["contests"]}
    grown.growth = GROWTH  # type: ignore[assignment]
    found = results(contest(), pytfmbs=package("def", "0.2"))
    assert found.keep(grown) == []
    said = (
        "figures of different revisions: contests of pytfmbs 0.2 (def), growth of pytfmbs 0.1 (abc)"
    )
    assert found.mixture == said
    found.write(tmp_path / "r.json")
    assert results_module.read(tmp_path / "r.json").mixture == said
    older = results(contest())
    older.keep(grown)
    assert older.mixture.endswith("contests of an unknown pytfmbs, growth of pytfmbs 0.1 (abc)")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Of one commit, with a package."""
    if shutil.which("git") is None:
        pytest.skip("no git")
    folder = tmp_path / "checkout" / "pytfmbs"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("", encoding="utf-8")
    known = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*known, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(folder.parent), *command], check=True)
    return folder


def test_the_revision_is_of_the_packages_checkout(checkout: Path) -> None:
    found = machine.revision(checkout)
    assert found is not None
    assert re.fullmatch("[0-9a-f]{7,}", found)
    (checkout / "__init__.py").write_text("1", encoding="utf-8")
    assert machine.revision(checkout) == f"{found}-dirty"


def test_what_is_of_no_checkout_has_no_revision(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = checkout.parent / "venv" / "pytfmbs"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("", encoding="utf-8")
    assert machine.revision(installed) is None
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert machine.revision(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))  # without git
    assert machine.revision(checkout) is None


def test_a_machine_says_which_package_it_measured_and_not_where() -> None:
    (found,) = machine.describe("avx2")["pytfmbs"]
    assert found["version"] == pytfmbs.__version__
    assert found.keys() == {"version", "revision"}
    assert "/" not in str(found)


def test_results_of_schema_1_are_read(tmp_path: Path) -> None:
    older = {
        "schema": 1, "machine": MACHINE, "options": {"quick": True}, "seconds": 3.0,
        "contests": [dataclasses.asdict(contest())], "growth": GROWTH,
    }  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(older), encoding="utf-8")
    found = results_module.read(path)
    assert found.measured == {
        "contests": Measured("", MACHINE, {"quick": True}, 3.0), "growth": Measured("", MACHINE),
    }  # fmt: skip
    assert (len(found.contests), found.growth) == (1, GROWTH)
    assert found.schema == 3
    assert "growth measured at an unknown time, with torch 2" in found.provenance


def write_schema_2(path: Path, *contests: Contest) -> None:
    old_machine = {key: value for key, value in MACHINE.items() if key != "kernels"}
    older = results(*contests)
    older.growth, older.schema = {**GROWTH, "kernels": "portable"}, 2
    older.measured |= {part: Measured("", old_machine) for part in ("contests", "growth")}
    older.write(path)


def test_results_of_schema_2_have_the_kernel_sets_of_their_figures(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_schema_2(path, contest(kernels="avx2", best=False), contest())
    found = results_module.read(path)
    assert found.kernels == "avx512"
    assert found.measured["growth"].machine["kernels"] == "portable"
    assert found.schema == 3
    write_schema_2(path, contest(kernels="avx2", best=False))
    with pytest.raises(ValueError, match="says not whose it is"):
        results_module.read(path)
