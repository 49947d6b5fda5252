"""The CUDA backend where there is no device: its kernels as they were compiled, over host memory.

All tests marked `cuda` run in another process, with the plugin cuda_in_memory.py: what Numba has
made of the kernels is translated to C, under a driver of the tests' own. Nothing of the package is
replaced but that.

Each kernel takes seconds to compile the first time. So of tests that go over many rules and formats
only some cases are run here, see FEW: of `test_bits`, say, one in 23, which meets each rule but not
all of its options in both dtypes. The slow tests have all of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from subprocess import CompletedProcess

import processes
import pytest
from device import IN_MEMORY, MISSING, SIMULATED
from ptx_on_host import COMPILER

from fusedstep._backends.cuda.available import why_no_compiler

FOLDER = Path(__file__).parent
HELPERS = FOLDER.parents[1] / "helpers"

pytestmark = [
    pytest.mark.skipif(IN_MEMORY is not None, reason="this is the driver in memory"),
    pytest.mark.skipif(SIMULATED, reason="this is the simulator"),
    pytest.mark.skipif(MISSING is None, reason="there is a device"),
    pytest.mark.skipif(why_no_compiler() is not None, reason=f"{why_no_compiler()}"),
    pytest.mark.skipif(COMPILER is None, reason="neither gcc nor clang"),
]

STEPS = [FOLDER / "test_steps.py", FOLDER / "test_slices.py", FOLDER / "test_features.py"]
"""One half of the files, by the time they take."""

DEVICES = [FOLDER / "test_devices.py", FOLDER / "test_refusals.py"]

FEW = {
    "test_bits": 23,
    "test_libraries": 29,
    "test_any_layout": 3,
    "test_whole_steps": 5,
    "test_custom_rules": 7,
    "test_to_the_cpu_and_back": 11,
    "test_a_digest_is_that_of_the_same_numbers_on_the_cpu": 9,
    "test_formats": 13,
    "test_layouts": 9,
    "test_rates_by_column": 3,
    "test_random_bits_are_those_of_the_step": 5,
    "test_launches_are_the_steps_that_come": 11,
    "test_each_rule": 17,
    "test_each_rule_of_rules": 7,
    "test_corrections_come_to_rest": 5,
}
"""Tests of which one case in so many is run."""

KNOWN = (
    "for the simulator alone",
    "Numba's own arrays have no bfloat16",
    "for two devices in memory of the host",
    "needs `pip install",
    "CuPy is missing",
)
"""Reasons for which tests may be skipped."""


def run(*arguments: object, few: bool = True, **environment: str) -> CompletedProcess[str]:
    """Run tests marked `cuda`, of which some are seldom run unless all are asked for."""
    path = os.pathsep.join([str(HELPERS), *filter(None, [os.environ.get("PYTHONPATH")])])
    sampled = ["-p", "sampled"] if few else []
    done = processes.pytest(
        *("-p", "cuda_in_memory", *sampled, "-m", "cuda and not slow", "-rs"),
        *map(str, arguments),
        PYTHONPATH=path,
        SAMPLED=" ".join(f"{name}={number}" for name, number in FEW.items()),
        **environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    for reason in re.findall(r"^SKIPPED \[\d+\] (.*)$", done.stdout, re.MULTILINE):
        assert any(known in reason for known in KNOWN), reason
    return done


def test_steps() -> None:
    run(*STEPS)


def test_two_devices() -> None:
    run(*DEVICES, DEVICES="2")


def test_the_rest() -> None:
    run(FOLDER, *(f"--ignore={file}" for file in STEPS))


def test_a_newer_python() -> None:
    """One whose dicts have no number of their version."""
    run(FOLDER / "test_hosted.py", "-p", "newer_python")


@pytest.mark.slow
@pytest.mark.parametrize("late", ["0", "1", "2"])
def test_everything(late: str) -> None:
    """All orders of work: at once, as late as may be, by chance; as the simulator has it, too."""
    run(FOLDER, few=False, LATE=late)
