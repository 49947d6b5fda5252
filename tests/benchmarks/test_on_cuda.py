"""The program for a CUDA device, where there is none: over the memory of the host, and tiny."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fusedstep._backends.cuda.available import simulated, why_missing, why_no_compiler

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(why_no_compiler() is not None, reason=f"{why_no_compiler()}"),
    pytest.mark.skipif(simulated() or why_missing() is None, reason="there is a device"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc"),
]


def run(*arguments: str) -> str:
    command = [sys.executable, str(ROOT / "bench/cuda.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("extra")
def test_all_of_it(tmp_path: Path) -> None:
    results, picture = tmp_path / "results.json", tmp_path / "picture.png"
    shown = run("--all", "--json", str(results), "--picture", str(picture))
    found = json.loads(results.read_text())
    assert found["in memory of the host"]
    assert found["bits"]["differing"] == 0 < found["bits"]["compared"]
    assert " passed" in found["tests"]["summary"]
    assert {row["kernel"] for row in found["bandwidth"]} >= {"sgd float32", "adamw float64"}
    assert {row["contestant"] for row in found["against"]} >= {"fusedstep", "an arena"}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "0 differ" in shown


def test_nvidias_package_is_not_hidden() -> None:
    """It is called as the program is, whose folder comes first for `pytest bench`."""
    code = "import cuda.bindings; print(cuda.bindings.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "bench")}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "bench" not in shown


def test_predictions_are_of_the_kernels_that_there_are() -> None:
    document = json.loads((ROOT / "bench/predictions.json").read_text())
    kernels = {row["kernel"]: row for row in document["kernels"]}
    assert {"sgd float32", "adamw float32, judged", "squares float64"} <= {*kernels}
    for row in kernels.values():
        assert row["spilled"] == 0
        for seconds in row["seconds"].values():
            assert [*seconds.values()] == sorted(seconds.values())
