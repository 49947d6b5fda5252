"""Steps by rows in Numba's kernels: run by C where it was built, and else by Numba."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import row_steps
from cases import Case
from marks import BACKENDS, for_each, for_each_dtype
from row_programs import Program

import fusedstep as fs

pytestmark = pytest.mark.skipif(
    BACKENDS["numba"] is not None, reason=f"no Numba backend: {BACKENDS['numba']}"
)


@for_each_dtype
@for_each(row_steps.CASES)
def test_bits(case: Case, dtype: Any) -> None:
    row_steps.take_steps(case, dtype, lambda p: p, lambda p: p, backend="numba")


@pytest.mark.parametrize("seed", range(4))
def test_exact_steps_are_those_by_whole_gradients(seed: int) -> None:
    program = Program(seed, "numba")
    program.run()
    assert program.compared
    assert not program.differing


def test_read_only_gradients_and_those_that_are_zeroed() -> None:
    p, values = np.zeros((3, 2), np.float32), np.ones((2, 2), np.float32)
    optimizer = fs.SGD(p, lr=1.0, backend="numba")
    optimizer.step(fs.Rows([2, 2], values), zero_grads=True)
    assert p.tolist() == [[0, 0], [0, 0], [-2, -2]]
    assert not values.any()
    values[...] = 3
    values.flags.writeable = False
    optimizer.step(fs.Rows([0, 1], values))
    assert p.tolist() == [[-3, -3], [-3, -3], [-2, -2]]


def test_the_norm_of_rows_in_many_blocks() -> None:
    """Rows of which one ends in the middle of a block, and blocks that no row is in."""
    rng = np.random.default_rng(3)
    for dtype in (np.float32, np.float64):
        p = np.zeros((40, 1000), dtype)
        rows = fs.Rows([7, 30, 4, 7, 5], rng.normal(size=(5, 1000)).astype(dtype))
        reports = [
            fs.SGD(p.copy(), backend=backend).step(rows, max_norm=1.0)
            for backend in ("numba", "numpy")
        ]
        assert reports[0] == reports[1]


WITHOUT_C = """
import sys
sys.modules["fusedstep._engine"] = None
import numpy as np, row_steps
from row_steps import NARROW
for case in row_steps.CASES:
    for dtype in (np.float32, np.float64):
        row_steps.take_steps(case, dtype, lambda p: p, lambda p: p, NARROW, backend="numba")
from row_programs import Program
for seed in range(4):
    program = Program(seed, "numba")
    program.run()
    assert program.compared and not program.differing
"""


@pytest.mark.skipif(BACKENDS["c"] is not None, reason="all tests here are without C")
def test_the_same_without_c() -> None:
    helpers = Path(row_steps.__file__).parent
    path = os.pathsep.join([str(helpers), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_C],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
