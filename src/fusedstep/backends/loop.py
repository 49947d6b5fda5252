"""The runner of Numba's kernels where the C engine was not built.

As there, the table's total work is cut into chunks that may span or divide tensors, taken
from an atomic counter by however many threads turn up. Helpers are Python's threads, which
take longer to wake, so only long steps are shared.
"""

# mypy: allow-untyped-defs, disallow-untyped-decorators=false
# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fusedstep import threads
from fusedstep.arrays import Array, Operand, Written, address
from fusedstep.backends.crew import crew
from fusedstep.coefficients import Values
from fusedstep.plan import MOST_STATES, Careful, Job, Row

# The columns of `fs_row` in csrc/api.h, which the kernels read.
P, G, STATES, N, START, JOB = 0, 1, 2, 2 + MOST_STATES, 3 + MOST_STATES, 4 + MOST_STATES
COLUMNS = 5 + MOST_STATES

WORTH_SHARING = 4_000_000
"""Elements of a step; below, waking a helper gained nothing between matrix products."""

CHUNK = 16384
"""Elements; see csrc/step.c."""


class Runner(Careful):
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written) -> None:
        self.rows = rows
        self.table = np.zeros((sum(row is not None for row in rows), COLUMNS), np.int64)
        self.kernels = np.zeros(len(jobs), np.int64)
        self.scalars = np.zeros(len(jobs), np.int64)
        self.buffers: list[Array] = [np.zeros(0)] * len(jobs)
        self.places: list[int] = []
        self.total = place = 0
        for row in rows:
            self.places.append(place)
            if row is not None:
                self.table[place, [P, N, JOB]] = address(row.p.flat), row.p.flat.size, row.job
                self.table[place, START] = self.total
                self.total += row.p.flat.size
                for slot, state in enumerate(row.states):
                    if state is not None:
                        self.table[place, STATES + slot] = address(state.flat)
                place += 1

    def bind(self, index: int, kernel: int, scalars: int) -> None:
        """Give a job the kernel at an address, which reads that many float64 scalars."""
        self.buffers[index] = np.zeros(scalars)
        self.kernels[index] = kernel
        self.scalars[index] = address(self.buffers[index])

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of such a job in their place."""
        self.buffers[index][:] = scalars

    def prepare(self, scalars: Sequence[Values]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        self.table[self.places[index], G] = address(operand.flat)

    def run(self, scalars: Sequence[Values]) -> None:
        self.prepare(scalars)
        taken = np.zeros(1, np.int64)
        task = partial(_run, self.table, self.kernels, self.scalars, self.total, taken)
        crew.run(task, 1 if self.total < WORTH_SHARING else threads.get_num_threads())


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
def _fetch_add(typing_context, at, amount):
    """What stands at an address, to which `amount` is added in the same moment."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "monotonic")

    return types.int64(types.int64, types.int64), generate


TABLE = types.int64[:, ::1]
COLUMN = types.int64[::1]


def _compiled(function):
    compiled = partial(njit, types.void(TABLE, COLUMN, COLUMN, types.int64, COLUMN), nogil=True)
    try:
        return compiled(cache=True)(function)
    except RuntimeError:  # there is no folder that Numba could write to
        return compiled()(function)


@_compiled
def _run(table, kernels, scalars, total, taken):
    """Run chunks until none is left; every thread of the step does."""
    starts = table[:, START]
    while True:
        begin = _fetch_add(taken.ctypes.data, CHUNK)
        if begin >= total:
            break
        end = min(begin + CHUNK, total)
        # The last row that starts at or before the chunk: it is not an empty one.
        place = np.searchsorted(starts, begin, side="right") - 1
        while begin < end:
            row = table[place]
            start = row[START]
            stop = min(start + row[N], end)
            job = row[JOB]
            _call(kernels[job], row.ctypes.data, begin - start, stop - start, scalars[job])
            begin = stop
            place += 1
