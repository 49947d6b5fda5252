"""Where momentum leads before the gradient is known: parameters moved there, and back again."""

from __future__ import annotations

from collections.abc import Sequence

from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Place
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._core.arena_stretches import Stretch
from fusedstep._core.parameters import Cohort, Parameter
from fusedstep._numerics.coefficients import Given, Rule, Scalars

PLAIN = Scalars()._asdict()
"""All of a step of plain SGD but for its rate."""


class Lookahead:
    """The parameters' way to p - (α·μ)·b: a step of plain SGD, with b as the gradient.

    It serves for as long as the optimizer's steps stay `laid_out` as they are: the
    parameters' cohorts and state arrays only change together with that list.
    """

    def __init__(
        self,
        table: type[Table],
        tensors: Sequence[Parameter | Stretch],
        place: Place,
        laid_out: list[Cohort],
    ) -> None:
        self.laid_out = laid_out
        self.place = place
        rule = Rule("sgd")
        jobs: dict[Cohort, int] = {}
        rows = [
            Row(tensor.p, rule, {}, place, jobs.setdefault(tensor.cohort, len(jobs)))
            for tensor in tensors
        ]
        self.arrays = [row.p.laid for row in rows]
        self.kept = [place.empty(p.shape, p.dtype) for p in self.arrays]
        self.cohorts = list(jobs)
        plain = [Job(rule, cohort.dtype) for cohort in jobs]
        self.plan = Plan(table, plain, rows, WrittenMemory(()))
        for index, tensor in enumerate(tensors):
            self.plan.set_gradient(index, tensor.states["b"])

    def keep(self) -> None:
        """Note where every parameter is."""
        for p, kept in zip(self.arrays, self.kept, strict=True):
            self.place.copy(kept, p)

    def go(self, scalars: Sequence[Given]) -> None:
        """Move every parameter; `scalars` are those of the cohorts' steps that come."""
        self.plan.fetch_gradients()
        self.plan.run(
            [(PLAIN, {"lr": values["lr"] * constants["momentum"]}) for constants, values in scalars]
        )

    def back(self) -> None:
        """Put every parameter back to the bits that it had."""
        for p, kept in zip(self.arrays, self.kept, strict=True):
            self.place.copy(p, kept)
