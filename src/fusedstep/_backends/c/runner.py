"""The step's rows as a C table, run in one call with the GIL released.

The kernels come from the backends that are built on this: C's own, and Numba's.

C compares and follows some objects by address, which in CPython is their id. Each outlives the
use of its address: the list of gradients is held by whoever passes it to `take`, and the type
and the dtypes of arrays by NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import accumulate
from operator import mul
from typing import Any

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.overlap import WrittenMemory, address, extent
from fusedstep._arrays.plain import plain
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends import threads
from fusedstep._backends.plan import Job, Row
from fusedstep._engine import ffi, lib
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars


class Jobs:
    """The jobs in C: their kernels, and memory for their scalars."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.in_c = ffi.new("fs_job[]", len(jobs))
        self.float64: list[Any] = [None] * len(jobs)
        """The scalars of each job as Python computes them."""
        self.rounded: list[Any] = [None] * len(jobs)
        """Room for the same in the dtype of the job."""
        for job, in_c in zip(jobs, self.in_c, strict=True):
            in_c.itemsize = job.dtype.itemsize
            in_c.squares = find_kernel("squares", job.dtype)

    def bind(self, index: int, kernel: Any, scalars: int) -> None:
        self.float64[index] = ffi.new("double[]", scalars)
        self.rounded[index] = ffi.new("double[]", scalars)
        in_c = self.in_c[index]
        in_c.kernel = ffi.cast("fs_kernel", kernel)
        in_c.float64, in_c.scalars = self.float64[index], self.rounded[index]
        in_c.nscalars = scalars


class Rows:
    """The rows in C, and where their elements, blocks and sums of squares begin."""

    def __init__(self, rows: Sequence[Row]) -> None:
        sizes = [row.p.flat.size for row in rows]
        self.in_c = ffi.new("fs_row[]", len(rows))
        self.elements = ffi.new("int64_t[]", [0, *accumulate(sizes)])
        self.blocks = ffi.new("int64_t[]", [0, *accumulate(map(norm.blocks, sizes))])
        self.sums = np.zeros((self.blocks[len(rows)], norm.SUMS))
        sums = ffi.cast("double *", self.sums.ctypes.data)
        for k, (row, in_c) in enumerate(zip(rows, self.in_c, strict=True)):
            in_c.p = ffi.from_buffer(row.p.flat)
            for slot, state in enumerate(row.states):
                if state is not None:
                    in_c.s[slot] = ffi.from_buffer(state.flat)
            if row.ema is not None:
                in_c.ema = ffi.from_buffer(row.ema.flat)
            in_c.sums = sums + norm.SUMS * self.blocks[k]
            in_c.n = sizes[k]
            in_c.job = row.job


class Headers:
    """The headers in C, one for each parameter, and memory for shapes and strides."""

    def __init__(self, rows: Sequence[Row | None], in_c: Any) -> None:
        """Expect gradients that lie as their parameters do, in C order: C takes those itself.

        `in_c` has the rows in C, of those that are not None.
        """
        present = [(index, row) for index, row in enumerate(rows) if row is not None]
        self.in_c = ffi.new("fs_header[]", len(rows))
        self.layouts = ffi.new("intptr_t[]", 2 * sum(len(row.walk.shape) for _, row in present))
        layout = self.layouts
        for place, (index, row) in enumerate(present):
            header, shape, dtype = self.in_c[index], row.walk.shape, row.p.flat.dtype
            header.row = in_c + place
            header.ndim = len(shape)
            header.layout = layout
            if row.walk.plain and row.p.flat.size:
                layout[0 : 2 * len(shape)] = _c_order(shape, dtype.itemsize)
                header.bytes = row.p.flat.nbytes
                header.itemsize = dtype.itemsize
                header.writeable = True
                header.dtype = _dtype_object(dtype)
            layout += 2 * len(shape)

    def fill(self, index: int, g: Array, operand: Operand) -> None:
        """Describe the gradient of a parameter, and let its row read it."""
        low, high = extent(g)
        header = self.in_c[index]
        header.row.g = ffi.from_buffer(operand.flat)
        header.layout[0 : 2 * g.ndim] = [*g.shape, *g.strides]
        header.data = address(g)
        header.scratch = operand.scratch
        header.writeable = g.flags.writeable
        header.below = low - header.data
        header.bytes = high - low
        header.itemsize = g.itemsize
        header.dtype = _dtype_object(g.dtype)


@lru_cache(maxsize=1024)
def _c_order(shape: tuple[int, ...], itemsize: int) -> list[int]:
    """A shape, and its strides in bytes in C order."""
    strides = [*accumulate(shape[:0:-1], mul, initial=itemsize)]
    return [*shape, *strides[: len(shape)][::-1]]


