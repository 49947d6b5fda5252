"""The program `fusedstep`, and the demonstration that it runs."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedstep as fs
from fusedstep.program.inspect import OPTIONAL, RULES, SHIPPED
from fusedstep.program.main import EXTRA, main


@fs.rule(state=("b",), lr=1.0)
def Halving(p, g, b, h):  # type: ignore[no-untyped-def]  # noqa: N802
    return p - h.lr * g, b / 2


@pytest.fixture
def extra() -> None:
    for name in EXTRA:
        pytest.importorskip(name, reason=f"the demo needs {name}: install fusedstep[demo]")


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
    command = [sys.executable, "-m", "fusedstep", "info"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == f"{fs.info()}\n"
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


@pytest.mark.parametrize("name", EXTRA)
def test_missing_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fusedstep: error: ")
    assert name in captured.err
    assert captured.err.endswith("pip install 'fusedstep[demo]'\n")
    assert captured.err.count("\n") == 1


def test_the_help_of_inspect_names_every_rule_and_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("inspect", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for rule in [*RULES, *SHIPPED]:
        assert re.search(rf"\b{rule}\b[,;]", text), rule
    for rule, options in OPTIONAL.items():
        said = re.search(rf"of [^:;]*\b{rule}\b[^:;]*: ([^;(]+)", text)
        assert said is not None, rule
        assert {*said[1].strip().split(", ")} == options.keys()


def test_inspect_prints_the_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "adamw", "--source"]) == 0
    source = capsys.readouterr().out
    assert "def adamw(p, g, m, v, h):\n    p = mul(p, h.decay)" in source
    assert "from numpy import float32 as real" in source
    compile(source, "kernel", "exec")
    assert main(["inspect", "sgd", "--source", "--option", "ema"]) == 0
    assert "ema_0 = average(p_0, ema_0, h)" in capsys.readouterr().out
    both = ["--option", "centered", "--option", "inside", "--dtype", "float64"]
    assert main(["inspect", "rmsprop", *both, "--source"]) == 0
    source = capsys.readouterr().out
    assert "d = sqrt(add(w, h.eps))" in source
    assert "from numpy import float64 as real" in source
    assert main(["inspect", "test_cli:Halving", "--source"]) == 0
    assert "def Halving(p, g, b, h):" in capsys.readouterr().out


def test_inspect_prints_ptx(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: fusedstep[cuda]")
    assert main(["inspect", "sgd", "--cc", "8.0"]) == 0
    ptx = capsys.readouterr().out
    assert ".target sm_80" in ptx
    assert "mul.rn.f32" in ptx
    assert ".visible .entry fusedstep_sgd_float32_cuda_" in ptx


def test_a_reader_may_leave_before_the_end() -> None:
    command = f"{sys.executable} -m fusedstep inspect adamw --source | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, encoding="utf-8")
    assert done.stdout.startswith('"""The kernel adamw_mv_float32_cuda')
    assert done.stderr == ""


def test_inspect_has_the_rules_that_are_written_as_users_are() -> None:
    from fusedstep import rules
    from fusedstep.program import inspect

    assert {*inspect.SHIPPED.values()} == {f"fusedstep.rules:{name}" for name in rules.__all__}
    for name in inspect.SHIPPED:
        assert main(["inspect", name, "--source"]) == 0


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["adamx"], "RULE 'adamx' is unknown; pass one of 'sgd', 'momentum'"),
        (["sgd", "--option", "amsgrad"], "--option amsgrad is not one of sgd, which has 'ema'"),
        (["adam", "--option", "nesterov"], "which has 'inside', 'amsgrad', 'ema'"),
        (["nowhere:Lion"], "No module named 'nowhere'; name a module that can be imported"),
        (["numpy:Lion"], "numpy has no rule 'Lion'; make one with `@fusedstep.rule(...)`"),
        (["test_cli:Halving", "--option", "inside"], "leave it out"),
    ],
)
def test_inspect_refuses_what_is_not_there(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", *argv]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fusedstep: error: ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


def test_inspect_knows_its_devices(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: fusedstep[cuda]")
    for cc in ("3.0", "nine"):
        assert main(["inspect", "sgd", "--cc", cc]) == 1
        error = capsys.readouterr().err
        assert f"--cc {cc} is not one that the compiler knows; pass '7.5', '8.0'" in error


def test_inspect_without_its_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusedstep._backends.cuda import available

    monkeypatch.setattr(available, "find_spec", lambda name: None)
    assert main(["inspect", "sgd"]) == 1
    assert capsys.readouterr().err.endswith("`pip install 'fusedstep[cuda]'`\n")


@pytest.mark.usefixtures("extra")
def test_demo_prints_a_row_for_each_optimizer_and_saves_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusedstep.program.demo import CONTESTANTS

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    picture = tmp_path / "losses.png"
    assert main(["demo", "--epochs", "1", "--picture", str(picture)]) == 0

    captured = capsys.readouterr()
    assert captured.err == ""
    assert "\x1b" not in captured.out
    rows = [line.split("│")[1:-1] for line in captured.out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == [contestant.name for contestant in CONTESTANTS]
    assert [row[-1].strip() for row in rows] == ["yes"] * len(CONTESTANTS)
    assert captured.out.endswith(f"{picture}\n")

    png = picture.read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (1200, 750)
    assert 10_000 < len(png) < 1_000_000


@pytest.mark.usefixtures("extra")
def test_unwritable_picture_costs_only_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "link.png"
    picture.symlink_to("nowhere/losses.png")
    assert main(["demo", "--epochs", "1", "--picture", str(picture)]) == 1
    captured = capsys.readouterr()
    assert "AdamW" in captured.out
    assert captured.err.startswith(f"fusedstep: error: cannot write {picture}: ")
    assert captured.err.count("\n") == 1


@pytest.mark.usefixtures("extra")
def test_every_optimizer_learns_with_the_bits_of_its_textbook_rule() -> None:
    from fusedstep.program.demo import CONTESTANTS, run

    results = run(epochs=3, seed=0)
    assert [result.name for result in results] == [contestant.name for contestant in CONTESTANTS]
    for result in results:
        assert result.same_bits, result
        assert result.accuracy > 0.8, result
        assert len(result.losses) == 3
        assert result.losses[-1] < result.losses[0] / 2, result
        assert result.fused > 0
        assert result.ratio == result.textbook / result.fused


@pytest.mark.usefixtures("extra")
def test_another_rule_has_other_bits() -> None:
    from fusedstep.benchmarks.textbook import momentum
    from fusedstep.program.demo import Contestant, compete, read_digits

    contestant = Contestant("SGD", 0.1, fs.SGD, momentum, {})
    assert not compete(contestant, read_digits(0), epochs=1, seed=0).same_bits


def test_gradients_are_those_of_the_loss() -> None:
    from fusedstep.program.demo import LAYERS, backward, initial

    rng = np.random.default_rng(0)
    params: dict[str, Any] = {k: p.astype(np.float64) for k, p in initial(rng).items()}
    x: Any = rng.random((5, LAYERS[0]))
    y: Any = np.eye(LAYERS[-1])[rng.integers(0, LAYERS[-1], 5)]
    _, grads = backward(params, x, y)
    assert grads.keys() == params.keys()
    for k, p in params.items():
        assert grads[k].shape == p.shape
        direction = rng.standard_normal(p.shape)
        ahead, _ = backward({**params, k: p + 1e-6 * direction}, x, y)
        behind, _ = backward({**params, k: p - 1e-6 * direction}, x, y)
        assert (ahead - behind) / 2e-6 == pytest.approx((grads[k] * direction).sum(), rel=1e-5)
