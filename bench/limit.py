"""The memory's limit: a step's traffic without its arithmetic, run by the step's own runner.

`limit.c` is compiled on first use, with the flags of the engine and for this machine's CPU.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from fusedstep._engine import ffi, lib

import fusedstep as fs
from fusedstep import threads
from fusedstep.backends import c

HERE = Path(__file__).parent


@cache
def _library() -> ctypes.CDLL:
    folder = tempfile.mkdtemp(prefix="fusedstep-limit-")
    built = os.path.join(folder, "limit.so")
    compiler = os.environ.get("CC", "cc")
    flags = ["-O3", "-march=native", "-shared", "-fPIC", f"-I{HERE.parent / 'csrc'}"]
    subprocess.run([compiler, *flags, "-o", built, str(HERE / "limit.c")], check=True)
    return ctypes.CDLL(built)


def limit_of(
    optimizer: fs.Optimizer, zero: bool = False, measured: bool = False
) -> Callable[[], None]:
    """What takes the time of a step of `optimizer`, which has stepped, on its own arrays.

    `zero` and `measured` say that the step zeroes its gradients and sums their squares first.
    """
    own = c_table(optimizer)
    table = c.Table(own.jobs, own.rows, optimizer._memory())
    for c_row, own_row in zip(table.c_rows, own.c_rows, strict=True):
        c_row.g = own_row.g
    for job, c_job in zip(table.jobs, table.c_jobs, strict=True):
        states = sum(letter is not None for letter in job.rule.letters)
        assert job.dtype.itemsize == 4
        c_job.kernel = _kernel(f"limit_{states}{'_ema' if job.rule.averaged else ''}")
        c_job.squares = _kernel("limit_squares")
    return bare(table, zero, measured)


def _kernel(name: str) -> Any:
    address = ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value
    return ffi.cast("fs_kernel", address)


def bare_call(optimizer: fs.Optimizer) -> Callable[[], None]:
    """The C call of a step of `optimizer`, and nothing around it."""
    return bare(c_table(optimizer))


def c_table(optimizer: fs.Optimizer) -> c.Table:
    table = optimizer._plan.table
    assert isinstance(table, c.Table)
    return table


def bare(table: c.Table, zero: bool = False, measured: bool = False) -> Callable[[], None]:
    count = threads.get_num_threads()

    def call() -> None:
        if measured:
            lib.fs_squares(table.table, count, table.total)
        lib.fs_step(table.table, count, zero)

    return call
