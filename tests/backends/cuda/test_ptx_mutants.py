"""Mutants of the kernels as they were compiled are found by steps beside the NumPy reference.

So those steps, which other tests take as well, would show a compiler that is careless: that
contracts a product and a sum, divides approximately, flushes a subnormal number, or gets an address
or a bound wrong.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from device import IN_MEMORY, MISSING, SIMULATED
from processes import ROOT
from ptx_on_host import COMPILER

from fusedstep._backends.cuda.available import why_no_compiler

PROGRAM = Path(__file__).parents[2] / "helpers" / "ptx_mutants.py"

pytestmark = [
    pytest.mark.skipif(IN_MEMORY is not None, reason="this is the driver in memory"),
    pytest.mark.skipif(SIMULATED, reason="this is the simulator"),
    pytest.mark.skipif(MISSING is None, reason="there is a device"),
    pytest.mark.skipif(why_no_compiler() is not None, reason=f"{why_no_compiler()}"),
    pytest.mark.skipif(COMPILER is None, reason="neither gcc nor clang"),
]


def run(*arguments: str, timeout: int) -> str:
    command = [sys.executable, "-W", "ignore", str(PROGRAM), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    shown: str = done.stdout
    assert done.returncode == 0, shown + done.stderr
    return shown


def test_some_of_each_family() -> None:
    """A few kernels, as each takes seconds to compile."""
    kernels = ["--kernel", "adamw float32 judged", "--kernel", "gather"]
    shown = run(*kernels, "--sample", "50", timeout=300)
    for family in ("fma", "tail", "div approx", "ftz", "order"):
        assert f"\n{family} " in shown


@pytest.mark.slow
def test_all() -> None:
    """Each one, but for those of ptx_mutants.txt, which are no slips, and are not found."""
    run(timeout=3600)
