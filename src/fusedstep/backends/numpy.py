"""The "numpy" engine: the reference, row by row, or a user's own rule over whole arrays."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fusedstep import reference
from fusedstep.arrays import Array, Operand, Written
from fusedstep.backends.evaluate import evaluate
from fusedstep.coefficients import Values
from fusedstep.plan import Careful, Job, Row


class Table(Careful):
    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written) -> None:
        self.jobs = jobs
        self.rows = rows
        self.operands: list[Any] = [None] * len(rows)

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        self.operands[index] = operand

    def run(self, scalars: Sequence[Values]) -> None:
        with np.errstate(all="ignore"):
            narrowed = [
                SimpleNamespace(**{name: job.dtype.type(value) for name, value in values.items()})
                for job, values in zip(self.jobs, scalars, strict=True)
            ]
            for row, operand in zip(self.rows, self.operands, strict=True):
                if row is not None:
                    self.step(row, operand.flat, narrowed[row.job])

    def step(self, row: Row, g: Array, h: Any) -> None:
        rule, dtype = self.jobs[row.job]
        p = row.p.flat
        states = [None if state is None else state.flat for state in row.states]
        g = reference.gradient(p, g, h)
        if rule.formula is None:
            results = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
        else:
            # Copies, for a new state may be the old p itself.
            results = [*map(np.array, evaluate(rule.formula, (p, g, *states), h, dtype))]
        for array, result in zip((p, *states), results, strict=True):
            if array is not None:
                array[...] = result
