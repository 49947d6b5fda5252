"""A step laid out: which rows there are, what they share, and what must be copied around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fusedstep.arrays import Array, Operand, Walk, Written
from fusedstep.coefficients import Rule, Values
from fusedstep.places import Place

MOST_STATES = 8
"""State arrays of one rule: as many as a row of csrc/api.h has room for."""


class Job(NamedTuple):
    """What rows of the same hyperparameters, step count and dtype share."""

    rule: Rule
    dtype: np.dtype[Any]


class Row:
    """One tensor: a parameter, and its state in the order of the rule's letters."""

    __slots__ = ("job", "letters", "p", "states", "walk")

    def __init__(
        self,
        p: Array,
        letters: Sequence[str | None],
        states: Mapping[str, Array],
        place: Place,
        job: int = 0,
    ) -> None:
        self.job = job
        self.letters = letters
        self.walk = Walk(p, place)
        self.p = Operand(p, self.walk)
        self.states = [
            None if letter is None else Operand(states[letter], self.walk) for letter in letters
        ]

    @property
    def written(self) -> list[Operand]:
        return [self.p, *(state for state in self.states if state is not None)]


class Table(Protocol):
    """An engine's own form of a step. `rows` has a place for each parameter, None if skipped."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written
    ) -> None: ...

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        """Use `g`, which has been checked, as the gradient of parameter `index`."""

    def take(self, grads: list[Any], start: int) -> int:
        """Use `grads`, from `start` on, as far as they can be taken without another check.

        Returns the index of the first that cannot, or their number.
        """

    def run(self, scalars: Sequence[Values]) -> None:
        """One step, with the scalars of each job."""

    def take_and_run(self, grads: list[Any], scalars: Sequence[Values]) -> int:
        """`take` from the first on, and `run` if that took all."""


class Careful:
    """Of a table that has each gradient checked at every step."""

    rows: Sequence[Row | None]

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
        raise NotImplementedError


class Plan:
    """A table, and the scratch around it: run as one step as often as wanted."""

    def __init__(
        self,
        table: type[Table],
        jobs: Sequence[Job],
        rows: Sequence[Row | None],
        written: Written,
    ) -> None:
        self.rows = rows
        self.table = table(jobs, rows, written)
        self.take = self.table.take
        self.scratch = [
            operand for row in rows if row for operand in row.written if operand.scratch
        ]
        self.gradient_scratch: dict[int, Operand] = {}

    def set_gradient(self, index: int, g: Array) -> None:
        row = self.rows[index]
        assert row is not None
        operand = Operand(g, row.walk, self.gradient_scratch.pop(index, None))
        if operand.scratch:
            self.gradient_scratch[index] = operand
        self.table.set_gradient(index, g, operand)

    def take_and_run(self, grads: list[Any], scalars: Sequence[Values]) -> int:
        """See `Table.take_and_run`."""
        if not self.scratch and not self.gradient_scratch:
            return self.table.take_and_run(grads, scalars)
        taken = self.table.take(grads, 0)
        if taken == len(grads):
            self.run(scalars)
        return taken

    def run(self, scalars: Sequence[Values]) -> None:
        for operand in self.scratch:
            operand.fetch()
        for operand in self.gradient_scratch.values():
            operand.fetch()
        self.table.run(scalars)
        for operand in self.scratch:
            operand.put_back()
