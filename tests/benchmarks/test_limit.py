"""The limit: a loop that moves the bytes of a step and changes no value."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

import numpy as np
import pytest
from cases import BASES, TRAINING, Case
from marks import for_each, for_each_dtype, needs_c

import fusedstep as fs
from fusedstep.benchmarks import contestants
from fusedstep.benchmarks.contestants import contestant as parts
from fusedstep.benchmarks.problem import Problem


@needs_c
@for_each([*BASES, TRAINING])
@for_each_dtype
def test_limit_changes_no_value(case: Case, dtype: Any, isa: str) -> None:
    problem = Problem(case, ((1000,), (3, 4)), dtype)
    optimizer, params, grads = problem.ours
    limit = contestants.LIMIT.build(problem)
    before = [p.copy() for p in params], optimizer.state_dict()["state"]
    parts.renew(grads, problem.grads)
    limit.step()
    for p, was in zip(params, before[0], strict=True):
        assert p.tobytes() == was.tobytes()
    after = optimizer.state_dict()["state"]
    for state, was in zip(after, before[1], strict=True):
        assert state.keys() == was.keys()
        for letter, array in state.items():
            np.testing.assert_array_equal(array, was[letter])
    for g, was in zip(grads, problem.grads, strict=True):
        np.testing.assert_array_equal(g, 0 * was if case is TRAINING else was)


PAGE = mmap.PAGESIZE


class Fresh:
    """Memory that nobody has touched yet, in pages."""

    def __init__(self, pages: int) -> None:
        self.memory = mmap.mmap(-1, pages * PAGE)
        self.pages = pages

    @property
    def touched(self) -> int:
        """The number of its pages that have been read or written."""
        found = (ctypes.c_ubyte * self.pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        size = ctypes.c_size_t(self.pages * PAGE)
        assert libc.mincore(ctypes.c_void_p(address), size, found) == 0
        return sum(page & 1 for page in found)


@needs_c
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages were touched")
@pytest.mark.parametrize("has", [0, 1, 3, 5, 7, 31, 129, 255])
@pytest.mark.parametrize("averaged", [False, True])
@for_each_dtype
def test_limit_touches_every_operand_of_a_row(
    has: int, averaged: bool, dtype: Any, isa: str
) -> None:
    from fusedstep._engine import ffi, lib

    from fusedstep._backends.c.runner import find_kernel

    pages = 8
    states = [k for k in range(lib.FS_STATES) if has >> k & 1]
    names = ["p", "g", *states, *(["ema"] if averaged else [])]
    arrays = {name: Fresh(pages) for name in names}
    row = ffi.new("fs_row *")
    row.p = ffi.from_buffer(arrays["p"].memory)
    row.g = ffi.from_buffer(arrays["g"].memory)
    for k in states:
        row.s[k] = ffi.from_buffer(arrays[k].memory)
    if averaged:
        row.ema = ffi.from_buffer(arrays["ema"].memory)
    n = row.n = pages * PAGE // np.dtype(dtype).itemsize
    find_kernel("limit", np.dtype(dtype))(row, 0, n, ffi.NULL)
    assert {name: array.touched for name, array in arrays.items()} == dict.fromkeys(names, pages)


@needs_c
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages were touched")
@for_each_dtype
def test_limit_of_the_sums_reads_the_gradients(dtype: Any, isa: str) -> None:
    from fusedstep._engine import ffi

    from fusedstep._backends.c.runner import find_kernel

    gradient = Fresh(8)
    sums = np.full((8, 3), 7.0)
    row = ffi.new("fs_row *")
    row.g = ffi.from_buffer(gradient.memory)
    row.sums = ffi.cast("double *", sums.ctypes.data)
    n = row.n = 8 * PAGE // np.dtype(dtype).itemsize
    find_kernel("limit_squares", np.dtype(dtype))(row, 0, n, ffi.NULL)
    assert gradient.touched == 8
    blocks = -(-n // 4096)
    assert sums[:, 0].tolist() == [0.0] * blocks + [7.0] * (8 - blocks)


@needs_c
def test_the_bare_call_makes_the_step_of_the_last_scalars() -> None:
    from fusedstep.benchmarks.limit import bare_call

    p, g = np.ones(100), np.ones(100)
    optimizer = fs.SGD(p, lr=0.25)
    optimizer.step(g)
    bare_call(optimizer)()
    assert p.tolist() == [0.5] * 100
