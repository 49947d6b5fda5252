"""The "c" engine: the step's rows as a C table, run in one call with the GIL released."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any

import numpy as np

from fusedstep import threads
from fusedstep._engine import ffi, lib
from fusedstep.arrays import Array, Operand, Written, extent
from fusedstep.coefficients import Scalars, Values
from fusedstep.plan import Job, Row
from fusedstep.structure import quoted

_selections = 0
"""How often the instruction set was chosen anew: tables look up their kernels again."""


class Table:
    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written) -> None:
        active = [row for row in rows if row is not None]
        self.jobs = jobs
        self.rows = rows
        self.c_jobs = ffi.new("fs_job[]", len(jobs))
        self.c_rows = ffi.new("fs_row[]", len(active))
        self.headers = ffi.new("fs_header[]", len(rows))
        self.layouts: list[Any] = [None] * len(rows)
        self.each_job = list(self.c_jobs)
        start = 0
        for row, c_row in zip(active, self.c_rows, strict=True):
            c_row.p = ffi.from_buffer(row.p.flat)
            for slot, state in enumerate(row.states):
                if state is not None:
                    c_row.s[slot] = ffi.from_buffer(state.flat)
            c_row.n = row.p.flat.size
            c_row.start = start
            c_row.job = row.job
            start += row.p.flat.size
        places = count()
        for index, place in enumerate(rows):
            self.headers[index].row = -1 if place is None else next(places)
        self.lows = ffi.new("intptr_t[]", written.lows)
        self.highs = ffi.new("intptr_t[]", written.highs)
        self.table = ffi.new(
            "fs_table *",
            {
                "jobs": self.c_jobs,
                "rows": self.c_rows,
                "nrows": len(active),
                "headers": self.headers,
                "nheaders": len(rows),
                "lows": self.lows,
                "highs": self.highs,
                "nranges": len(written.lows),
            },
        )
        self.find_kernels()

    def find_kernels(self) -> None:
        self.selections = _selections
        for job, c_job in zip(self.jobs, self.each_job, strict=True):
            c_job.itemsize = job.dtype.itemsize
            c_job.scalars = Scalars()
            c_job.kernel = find_kernel(job, _selections)

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        low, high = extent(g)
        header = self.headers[index]
        self.c_rows[header.row].g = ffi.from_buffer(operand.flat)
        self.layouts[index] = ffi.new("intptr_t[]", [*g.shape, *g.strides])
        header.data = g.__array_interface__["data"][0]
        header.scratch = operand.scratch
        header.ndim = g.ndim
        header.layout = self.layouts[index]
        header.below = low - header.data
        header.bytes = high - low
        header.itemsize = g.itemsize
        # NumPy's own dtype object, not one that is equal to it and may be gone tomorrow.
        header.dtype = id(np.dtype(g.dtype.type))
        header.type = id(np.ndarray)

    def take(self, grads: list[Any], start: int) -> int:
        return int(lib.fs_take(self.table, id(grads), start))

    def run(self, scalars: Sequence[Values]) -> None:
        self.prepare(scalars)
        lib.fs_step(self.table, threads.get_num_threads())

    def take_and_run(self, grads: list[Any], scalars: Sequence[Values]) -> int:
        self.prepare(scalars)
        return int(lib.fs_take_and_step(self.table, id(grads), threads.get_num_threads()))

    def prepare(self, scalars: Sequence[Values]) -> None:
        if self.selections != _selections:
            self.find_kernels()
        for index, values in enumerate(scalars):
            self.each_job[index].scalars = values


@cache
def find_kernel(job: Job, selection: int) -> Any:
    """The kernel of a job in the instruction set that the `selection`-th choice put in force."""
    has = sum(letter is not None and 1 << k for k, letter in enumerate(job.rule.letters))
    kernel = lib.fs_find_kernel(
        job.rule.name.encode(), job.dtype.name.encode(), has, job.rule.inside
    )
    if not kernel:
        raise NotImplementedError(f"the C engine has no kernel for {job}")
    return kernel


def isas() -> list[str]:
    """The instruction sets that this build holds and this CPU runs, plainest first."""
    names: list[str] = []
    while name := lib.fs_isa_name(len(names)):
        names.append(ffi.string(name).decode())
    return [name for index, name in enumerate(names) if lib.fs_isa_supported(index)]


def isa() -> str:
    return str(ffi.string(lib.fs_isa()).decode())


def select_isa(name: str, argument: str = "name") -> None:
    """Use the instruction set `name` from the next step on."""
    global _selections
    if name not in isas():
        raise ValueError(
            f"{argument}={name!r} is not an instruction set that this CPU runs; "
            f"pass one of {quoted(isas())}"
        )
    lib.fs_isa_select(name.encode())
    _selections += 1


def team() -> str:
    """Whose threads ran this thread's last step: "caller", "pool" or "openmp"."""
    return str(ffi.string(lib.fs_team()).decode())


if "FUSEDSTEP_ISA" in os.environ:
    select_isa(os.environ["FUSEDSTEP_ISA"], "FUSEDSTEP_ISA")
