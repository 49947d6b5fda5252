"""The step's rows as a C table, run in one call with the GIL released.

The kernels come from the engines that are built on this: C's own, and Numba's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, count
from typing import Any

import numpy as np

from fusedstep._arrays.overlap import WrittenMemory, address, extent
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends import threads
from fusedstep._backends.plan import Job, Row
from fusedstep._engine import ffi, lib
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars


class Runner:
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        active = [row for row in rows if row is not None]
        self.jobs = jobs
        self.rows = rows
        self.c_jobs = ffi.new("fs_job[]", len(jobs))
        self.c_rows = ffi.new("fs_row[]", len(active))
        self.headers = ffi.new("fs_header[]", len(rows))
        sizes = [row.p.flat.size for row in active]
        self.elements = ffi.new("int64_t[]", [0, *accumulate(sizes)])
        self.blocks = ffi.new("int64_t[]", [0, *accumulate(map(norm.blocks, sizes))])
        self.sums = np.zeros((self.blocks[len(active)], norm.SUMS))
        self.folded = np.zeros(((len(self.sums) + 1) // 2, norm.SUMS))
        self.total = ffi.new("double[]", norm.SUMS)
        sums = ffi.cast("double *", self.sums.ctypes.data)
        for k, (row, c_row) in enumerate(zip(active, self.c_rows, strict=True)):
            c_row.p = ffi.from_buffer(row.p.flat)
            for slot, state in enumerate(row.states):
                if state is not None:
                    c_row.s[slot] = ffi.from_buffer(state.flat)
            if row.ema is not None:
                c_row.ema = ffi.from_buffer(row.ema.flat)
            c_row.sums = sums + norm.SUMS * self.blocks[k]
            c_row.n = sizes[k]
            c_row.job = row.job
        for job, c_job in zip(jobs, self.c_jobs, strict=True):
            c_job.itemsize = job.dtype.itemsize
            c_job.squares = find_kernel("squares", job.dtype)
        self.wide: list[Any] = [None] * len(jobs)
        self.rounded: list[Any] = [None] * len(jobs)
        self.layouts = ffi.new("intptr_t[]", 2 * sum(len(row.walk.shape) for row in active))
        places, at = count(), 0
        for header, entry in zip(self.headers, rows, strict=True):
            header.row = -1
            if entry is not None:
                header.row = next(places)
                header.ndim = len(entry.walk.shape)
                header.layout = self.layouts + at
                at += 2 * header.ndim
        self.lows = ffi.new("intptr_t[]", written.lows)
        self.highs = ffi.new("intptr_t[]", written.highs)
        self.table = ffi.new(
            "fs_table *",
            {
                "jobs": self.c_jobs,
                "njobs": len(jobs),
                "rows": self.c_rows,
                "nrows": len(active),
                "elements": self.elements,
                "blocks": self.blocks,
                "folded": ffi.cast("double *", self.folded.ctypes.data),
                "headers": self.headers,
                "nheaders": len(rows),
                "ndarray": id(np.ndarray),
                "lows": self.lows,
                "highs": self.highs,
                "nranges": len(written.lows),
            },
        )

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def bind(self, index: int, kernel: Any, scalars: int) -> None:
        """Give a job its kernel, and room for that many scalars: in `wide`, as float64."""
        self.wide[index] = ffi.new("double[]", scalars)
        self.rounded[index] = ffi.new("double[]", scalars)
        c_job = self.c_jobs[index]
        c_job.kernel = ffi.cast("fs_kernel", kernel)
        c_job.wide, c_job.scalars = self.wide[index], self.rounded[index]
        c_job.nscalars = scalars

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of a job in their place."""
        self.wide[index][0 : len(scalars)] = scalars

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        low, high = extent(g)
        header = self.headers[index]
        self.table.moves += 1
        self.c_rows[header.row].g = ffi.from_buffer(operand.flat)
        header.layout[0 : 2 * g.ndim] = [*g.shape, *g.strides]
        header.data = address(g)
        header.scratch = operand.scratch
        header.writeable = g.flags.writeable
        header.below = low - header.data
        header.bytes = high - low
        header.itemsize = g.itemsize
        # NumPy's own dtype object, not one that is equal to it and may be gone tomorrow.
        header.dtype = id(np.dtype(g.dtype.type))

    @property
    def moves(self) -> int:
        return int(self.table.moves)

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        return int(lib.fs_take(self.table, id(grads), start, zero))

    def squares(self) -> norm.Total:
        lib.fs_squares(self.table, threads.get_num_threads(), self.total)
        return tuple(self.total)

    def run(self, scalars: Sequence[JobScalars], zero: bool) -> None:
        self.prepare(scalars)
        lib.fs_step(self.table, threads.get_num_threads(), zero)

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        self.prepare(scalars)
        return int(lib.fs_take_and_step(self.table, id(grads), threads.get_num_threads()))


def find_kernel(name: str, dtype: np.dtype[Any], has: int = 0, inside: bool = False) -> Any:
    """A kernel of the library, in the instruction set in force."""
    kernel = lib.fs_find_kernel(name.encode(), dtype.name.encode(), has, inside)
    if not kernel:
        raise NotImplementedError(
            f"the C engine has no kernel {name!r} for {dtype}, {has}, {inside}"
        )
    return kernel


def team() -> str:
    """Whose threads ran this thread's last step: "caller", "pool" or "openmp"."""
    return str(ffi.string(lib.fs_team()).decode())
