"""A step laid out: which rows there are, what they share, and what must be copied around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fusedstep.arrays import Array, Operand, Walk
from fusedstep.coefficients import Rule, Scalars


class Job(NamedTuple):
    """What rows of the same hyperparameters, step count and dtype share."""

    rule: Rule
    dtype: np.dtype[Any]


class Row:
    """One tensor: parameter, state in the order of the rule's letters, and gradient."""

    __slots__ = ("g", "job", "p", "states", "walk")

    def __init__(
        self,
        job: int,
        p: Array,
        letters: Sequence[str | None],
        states: Mapping[str, Array],
        g: Array,
    ) -> None:
        self.job = job
        self.walk = Walk(p)
        self.p = Operand(p, self.walk)
        self.states = [
            None if letter is None else Operand(states[letter], self.walk) for letter in letters
        ]
        self.g = Operand(g, self.walk)

    @property
    def written(self) -> list[Operand]:
        return [self.p, *(state for state in self.states if state is not None)]


class Table(Protocol):
    """An engine's own form of the rows and jobs."""

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row]) -> None: ...

    def set_gradient(self, row: int) -> None:
        """Take over that `rows[row].g` is another."""

    def run(self, scalars: Sequence[Scalars]) -> None:
        """One step, with the scalars of each job."""


class Plan:
    """Rows and jobs in an engine's table, run as one step as often as wanted."""

    def __init__(self, table: type[Table], jobs: Sequence[Job], rows: Sequence[Row]) -> None:
        self.rows = rows
        self.table = table(jobs, rows)
        self.put_back = [operand for row in rows for operand in row.written if operand.scratch]
        self.find_fetched()

    def find_fetched(self) -> None:
        self.fetched = [*self.put_back, *(row.g for row in self.rows if row.g.scratch)]

    def set_gradients(self, changed: Iterable[tuple[int, Array]]) -> None:
        for index, g in changed:
            row = self.rows[index]
            row.g = Operand(g, row.walk)
            self.table.set_gradient(index)
        self.find_fetched()

    def run(self, scalars: Sequence[Scalars]) -> None:
        for operand in self.fetched:
            operand.fetch()
        self.table.run(scalars)
        for operand in self.put_back:
            operand.put_back()
