"""Parameters moved to where the momentum leads, and back, for `SGD.lookahead`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.walk import Operand, Walk
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._core.declaration import Declaration
from fusedstep._core.layout import Layout
from fusedstep._core.parameters import Cohort
from fusedstep._core.tensors import Tensors
from fusedstep._numerics.coefficients import JobScalars, Rule, Scalars

PLAIN = Scalars()._asdict()
"""Scalars of a step of plain SGD, without its learning rate."""


class Lookahead:
    """The parameters' way to p - (α·μ)·b: a step of plain SGD, with b as the gradient.

    It serves for as long as the optimizer's steps stay laid out as they are: the parameters'
    cohorts and state arrays only change together with `layout`.
    """

    def __init__(
        self,
        declaration: Declaration,
        table: type[Table],
        tensors: Tensors,
        layout: Layout | None,
    ) -> None:
        self.declaration = declaration
        self.layout = layout
        self.place = place = tensors.place
        rule = Rule("sgd")
        jobs: dict[Cohort, int] = {}
        rows: list[Row] = []
        for tensor in tensors.each:
            walk = Walk(tensor.p, place)
            job = jobs.setdefault(tensor.cohort, len(jobs))
            rows.append(Row(Operand(tensor.p, walk), walk, rule, _no_state, job))
        self.arrays = [row.p.laid for row in rows]
        self.kept = [place.empty(p.shape, p.dtype) for p in self.arrays]
        self.cohorts = [*jobs]
        plain = [Job(rule, cohort.dtype) for cohort in jobs]
        self.plan = Plan(table, plain, rows, WrittenMemory(()))
        for index, tensor in enumerate(tensors.each):
            self.plan.set_gradient(index, tensor.state("b"))

    def keep(self) -> None:
        """Copy every parameter, for `back`."""
        for p, kept in zip(self.arrays, self.kept, strict=True):
            self.place.copy(kept, p)

    def scalars(self) -> list[JobScalars]:
        """The scalars of a move by each cohort's momentum, as of its next step."""
        given = []
        for cohort in self.cohorts:
            group, t = cohort.group, cohort.t + 1
            values = group.at(t) if group.scheduled else group.hyperparameters
            rate = self.declaration.scalars(values, t)["lr"] * values["momentum"]
            given.append((PLAIN, {"lr": rate}))
        return given

    def go(self, scalars: Sequence[JobScalars]) -> None:
        """Move every parameter ahead."""
        self.plan.fetch_gradients()
        self.plan.run(scalars)

    def back(self) -> None:
        """Put every parameter back to the bits that it had."""
        for p, kept in zip(self.arrays, self.kept, strict=True):
            self.place.copy(p, kept)


def _no_state(letter: str) -> NoReturn:
    raise AssertionError(letter)
