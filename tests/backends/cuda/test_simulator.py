"""All tests marked `cuda` in Numba's simulator, where there is no device."""

from __future__ import annotations

from pathlib import Path

import processes
import pytest
from device import SIMULATED


@pytest.mark.skipif(SIMULATED, reason="this is the simulator")
def test_in_the_simulator() -> None:
    folder = str(Path(__file__).parent)
    done = processes.pytest("-m", "cuda", folder, NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
