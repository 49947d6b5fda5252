"""The scalars of steps to come, as lines of numbers and a program that makes scalars of them.

A job has a line for each t. What is the same in all of them goes to the device once, and what the
rate has a part in is a chain of operations on it, see of_rate.py. Lines are computed until they
rest, or there are MOST.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep._backends.plan import Foreseen
from fusedstep._numerics.coefficients import Values
from fusedstep._numerics.of_rate import OVER, TAKE, TIMES, steps_of
from fusedstep._numerics.variants import DECAYS

MOST = 1 << 16
"""Steps that are foreseen at once, if their scalars do not come to rest before."""

BLOCK = 1024
"""Lines that are looked at together: all alike, and like those far away, they have come to rest."""

Words: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class Written(NamedTuple):
    """The lines of a job, as they go to the device."""

    program: Words
    fixed: Words
    lines: Words
    lasts: bool
    key: int
    """Where the key is: a place among the fixed numbers, or below 0 in the line."""
    decays: bool


class Column:
    """A scalar, line by line, always made by the same operations: the numbers of each.

    Where a line has fewer operations than others, its scalar is multiplied by 1.
    """

    def __init__(self) -> None:
        self.operations: tuple[int, ...] = (TAKE,)
        self.numbers: list[list[float]] = [[]]

    def add(self, x: Any) -> None:
        """Add the scalar of a line."""
        if type(x) is float and self.operations == (TAKE,):
            self.numbers[0].append(x)
            return
        steps = steps_of(x)
        if tuple(operation for operation, _ in steps) != self.operations:
            self._fit(tuple(operation for operation, _ in steps))
        numbers = [number for _, number in steps]
        numbers += [1.0] * (len(self.operations) - len(steps))
        for column, number in zip(self.numbers, numbers, strict=True):
            column.append(number)

    def _fit(self, operations: tuple[int, ...]) -> None:
        """Have as many operations as some line needs."""
        known, count = self.operations, len(self.numbers[0]) if self.numbers else 0
        if not count:
            self.operations, self.numbers = operations, [[] for _ in operations]
            return
        longer, shorter = sorted((known, operations), key=len, reverse=True)
        further = longer[len(shorter) :]
        if longer[: len(shorter)] != shorter or set(further) - {TIMES, OVER}:
            raise TypeError(
                "a scalar of this rule is made of the learning rate in one way at one t, and in "
                "another way at another t"
            )
        self.operations = longer
        self.numbers += [[1.0] * count for _ in longer[len(known) :]]

    def rests(self, far: Any) -> bool:
        """Whether all numbers of the last block are those of another scalar."""
        steps = steps_of(far)
        wanted = [number for _, number in steps] + [1.0] * (len(self.numbers) - len(steps))
        last = [as_words(column[-BLOCK:]) for column in self.numbers]
        return all((words == one).all() for words, one in zip(last, as_words(wanted), strict=True))


def as_words(numbers: Sequence[float]) -> Words:
    """The bits of some numbers."""
    return np.array(numbers, np.float64).view(np.int64)


END = -1
"""The end of a scalar's operations in a program."""

ASKED = ("unscale", "clip", "most")
"""The scalars that the step asks for, in the place of what lines have."""


class Lines:
    """The lines of one job, as they are computed."""

    def __init__(self, foreseen: Foreseen, index: int, base: int, names: Sequence[str]) -> None:
        constants = {**foreseen.constants(index), **dict.fromkeys(ASKED, 1.0)}
        self.columns = {name: Column() for name in names}
        self.changing = [(name, self.columns[name].add) for name in names if name not in constants]
        for name in names:
            if name in constants:
                self.columns[name].add(float(constants[name]))
        self.key = partial(foreseen.key, index)
        self.base = base
        self.count = 0
        self.lasts = False
        self._read(foreseen.lines(index, base), foreseen.far(index))

    def _read(self, lines: Iterable[Values], far: Values | None) -> None:
        """Read lines until they rest, or are as many as there may be, or end."""
        if self.key(self.base) is not None:
            far = None  # random bits are others at each step
        for values in islice(lines, MOST):
            for name, add in self.changing:
                add(values[name])
            self.count += 1
            if far is not None and self.count % BLOCK == 0:
                self.lasts = all(self.columns[name].rests(far[name]) for name, _ in self.changing)
                if self.lasts:
                    return

    @property
    def decays(self) -> bool:
        """Whether the gradient is joined by decays at some step."""
        columns = [self.columns[name] for name in DECAYS if name in self.columns]
        return any(column.operations != (TAKE,) or any(column.numbers[0]) for column in columns)

    def written(self, names: Sequence[str]) -> Written:
        """These scalars as they go to the device: what is the same in all lines goes once."""
        random = self.key(self.base) is not None
        keys = [self.key(self.base + at) for at in range(self.count)] if random else [0]
        columns = [np.array(keys, np.uint64).view(np.int64)]
        operations: list[int] = []
        program = [0] * len(names)
        for k, name in enumerate(names):
            own = self.columns[name]
            program[k] = len(program)
            for operation, numbers in zip(own.operations, own.numbers, strict=True):
                program += [operation, len(columns)]
                operations.append(len(program) - 1)
                columns.append(as_words(numbers[: self.count]))
            program.append(END)
        changing = [bool((column != column[0]).any()) for column in columns]
        places = np.where(changing, -np.cumsum(changing), np.cumsum(np.logical_not(changing)) - 1)
        for at in operations:
            program[at] = places[program[at]]
        fixed = [
            column[0] for column, changes in zip(columns, changing, strict=True) if not changes
        ]
        rows = [column for column, changes in zip(columns, changing, strict=True) if changes]
        lines = np.array(rows, np.int64).reshape(len(rows), -1 if rows else self.count).T
        if self.lasts:
            lines = resting(lines)
        return Written(
            np.array(program, np.int64),
            np.array(fixed, np.int64),
            np.ascontiguousarray(lines),
            self.lasts,
            int(places[0]),
            self.decays,
        )


def resting(lines: Words) -> Words:
    """Lines up to the one from which on all are the same."""
    differing = np.flatnonzero((lines != lines[-1]).any(axis=1))
    return lines[: differing[-1] + 2] if len(differing) else lines[:1]
