"""Where momentum leads before the gradient is known: parameters moved there, and back again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.walk import Operand, Walk
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._core.declaration import Declaration
from fusedstep._core.layout import Layout, Rules, Scalars
from fusedstep._core.parameters import Cohort
from fusedstep._core.tensors import Tensors
from fusedstep._numerics.coefficients import Given, Rule
from fusedstep._numerics.coefficients import Scalars as Members

PLAIN = Members()._asdict()
"""The scalars of a step of plain SGD but for its rate."""


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
        rules: Rules,
        layout: Layout | None,
    ) -> None:
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
        self.scalars = Scalars(declaration, [*jobs], rules)
        plain = [Job(rule, cohort.dtype) for cohort in jobs]
        self.plan = Plan(table, plain, rows, WrittenMemory(()))
        for index, tensor in enumerate(tensors.each):
            self.plan.set_gradient(index, tensor.state("b"))

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


def _no_state(letter: str) -> NoReturn:
    raise AssertionError(letter)
