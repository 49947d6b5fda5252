"""The program `fusedstep`: its help, its errors, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import fusedstep as fs
from fusedstep.program.errors import DRAWING, EXTRA
from fusedstep.program.main import main


def exit_status(*argv: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


def test_info_prints_what_info_returns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert capsys.readouterr().out == f"{fs.info()}\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("--version") == 0
    assert capsys.readouterr().out == f"fusedstep {fs.info().version}\n"


def test_bare_program_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("--help") == 0
    help_text = capsys.readouterr().out
    assert "info" in help_text
    assert "demo" in help_text
    assert main([]) == 0
    assert capsys.readouterr().out == help_text


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["dmeo"], "invalid choice: 'dmeo'"),
        (["demo", "--epochs", "0"], "'0' is not a whole number from 1 on"),
        (["demo", "--epochs", "two"], "'two' is not a whole number from 1 on"),
        (["demo", "--seed", "-1"], "'-1' is not a whole number from 0 on"),
        (["demo", "--picture", "losses.pdf"], "'losses.pdf' is no name of a PNG"),
        (["demo", "--picture", "nowhere/losses.png"], "'nowhere' is no directory"),
    ],
)
def test_unfit_arguments(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(*argv) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


def test_module_is_the_same_program() -> None:
    command = [sys.executable, "-m", "fusedstep", "--version"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == f"fusedstep {fs.info().version}\n"
    assert done.stderr == ""


def test_unfit_environment_is_one_line() -> None:
    command = [sys.executable, "-m", "fusedstep", "info"]
    environment = {**os.environ, "FUSEDSTEP_NUM_THREADS": "none"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("fusedstep: error: FUSEDSTEP_NUM_THREADS='none'")
    assert done.stderr.count("\n") == 1


def test_program_imports_the_extra_only_for_the_demo() -> None:
    code = f"import sys, fusedstep.program.main; sys.exit(len(sys.modules.keys() & {set(EXTRA)}))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


NEEDS = [
    *((name, ["demo"], "") for name in EXTRA),
    *((name, ["bench"], "the benchmark needs ") for name in DRAWING),
    *((name, ["plot-schedule", "constant(1)"], "plotting needs ") for name in DRAWING),
]


@pytest.mark.parametrize(("name", "argv", "complaint"), NEEDS)
def test_missing_extra(
    name: str,
    argv: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"fusedstep: error: {complaint}")
    assert name in captured.err
    assert captured.err.endswith("pip install 'fusedstep[demo]'\n")
    assert captured.err.count("\n") == 1


def test_a_reader_may_leave_before_the_end() -> None:
    command = f"{sys.executable} -m fusedstep inspect adamw --source | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, encoding="utf-8")
    assert done.stdout.startswith('"""The CUDA kernel adamw_mv_float32_cuda')
    assert done.stderr == ""
