"""All tests marked `cuda` in Numba's simulator, where there is no device."""

from __future__ import annotations

from pathlib import Path

import processes
import pytest
from device import SIMULATED


@pytest.mark.skipif(SIMULATED, reason="this is the simulator")
@pytest.mark.parametrize(
    "marks",
    ["cuda and not slow", pytest.param("cuda and slow", marks=pytest.mark.slow)],
)
def test_in_the_simulator(marks: str) -> None:
    folder = str(Path(__file__).parent)
    done = processes.pytest("-m", marks, folder, NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
