"""`fusedstep bench`: what it refuses, prints and writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import RULES
from runs import WHOLE, run_of

import fusedstep as fs
from fusedstep._core.declaration import declaration_of
from fusedstep.benchmarks import budget, json_file
from fusedstep.benchmarks.compare import CRITERION
from fusedstep.benchmarks.problem import CASES
from fusedstep.benchmarks.records import Results
from fusedstep.benchmarks.tables import TITLES
from fusedstep.program import bench, progress
from fusedstep.program.bench import BESIDE, KEPT
from fusedstep.program.main import main


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--seconds", "0"], "'0' is not a number of seconds above 0"),
        (["--seconds", "inf"], "'inf' is not a number of seconds above 0"),
        (["--seconds", "soon"], "'soon' is not a number of seconds above 0"),
        (["--threads", "0"], "'0' is not a whole number from 1 on"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
        (["--optimizer", "adamx"], "invalid choice: 'adamx'"),
        (["--json", "bench.txt"], "'bench.txt' is no name of a JSON; end it in .json"),
        (["--json", "nowhere/bench.json"], "'nowhere' is no directory; create it first"),
        (["--picture", "bench.pdf"], "'bench.pdf' is no name of a PNG; end it in .png"),
        (["--json", "folder.json"], "'folder.json' is a directory; name a file"),
    ],
)
def test_unfit_arguments(
    argv: list[str], complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "folder.json").mkdir()
    with pytest.raises(SystemExit) as caught:
        main(["bench", *argv])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("option", [["--json", "bench.json"], ["--picture", "bench.png"], []])
def test_a_folder_that_may_not_be_written_to_costs_no_time(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(SystemExit) as caught:
        main(["bench", *option])
    assert caught.value.code == 2
    assert "'.' may not be written to; name a file elsewhere\n" in capsys.readouterr().err


def test_every_rule_has_a_case_that_may_be_named() -> None:
    assert [case.name for case in CASES.values()] == [*CASES]
    assert {rule.name for rule in RULES} == {*CASES}
    for name, case in CASES.items():
        declaration = declaration_of(case.optimizer)
        assert declaration.rule({**declaration.defaults, **case.options}).name == name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the program runs in, and writes to by default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    return tmp_path


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Results]]:
    """Results that the program finds in place of measuring, the last one first."""
    runs = [WHOLE]

    def run(*args: object) -> Results:
        return runs.pop()

    monkeypatch.setattr(budget, "run", run)
    yield runs
    assert runs == []


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_whole_program(
    optimizer: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = fs.get_num_threads()
    argv = ["bench", "--seconds", "0.5", "--threads", "1", "--optimizer", optimizer]
    assert main([*argv, "--dtype", "float64"]) == 0
    assert fs.get_num_threads() == threads
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert f"One step of {TITLES[optimizer]} in float64, 1 thread" in captured.out
    assert captured.out.endswith(f"{KEPT} and drawn in fusedstep-bench.png\n")
    assert "\ntiming 1 × 1,000\n" in captured.err
    assert {entry.name for entry in folder.iterdir()} == {KEPT, "fusedstep-bench.png"}
    results = json_file.read(folder / KEPT)
    assert results.machine.threads == 1
    assert results.machine.versions["fusedstep"] == fs.info().version
    assert {one.dtype for one in results.records} == {"float64"}
    assert {one.case for one in results.records} == {optimizer}
    ours = [one for one in results.records if one.contestant == "fusedstep"]
    assert ours[0].workload == "1 × 1,000"
    for one in results.records:
        for word in one.contestant.removeprefix("fusedstep").split():  # of a heading, or a row
            assert word in captured.out
    assert "GPT-2 small" in " ".join(captured.out.split())  # which is left out


def test_says_when_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for load, said in ((0.9, ""), (1.1, "a load of 1.1 on 4 CPUs in the last minute")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 9.0, 9.0), raising=False)
        assert progress.busy() == said
    monkeypatch.delattr(os, "getloadavg")
    assert progress.busy() == ""


@pytest.mark.usefixtures("extra")
def test_does_not_write_over_what_it_compares_with(
    folder: Path, found: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    half = run_of(*(one._replace(seconds=one.seconds / 2, low=0.0) for one in WHOLE.records))
    half = run_of(*(one._replace(low=one.seconds, high=one.seconds) for one in half.records))
    found[:] = [WHOLE, half, half, WHOLE]
    assert main(["bench"]) == 0
    assert main(["bench", "--compare", KEPT]) == 0
    assert json_file.read(folder / KEPT) == WHOLE
    assert json_file.read(folder / BESIDE) == half
    output = " ".join(capsys.readouterr().out.split())
    assert CRITERION in output
    assert f"faster: {len(WHOLE.records)}, slower: 0, noise: 0" in output
    assert BESIDE in output
    assert main(["bench", "--compare", f"{folder}/{KEPT}", "--json", KEPT]) == 0
    assert json_file.read(folder / KEPT) == half
    assert f"faster: {len(WHOLE.records)}, " in capsys.readouterr().out
    assert main(["bench", "--compare", BESIDE]) == 0
    assert json_file.read(folder / KEPT) == WHOLE


@pytest.mark.usefixtures("extra", "folder")
def test_a_wrong_file_to_compare_with_costs_no_time(
    found: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    found.clear()
    Path("old.json").write_text("{}")
    for name, complaint in (
        ("old.json", "old.json holds no results: the file lacks machine"),
        ("none.json", "cannot read none.json: No such file or directory; pass a file that"),
    ):
        assert main(["bench", "--compare", name]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"fusedstep: error: {complaint}")
        assert captured.err.count("\n") == 1


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(("option", "name"), [("json", "a.json"), ("picture", "a.png")])
def test_what_cannot_be_written_costs_only_itself(
    option: str,
    name: str,
    folder: Path,
    found: list[Results],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / name).symlink_to(f"nowhere/{name}")
    assert main(["bench", f"--{option}", name]) == 1
    captured = capsys.readouterr()
    assert "1 × 100,000" in captured.out
    assert captured.err.startswith(f"fusedstep: error: cannot write {name}: ")
    assert captured.err.endswith(f"; name another --{option}\n")
    other = {"json": "drawn in fusedstep-bench.png", "picture": f"kept in {KEPT}"}[option]
    assert captured.out.endswith(f"\nThe results are {other}\n")
    assert {entry.name for entry in folder.iterdir()} == {name, other.split()[-1]}


@pytest.mark.usefixtures("extra", "folder")
def test_what_was_not_written_is_said_to_who_leaves_the_tables(
    found: list[Results], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def left(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "show", left)
    Path("a.json").symlink_to("nowhere/a.json")
    assert main(["bench", "--json", "a.json"]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("fusedstep: error: cannot write a.json: ")
    assert last == "fusedstep: error: interrupted"


@pytest.mark.usefixtures("extra", "folder")
def test_an_interrupted_run_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object) -> Results:
        raise KeyboardInterrupt

    monkeypatch.setattr(budget, "run", interrupted)
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "fusedstep: error: interrupted; nothing was written\n"
    assert [*Path().iterdir()] == []
