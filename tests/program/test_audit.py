"""`fusedstep audit`: its output, its exit status, and its errors, whose remedies work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from marks import needs

from fusedstep.audits.checks import CHECKS
from fusedstep.program.main import main

PASSING = "faulty_optimizers.right.SGD(lr=0.1)"
FAILING = "faulty_optimizers.forgets.SGD()"


@pytest.fixture(autouse=True)
def _torch() -> None:
    needs("torch", "torch")


def test_all_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", PASSING]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("1,000 steps", "resume", "transposed"))
    assert "fails" not in out
    assert "SGD has no bias correction" in " ".join(out.split())


def test_some_fail(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert main(["audit", FAILING, "--json", str(path)]) == 1
    out = capsys.readouterr().out
    assert "fails: resume: " in out
    assert "def optimizer(params):" in out
    assert "prints: element " in out
    report = json.loads(path.read_text("utf-8"))
    assert report["optimizer"] == FAILING
    assert report["counts"]["fails"] == 1
    assert [finding["check"] for finding in report["findings"]] == [*CHECKS]
    (found,) = [each for each in report["findings"] if each["verdict"] == "fails"]
    assert found["reproducer"].startswith("# faulty_optimizers.forgets.SGD(), torch ")


def test_values_that_are_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "faulty_optimizers.scales_by_norms.SGD()", "--as", "none"]) == 3
    out = capsys.readouterr().out
    assert "not judged, 11: the step of an element depends on other elements" in out
    assert "VALUES WERE NOT JUDGED: no formula, by --as none" in out
    assert "name the rule by --as" in out


@pytest.mark.slow
def test_a_rule_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    needs("optax", "others")
    assert usage("optax_optimizers.adam()", "--as", "optax.sgd(momentum=0.9)") == 1  # subnormals
    out = capsys.readouterr().out
    assert "held against: sgd, as optax has it, by --as optax.sgd(momentum=0.9)" in out
    assert [line for line in out.splitlines() if line.startswith("fails: ")] == [
        line for line in out.splitlines() if line.startswith("fails: subnormals")
    ]
    assert usage("optax_optimizers.adam()") == 3


def test_json_in_place_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", FAILING, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counts"]["fails"] == 1


@pytest.mark.parametrize("rich", [True, False])
def test_output_in_ascii(rich: bool, tmp_path: Path) -> None:
    """An exception's β is printed, whatever the encoding, and without rich, too."""
    hidden = "" if rich else "import sys; sys.modules['rich'] = None; "
    hidden += (
        ""
        if rich
        else (
            "import importlib.util as u; find = u.find_spec; "
            "u.find_spec = lambda name, *a: None if name == 'rich' else find(name, *a); "
        )
    )
    run = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"{hidden}from fusedstep.program.main import main; raise SystemExit(main())",
            *("audit", "faulty_optimizers.refuses_views.SGD()"),
        ],
        capture_output=True,
        env={
            **os.environ,
            "PYTHONIOENCODING": "ascii",
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
    )
    assert run.stderr == b""
    assert run.returncode == 0
    assert b"p is not contiguous; beta" in b" ".join(run.stdout.split())


def usage(*argv: str) -> int | str | None:
    try:
        return main(["audit", *argv])
    except SystemExit as ended:
        return ended.code


ERRORS = {
    "torch.optim.AdamX()": "torch.optim has no 'AdamX'; did you mean 'Adamax'?",
    "torch.optim.adamw()": "did you mean 'AdamW'?",
    "torhc.optim.AdamW()": "there is no module 'torhc'; install it, or correct its name",
    "torch.optim.AdamW(0.1)": "parameters are put in by the audit; give all others by keyword",
    "torch.optim.AdamW(rate=0.1)": "the arguments of torch.optim.AdamW are: lr, betas, eps",
    "torch.optim.AdamW(lr=-1.0)": "raises ValueError: Invalid learning rate: -1.0",
    "torch.nn.Linear(in_features=1)": "is no optimizer of torch, Keras or optax; name a class",
    "torch.float32": "is no optimizer of torch, Keras or optax; name a class",
    "torch.optim.LBFGS()": "cannot be stepped with plain gradients",
    "AdamW()": "does not name an optimizer by the path",
    "torch.optim.AdamW(": "is no Python expression",
    "torch.optim.AdamW(lr=1 // 3)": "write its value",
    "torch.optim.SGD(lr=os.getpid())": "os.getpid is neither of torch nor of jax",
    "os.abort()": "is no optimizer of torch, Keras or optax; name a class",
    "": "is no Python expression",
}


@pytest.mark.parametrize("expression", ERRORS)
def test_errors(expression: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert usage(expression) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ERRORS[expression] in captured.err


def test_optax_without_a_rate(capsys: pytest.CaptureFixture[str]) -> None:
    needs("optax", "others")
    assert usage("optax.adam()") == 2
    assert "the arguments of optax.adam are: learning_rate, b1, b2" in capsys.readouterr().err


def test_errors_of_other_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage() == 2
    assert usage("--json", PASSING) == 2
    assert "put the expression before --json" in capsys.readouterr().err
    assert usage(PASSING, "--json", "found.txt") == 2
    assert usage(PASSING, "--timeout", "0") == 2
    assert usage(PASSING, "--as", "SGD") == 2
    assert "does not name an optimizer by the path" in capsys.readouterr().err
    assert usage(PASSING, "--as", "torch.optim.AdamX") == 2
    assert "did you mean 'Adamax'?" in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage("--help") == 0
    assert "torch.optim.AdamW(lr=0.01, fused=True)" in " ".join(capsys.readouterr().out.split())