@cache
def _dtype_object(dtype: np.dtype[Any]) -> int:
    """The address of NumPy's own dtype object; one that is equal to it may be gone tomorrow."""
    return id(np.dtype(dtype.type))


class Parameters:
    """The users' arrays of the parameters in C, each as it was found."""

    def __init__(self, rows: Sequence[Row | None], in_c: Any) -> None:
        """`in_c` has the rows in C, of those that are not None."""
        present = [(index, row) for index, row in enumerate(rows) if row is not None]
        at = [index for index, _ in present]
        self.arrays = [row.array for _, row in present]
        self.table = np.zeros((len(rows), 3), np.int64)
        self.table[at, 0] = [0 if array is None else id(array) for array in self.arrays]
        self.table[at, 1] = _addresses(in_c)
        self.table[at, 2] = [row.p.flat.size for _, row in present]
        for index, row in present:
            if row.array is not None and (row.p.scratch or not row.walk.plain):
                self.table[index, 1] = address(plain(row.array, "params"))
        self.in_c = ffi.cast("fs_parameter *", self.table.ctypes.data)


def _addresses(rows: Any) -> Any:
    """The addresses of p in rows in C, where `p` is their first member."""
    words = np.frombuffer(ffi.buffer(rows), np.int64) if len(rows) else np.zeros(0, np.int64)
    return words[:: ffi.sizeof("fs_row") // 8]


class Runner:
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        # C holds addresses alone: these attributes keep their memory in place.
        self.jobs = jobs
        self.rows = rows
        self.of_jobs = Jobs(jobs)
        self.of_rows = Rows([row for row in rows if row is not None])
        self.headers = Headers(rows, self.of_rows.in_c)
        self.lows = ffi.new("intptr_t[]", written.lows)
        self.highs = ffi.new("intptr_t[]", written.highs)
        self.parameters = Parameters(rows, self.of_rows.in_c)
        self.steps = ffi.new("int64_t *")
        self.sums = self.of_rows.sums
        self.folded = np.zeros(((len(self.sums) + 1) // 2, norm.SUMS))
        self.measured = ffi.new("fs_measured *")
        self.c_jobs = self.of_jobs.in_c
        self.c_rows = self.of_rows.in_c
        self.table = ffi.new(
            "fs_table *",
            {
                "jobs": self.c_jobs,
                "njobs": len(self.c_jobs),
                "rows": self.c_rows,
                "nrows": len(self.c_rows),
                "elements": self.of_rows.elements,
                "blocks": self.of_rows.blocks,
                "folded": ffi.cast("double *", self.folded.ctypes.data),
                "headers": self.headers.in_c,
                "parameters": self.parameters.in_c,
                "nheaders": len(rows),
                "ndarray": id(np.ndarray),
                "lows": self.lows,
                "highs": self.highs,
                "nranges": len(written.lows),
                "steps": self.steps,
            },
        )

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def bind(self, index: int, kernel: Any, scalars: int) -> None:
        """Give a job its kernel, and memory for that many scalars."""
        self.of_jobs.bind(index, kernel, scalars)

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of a job in their place."""
        self.of_jobs.float64[index][0 : len(scalars)] = scalars

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        self.headers.fill(index, g, operand)
        self.table.moves += 1

    @property
    def moves(self) -> int:
        return int(self.table.moves)

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        return int(lib.fs_take(self.table, id(grads), start, zero))

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        to = self.measured
        lib.fs_measure(self.table, threads.get_num_threads(), scale, max_norm, to)
        return norm.Measured(to.norm, to.clip, bool(to.finite))

    def unfit(self, unscale: float) -> Iterator[int]:
        place = lib.fs_unfit(self.table, 0, unscale)
        while place < len(self.c_rows):
            yield place
            place = lib.fs_unfit(self.table, place + 1, unscale)

    def calls(self, scalars: Sequence[JobScalars], zero: bool) -> Sequence[Call]:
        self.prepare(scalars)
        return [partial(lib.fs_step, self.table, threads.get_num_threads(), zero)]

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        self.prepare(scalars)
        return int(lib.fs_take_and_step(self.table, id(grads), threads.get_num_threads()))


def find_kernel(name: str, dtype: np.dtype[Any], has: int = 0, inside: bool = False) -> Any:
    """Return a kernel of the library, in the instruction set in force."""
    kernel = lib.fs_find_kernel(name.encode(), dtype.name.encode(), has, inside)
    if not kernel:
        raise NotImplementedError(
            f"the C backend has no kernel {name!r} for {dtype}, {has}, {inside}"
        )
    return kernel


def team() -> str:
    """Name the threads that ran this thread's last step: "caller", "pool" or "openmp"."""
    return str(ffi.string(lib.fs_team()).decode())
