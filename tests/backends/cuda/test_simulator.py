"""Tests marked `cuda` in Numba's simulator, which runs the kernels as they stand in Python.

What a device does is shown by the kernels as they were compiled, see test_in_memory.py. The
simulator needs neither NVIDIA's compiler nor one of C, has blocks of two threads, so that small
tensors take many, and the table without C. It is slow: of tests that go over many rules, formats
and layouts some cases are run here, and of those that sum large gradients none, see FEW. The slow
tests have all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import processes
import pytest
from device import IN_MEMORY, SIMULATED

FOLDER = Path(__file__).parent
HELPERS = FOLDER.parents[1] / "helpers"

pytestmark = [
    pytest.mark.skipif(SIMULATED, reason="this is the simulator"),
    pytest.mark.skipif(IN_MEMORY is not None, reason="this is the driver in memory"),
]

FEW = {
    "test_a_digest_is_that_of_the_same_numbers_on_the_cpu": 5,
    "test_a_late_report_is_a_report": 0,
    "test_a_scaler_on_the_device": 4,
    "test_an_arena": 3,
    "test_any_layout": 7,
    "test_bits": 19,
    "test_checkpoints_go_from_the_device_to_the_cpu_and_back": 0,
    "test_custom_rules": 3,
    "test_formats": 13,
    "test_layouts": 5,
    "test_libraries": 3,
    "test_lookahead": 0,
    "test_many_steps": 3,
    "test_norms_over_rows_in_reverse": 0,
    "test_rates_by_column": 5,
    "test_steps_outside_of_graphs": 2,
    "test_sums_of_many_blocks": 0,
    "test_the_norm_of_difficult_gradients": 0,
    "test_the_norm_over_negative_strides": 2,
    "test_to_the_cpu_and_back": 5,
    "test_whole_steps": 5,
}
"""Tests of which one case in so many is run; 0: none."""


def run(marks: str, *options: str, **environment: str) -> None:
    path = os.pathsep.join([str(HELPERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = processes.pytest(
        *("-m", marks, *options, str(FOLDER)),
        NUMBA_ENABLE_CUDASIM="1",
        PYTHONPATH=path,
        **environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_in_the_simulator() -> None:
    chosen = " ".join(f"{name}={number}" for name, number in FEW.items())
    run("cuda and not slow", "-p", "sampled", SAMPLED=chosen)


@pytest.mark.slow
@pytest.mark.parametrize("marks", ["cuda and not slow", "cuda and slow"])
def test_everything_in_the_simulator(marks: str) -> None:
    run(marks)
