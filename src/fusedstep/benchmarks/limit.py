"""The memory's limit: the traffic of a step without its arithmetic, run by the same runner."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from fusedstep._backends import threads
from fusedstep._backends.c import engine
from fusedstep._backends.c.runner import find_kernel
from fusedstep._core.optimizer import Optimizer
from fusedstep._engine import lib


def limit_of(
    optimizer: Optimizer, zero: bool = False, measured: bool = False
) -> Callable[[], None]:
    """Return a function that moves the bytes of a step of `optimizer`, which has stepped once.

    `zero` and `measured` say that the step zeroes its gradients, and sums their squares first.
    No value changes but, under `zero`, those of the gradients. It works for built-in rules on
    the C backend, and for gradients that need no scratch.
    """
    layout = optimizer.layout
    own = c_table(optimizer)
    table = engine.Table(layout.jobs, layout.rows, layout.tensors.written())
    for c_row, own_row in zip(table.c_rows, own.c_rows, strict=True):
        c_row.g = own_row.g
    for job, c_job in zip(table.jobs, table.c_jobs, strict=True):
        c_job.kernel = find_kernel("limit", job.dtype)
        c_job.squares = find_kernel("limit_squares", job.dtype)
    return bare(table, zero, measured)


def bare_call(
    optimizer: Optimizer, zero: bool = False, measured: bool = False
) -> Callable[[], None]:
    """Return a function that makes the C calls of a step of `optimizer`, which has stepped once.

    It steps on with the scalars of the last step.
    """
    return bare(c_table(optimizer), zero, measured)


def c_table(optimizer: Optimizer) -> engine.Table:
    table = optimizer.layout.plan.table
    assert isinstance(table, engine.Table)
    return table


def bare(table: engine.Table, zero: bool = False, measured: bool = False) -> Callable[[], None]:
    def call() -> None:
        count = threads.get_num_threads()
        if measured:
            lib.fs_measure(table.table, count, 1.0, inf, table.measured)
        lib.fs_step(table.table, count, zero, False)

    return call
