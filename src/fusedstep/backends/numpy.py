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

    def set_gradient(self, row: int) -> None:
        pass  # each step reads the rows afresh

    def run(self, scalars: Sequence[Scalars]) -> None:
        with np.errstate(all="ignore"):
            narrowed = [
                Scalars._make(map(job.dtype.type, values))
                for job, values in zip(self.jobs, scalars, strict=True)
            ]
            for row in self.rows:
                rule, h = self.jobs[row.job].rule, narrowed[row.job]
                p = row.p.flat
                states = [None if state is None else state.flat for state in row.states]
                g = reference.gradient(p, row.g.flat, h)
                results = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
                for array, result in zip((p, *states), results, strict=True):
                    if array is not None:
                        array[...] = result
