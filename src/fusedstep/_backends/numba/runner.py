"""The runner of Numba's kernels where the C backend was not built.

As there, the table's total work is cut into chunks that may span or divide tensors, taken
from an atomic counter by however many threads turn up. Helpers are Python's threads, which
take longer to wake, so only long steps are shared.
"""

# mypy: allow-untyped-defs, disallow-untyped-decorators=false
# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fusedstep._arrays.overlap import WrittenMemory, address
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends import threads
from fusedstep._backends.numba import squares
from fusedstep._backends.numba.crew import crew
from fusedstep._backends.numba.kept import Kept
from fusedstep._backends.numba.primitives import EMA, READ, STATES, SUMS, G, P
from fusedstep._backends.plan import CheckedTable, Job, Row
from fusedstep._compiler.interrupts import delayed
from fusedstep._compiler.modules import unique
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars

N, JOB, COLUMNS = READ, READ + 1, READ + 2
"""The columns of a row behind those that kernels read, and the number of all."""

WORTH_SHARING = 4_000_000
"""Elements of a step; below, waking a helper gained nothing between matrix products."""

CHUNK = 16384
"""Elements; see csrc/step.c."""

ZEROED = 4096
"""Bytes of a gradient that are zeroed at once; see there, too."""

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class Jobs:
    """The jobs, as columns for compiled code, and memory for their scalars."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.dtypes = [job.dtype for job in jobs]
        self.itemsizes = np.array([dtype.itemsize for dtype in self.dtypes], np.int64)
        self.kernels = np.zeros(len(jobs), np.int64)
        """The address of each job's kernel."""
        self.scalars = np.zeros(len(jobs), np.int64)
        """The address of each job's scalars, which `memory` keeps in place."""
        self.memory: list[Array] = [np.zeros(0)] * len(jobs)

    def bind(self, index: int, kernel: int, scalars: int) -> None:
        self.memory[index] = np.zeros(scalars, self.dtypes[index])
        self.kernels[index] = kernel
        self.scalars[index] = address(self.memory[index])


class Rows:
    """The rows, and where their elements, blocks and sums of squares begin."""

    def __init__(self, rows: Sequence[Row]) -> None:
        sizes = [row.p.flat.size for row in rows]
        self.elements = _starts(sizes)
        self.blocks = _starts(map(norm.blocks, sizes))
        self.sums = np.zeros((self.blocks[-1], norm.SUMS))
        self.table = np.zeros((len(rows), COLUMNS), np.int64)
        """The addresses of each row's arrays, its length and its job."""
        for columns, row, size, block in zip(self.table, rows, sizes, self.blocks, strict=False):
            columns[[P, N, JOB]] = address(row.p.flat), size, row.job
            columns[SUMS] = address(self.sums) + block * 8 * norm.SUMS
            for slot, state in enumerate(row.states):
                if state is not None:
                    columns[STATES + slot] = address(state.flat)
            if row.ema is not None:
                columns[EMA] = address(row.ema.flat)


class Runner(CheckedTable):
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        super().__init__(rows)
        self.of_jobs = Jobs(jobs)
        self.of_rows = Rows([row for row in rows if row is not None])
        self.sums = self.of_rows.sums
        self.places = [*accumulate((row is not None for row in rows), initial=0)]
        """The place of each parameter's row, if it is not skipped."""

    def bind(self, index: int, kernel: int, scalars: int) -> None:
        """Give a job the kernel at an address, which reads that many scalars of its dtype."""
        self.of_jobs.bind(index, kernel, scalars)

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of such a job in their place."""
        with np.errstate(over="ignore"):
            self.of_jobs.memory[index][:] = scalars

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        super().set_gradient(index, g, operand)
        self.of_rows.table[self.places[index], G] = address(operand.flat)

    def squares(self) -> norm.Total:
        dtypes = self.of_jobs.dtypes
        kernels = np.array([squares.kernel(dtype).address for dtype in dtypes], np.int64)
        nothing = np.zeros_like(self.of_jobs.itemsizes)
        self._share(self.of_rows.blocks, norm.BLOCK, kernels, nothing)
        return norm.total(self.sums)

    def run(self, scalars: Sequence[JobScalars], zero: bool) -> None:
        self.prepare(scalars)
        zeroed = self.of_jobs.itemsizes * zero
        self._share(self.of_rows.elements, 1, self.of_jobs.kernels, zeroed)

    def _share(self, starts: Integers, unit: int, kernels: Integers, zeroed: Integers) -> None:
        """Run kernels on chunks of all rows, which begin in `starts`, in units of elements."""
        table, scalars = self.of_rows.table, self.of_jobs.scalars
        taken = np.zeros(1, np.int64)
        task = partial(_run, table, starts, unit, kernels, scalars, zeroed, taken)
        few = self.of_rows.elements[-1] < WORTH_SHARING
        crew.run(task, 1 if few else threads.get_num_threads())


def _starts(sizes: Iterable[int]) -> Integers:
    """The sum of the sizes before each one, and of all."""
    return np.array([*accumulate(sizes, initial=0)], np.int64)


@intrinsic
def _call(typing_context, kernel, row, begin, end, scalars):
    """Call the kernel at an address."""

    def generate(context, builder, signature, arguments):
        function, *rest = arguments
        integer = ir.IntType(64)
        kind = ir.FunctionType(ir.VoidType(), [integer] * len(rest))
        builder.call(builder.inttoptr(function, kind.as_pointer()), rest)
        return context.get_dummy_value()

    return types.void(kernel, row, begin, end, scalars), generate


@intrinsic
def _zero(typing_context, at, size):
    """Fill memory with zeros."""

    def generate(context, builder, signature, arguments):
        at, size = arguments
        pointer = builder.inttoptr(at, ir.IntType(8).as_pointer())
        cgutils.memset(builder, pointer, size, 0)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def _fetch_add(typing_context, at, amount):
    """Add to the integer at an address, and return what it was, in one atomic operation."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), generate


TABLE = types.int64[:, ::1]
COLUMN = types.int64[::1]


def _compiled(function):
    columns = f"{G} {READ}"  # what is not to be read in this file
    compiled = njit(nogil=True)(function)
    name = unique("runner", Path(__file__).read_bytes(), columns.encode())
    compiled._cache = Kept(name)  # type: ignore[attr-defined]  # noqa: SLF001
    with delayed():
        compiled.compile(types.void(TABLE, COLUMN, types.int64, COLUMN, COLUMN, COLUMN, COLUMN))
    compiled.disable_compile()
    return compiled


@_compiled
def _run(table, starts, unit, kernels, scalars, zeroed, taken):
    """Run chunks until none is left; each thread of the step calls this.

    `zeroed` has the itemsize of each job whose gradients are zeroed on the way, else 0.
    """
    chunk = CHUNK // unit
    total = starts[-1]
    while True:
        begin = _fetch_add(taken.ctypes.data, chunk)
        if begin >= total:
            break
        end = min(begin + chunk, total)
        # The last row that starts at or before the chunk: it is not an empty one.
        place = np.searchsorted(starts[:-1], begin, side="right") - 1
        while begin < end:
            row = table[place]
            job = row[JOB]
            stop = min(starts[place + 1], end)
            at = unit * (begin - starts[place])
            last = min(unit * (stop - starts[place]), row[N])
            piece = ZEROED // zeroed[job] if zeroed[job] else last - at
            while at < last:
                until = min(at + piece, last)
                _call(kernels[job], row.ctypes.data, at, until, scalars[job])
                _zero(row[G] + at * zeroed[job], (until - at) * zeroed[job])
                at = until
            begin = stop
            place += 1
