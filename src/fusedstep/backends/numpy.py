"""The "numpy" engine: the reference, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusedstep import reference
from fusedstep.coefficients import Scalars
from fusedstep.plan import Job, Row


class Table:
    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row]) -> None:
        self.jobs = jobs
        self.rows = rows
        self.scalars = [Scalars()] * len(jobs)

    def set_scalars(self, job: int, scalars: Scalars) -> None:
        self.scalars[job] = Scalars._make(map(self.jobs[job].dtype.type, scalars))

    def set_gradient(self, row: int) -> None:
        pass  # each step reads the rows afresh

    def run(self) -> None:
        with np.errstate(all="ignore"):
            for row in self.rows:
                rule, h = self.jobs[row.job].rule, self.scalars[row.job]
                p = row.p.flat
                states = [state and state.flat for state in row.states]
                g = reference.gradient(p, row.g.flat, h)
                results = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
                for array, result in zip((p, *states), results, strict=True):
                    if array is not None:
                        array[...] = result
