"""Tests marked `cuda` in Numba's simulator, where there is no device: the kernels as Python.

All of them with `-m slow`; else some, as test_in_memory.py runs what was compiled.
"""

from __future__ import annotations

from pathlib import Path

import processes
import pytest
from device import SIMULATED


@pytest.mark.skipif(SIMULATED, reason="this is the simulator")
@pytest.mark.parametrize(
    ("marks", "names"),
    [
        ("cuda and not slow", "costs or groups or copies or zeroed or libraries or slices"),
        pytest.param("cuda", "", marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_in_the_simulator(marks: str, names: str) -> None:
    folder = str(Path(__file__).parent)
    done = processes.pytest("-m", marks, "-k", names, folder, NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
