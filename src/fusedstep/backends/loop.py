"""The runner of Numba's kernels where the C engine was not built: one thread, in one call."""

# mypy: allow-untyped-defs, disallow-untyped-decorators=false

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from fusedstep.arrays import Array, Operand, Written
from fusedstep.coefficients import Values
from fusedstep.plan import MOST_STATES, Careful, Job, Row

# The columns of `fs_row` in csrc/api.h, which the kernels read.
P, G, STATES, N, JOB = 0, 1, 2, 2 + MOST_STATES, 4 + MOST_STATES
COLUMNS = 5 + MOST_STATES


class Runner(Careful):
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written) -> None:
        self.rows = rows
        self.table = np.zeros((sum(row is not None for row in rows), COLUMNS), np.int64)
        self.kernels = np.zeros(len(jobs), np.int64)
        self.scalars = np.zeros(len(jobs), np.int64)
        self.buffers: list[Array] = [np.zeros(0)] * len(jobs)
        self.places: list[int] = []
        place = 0
        for row in rows:
            self.places.append(place)
            if row is not None:
                self.table[place, [P, N, JOB]] = address(row.p.flat), row.p.flat.size, row.job
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
        _run(self.table, self.kernels, self.scalars)


def address(array: Array) -> int:
    return int(array.ctypes.data)


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


@njit(types.void(types.int64[:, ::1], types.int64[::1], types.int64[::1]), nogil=True, cache=True)
def _run(table, kernels, scalars):
    for place in range(table.shape[0]):
        row = table[place]
        job = row[JOB]
        _call(kernels[job], row.ctypes.data, 0, row[N], scalars[job])  # type: ignore[call-arg]
