"""The "numpy" engine: the reference, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedstep import reference
from fusedstep.arrays import Array, Operand, Written
from fusedstep.coefficients import Scalars, Values
from fusedstep.plan import Job, Row


class Table:
    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written) -> None:
        self.jobs = jobs
        self.rows = rows
        self.operands: list[Any] = [None] * len(rows)

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        self.operands[index] = operand

    def take(self, grads: list[Any], start: int) -> int:
        for index in range(start, len(grads)):
            if grads[index] is not None or self.rows[index] is not None:
                return index
        return len(grads)

    def take_and_run(self, grads: list[Any], scalars: Sequence[Values]) -> int:
        taken = self.take(grads, 0)
        if taken == len(grads):
            self.run(scalars)
        return taken

    def run(self, scalars: Sequence[Values]) -> None:
        with np.errstate(all="ignore"):
            narrowed = [
                Scalars._make(map(job.dtype.type, Scalars(**values)))
                for job, values in zip(self.jobs, scalars, strict=True)
            ]
            for row, operand in zip(self.rows, self.operands, strict=True):
                if row is not None:
                    self.step(row, operand.flat, narrowed[row.job])

    def step(self, row: Row, g: Array, h: Scalars) -> None:
        rule = self.jobs[row.job].rule
        p = row.p.flat
        states = [None if state is None else state.flat for state in row.states]
        g = reference.gradient(p, g, h)
        results = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
        for array, result in zip((p, *states), results, strict=True):
            if array is not None:
                array[...] = result
