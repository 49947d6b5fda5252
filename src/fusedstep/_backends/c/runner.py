"""The step's rows as a C table, run in one call with the GIL released.

The kernels come from the backends that are built on this: C's own, and Numba's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any

import numpy as np

from fusedstep._arrays.overlap import WrittenMemory, address, extent
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends import threads
from fusedstep._backends.plan import Job, Row
from fusedstep._engine import ffi, lib
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import Given


class Runner:
    """A `plan.Table` in C, but for the kernels and scalars, which `prepare` puts into its jobs.

    C reads Python objects at the addresses that `id` gives: the list of gradients, which the
    caller holds for the length of the call; `numpy.ndarray`; and NumPy's own dtype objects,
    which live as long as NumPy.
    """

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        self.jobs = jobs
        self.rows = rows
        present = [(index, row) for index, row in enumerate(rows) if row is not None]
        sizes = [row.p.flat.size for _, row in present]
        blocks = [0, *accumulate(map(norm.blocks, sizes))]
        self.sums = np.zeros((blocks[-1], norm.SUMS))
        self.total = ffi.new("double[]", norm.SUMS)
        self.float64: list[Any] = [None] * len(jobs)
        """The scalars of each job in float64, and rounded to the dtype of its kernel."""
        self.rounded: list[Any] = [None] * len(jobs)
        self.c_jobs = ffi.new("fs_job[]", len(jobs))
        for job, c_job in zip(jobs, self.c_jobs, strict=True):
            c_job.itemsize = job.dtype.itemsize
            c_job.squares = find_kernel("squares", job.dtype)
        self.c_rows = ffi.new("fs_row[]", len(present))
        self.headers = ffi.new("fs_header[]", len(rows))
        self.layouts = ffi.new("intptr_t[]", 2 * sum(len(row.walk.shape) for _, row in present))
        sums, layout = address(self.sums), self.layouts
        for k, (index, row) in enumerate(present):
            c_row, header = self.c_rows + k, self.headers + index
            _fill(c_row, row)
            c_row.sums = ffi.cast("double *", sums + blocks[k] * norm.SUMS * self.sums.itemsize)
            header.row, header.layout, header.ndim = c_row, layout, len(row.walk.shape)
            layout += 2 * header.ndim
            if row.walk.plain and row.p.flat.size:
                _expect(header, row.walk.shape, row.p.flat.dtype)
        # What the table points to must be held as long as it is.
        self.held = (
            ffi.new("int64_t[]", [0, *accumulate(sizes)]),
            ffi.new("int64_t[]", blocks),
            ffi.new("double[]", (len(self.sums) + 1) // 2 * norm.SUMS),
            ffi.new("intptr_t[]", written.lows),
            ffi.new("intptr_t[]", written.highs),
        )
        elements, c_blocks, folded, lows, highs = self.held
        self.table = ffi.new(
            "fs_table *",
            {
                **{"jobs": self.c_jobs, "njobs": len(jobs)},
                **{"rows": self.c_rows, "nrows": len(present)},
                **{"elements": elements, "blocks": c_blocks, "folded": folded},
                **{"headers": self.headers, "nheaders": len(rows), "ndarray": id(np.ndarray)},
                **{"lows": lows, "highs": highs, "nranges": len(written.lows)},
            },
        )

    def prepare(self, scalars: Sequence[Given]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def bind(self, index: int, kernel: Any, scalars: int) -> None:
        """Give a job its kernel, and room for that many scalars in float64 and rounded."""
        self.float64[index] = ffi.new("double[]", scalars)
        self.rounded[index] = ffi.new("double[]", scalars)
        c_job = self.c_jobs[index]
        c_job.kernel = ffi.cast("fs_kernel", kernel)
        c_job.float64, c_job.scalars = self.float64[index], self.rounded[index]
        c_job.nscalars = scalars

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of a job in their place."""
        self.float64[index][0 : len(scalars)] = scalars

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        low, high = extent(g)
        header = self.headers[index]
        self.table.moves += 1
        header.row.g = ffi.from_buffer(operand.flat)
        header.layout[0 : 2 * g.ndim] = [*g.shape, *g.strides]
        header.data = address(g)
        header.scratch = operand.scratch
        header.writeable = g.flags.writeable
        header.below = low - header.data
        header.bytes = high - low
        header.itemsize = g.itemsize
        header.dtype = _dtype_object(g.dtype)

    @property
    def moves(self) -> int:
        return int(self.table.moves)

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        return int(lib.fs_take(self.table, id(grads), start, zero))

    def squares(self) -> norm.Total:
        lib.fs_squares(self.table, threads.get_num_threads(), self.total)
        return tuple(self.total)

    def run(self, scalars: Sequence[Given], zero: bool) -> None:
        self.prepare(scalars)
        lib.fs_step(self.table, threads.get_num_threads(), zero)

    def take_and_run(self, grads: list[Any], scalars: Sequence[Given]) -> int:
        self.prepare(scalars)
        return int(lib.fs_take_and_step(self.table, id(grads), threads.get_num_threads()))


def _fill(c_row: Any, row: Row) -> None:
    """Put the arrays of a row into its struct, all but the gradient."""
    c_row.p = ffi.from_buffer(row.p.flat)
    for slot, state in enumerate(row.states):
        if state is not None:
            c_row.s[slot] = ffi.from_buffer(state.flat)
    if row.ema is not None:
        c_row.ema = ffi.from_buffer(row.ema.flat)
    c_row.n = row.p.flat.size
    c_row.job = row.job


def _expect(header: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Let C take a first gradient that lies as its parameter in C order, without Python."""
    layout = _c_order(shape, dtype.itemsize)
    header.layout[0 : len(layout)] = layout
    header.bytes = prod(shape) * dtype.itemsize
    header.itemsize = dtype.itemsize
    header.writeable = True
    header.dtype = _dtype_object(dtype)


@lru_cache(maxsize=1024)
def _c_order(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """A shape, and its strides in bytes in C order."""
    strides = accumulate(shape[:0:-1], mul, initial=itemsize)
    return [*shape, *([*strides][::-1] if shape else [])]


@cache
def _dtype_object(dtype: np.dtype[Any]) -> int:
    """The address of NumPy's own dtype object; one that is equal to it may be gone tomorrow."""
    return id(np.dtype(dtype.type))


def find_kernel(name: str, dtype: np.dtype[Any], has: int = 0, inside: bool = False) -> Any:
    """A kernel of the library, in the instruction set in force."""
    kernel = lib.fs_find_kernel(name.encode(), dtype.name.encode(), has, inside)
    if not kernel:
        raise NotImplementedError(
            f"the C backend has no kernel {name!r} for {dtype}, {has}, {inside}"
        )
    return kernel


def team() -> str:
    """Whose threads ran this thread's last step: "caller", "pool" or "openmp"."""
    return str(ffi.string(lib.fs_team()).decode())
