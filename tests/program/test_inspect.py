"""`fusedstep inspect`: the kernels that it prints."""

from __future__ import annotations

import re

import pytest
from marks import needs

import fusedstep as fs
from fusedstep.program.inspect import CUSTOM, OPTIONAL, RULES
from fusedstep.program.main import main


@fs.rule(state=("b",), lr=1.0)
def Halving(p, g, b, h):  # type: ignore[no-untyped-def]  # noqa: N802
    return p - h.lr * g, b / 2


def exit_status(*argv: str) -> object:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


def test_the_help_of_inspect_names_every_rule_and_option(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("inspect", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for rule in [*RULES, *CUSTOM]:
        assert re.search(rf"\b{rule}\b[,;]", text), rule
    for rule, options in OPTIONAL.items():
        if not options:
            continue
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
    assert "ema = average(p, ema, h)" in capsys.readouterr().out
    both = ["--option", "centered", "--option", "inside", "--dtype", "float64"]
    assert main(["inspect", "rmsprop", *both, "--source"]) == 0
    source = capsys.readouterr().out
    assert "d = sqrt(add(w, h.eps))" in source
    assert "from numpy import float64 as real" in source
    assert main(["inspect", f"{__name__}:Halving", "--source"]) == 0
    assert "def Halving(p, g, b, h):" in capsys.readouterr().out


def test_inspect_prints_ptx(capsys: pytest.CaptureFixture[str]) -> None:
    needs("numba_cuda", "cuda")
    assert main(["inspect", "sgd", "--cc", "8.0"]) == 0
    ptx = capsys.readouterr().out
    assert ".target sm_80" in ptx
    assert "mul.rn.f32" in ptx
    assert ".visible .entry fusedstep_sgd_float32_cuda_" in ptx


def test_inspect_has_the_rules_that_are_written_as_users_are() -> None:
    from fusedstep import rules
    from fusedstep.program import inspect

    assert {*inspect.CUSTOM.values()} == {f"fusedstep.rules:{name}" for name in rules.__all__}
    for name in inspect.CUSTOM:
        assert main(["inspect", name, "--source"]) == 0


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["adamx"], "RULE 'adamx' is unknown; pass one of 'sgd', 'momentum'"),
        (["sgd", "--option", "amsgrad"], "--option amsgrad is not one of sgd, which has 'ema'"),
        (["adam", "--option", "nesterov"], "which has 'inside', 'amsgrad', 'ema'"),
        (["nowhere:Lion"], "No module named 'nowhere'; name a module that can be imported"),
        (["numpy:Lion"], "numpy has no rule 'Lion'; make one with `@fusedstep.rule(...)`"),
        ([f"{__name__}:Halving", "--option", "inside"], "leave it out"),
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
    needs("numba_cuda", "cuda")
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
