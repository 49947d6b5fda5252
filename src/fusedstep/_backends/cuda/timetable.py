"""The scalars of the steps to come, on the device, which takes those of its t and its rate.

A CUDA graph repeats launches with the arguments that they had when it was recorded. So nothing that
changes from step to step may be among these. A job has a line of numbers for each t, as far as
they change with t, and a program that says what to do to the learning rate with them, see
of_rate.py. The rate is in a cell of its own, or among the numbers if it is a function of t.

The scalars of most rules change no more from some t on: corrections for bias become 1. Then the
last line serves for good. Where it is not known that they do, the lines end after MOST steps, from
which on the device steps no more until there are further ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.launches import Launch
from fusedstep._backends.cuda.mail import Mail
from fusedstep._backends.plan import Foreseen
from fusedstep._numerics.coefficients import Values
from fusedstep._numerics.of_rate import (
    INTO,
    MINUS,
    OVER,
    PLUS,
    TAKE,
    TIMES,
    steps_of,
)
from fusedstep._numerics.variants import DECAYS

MOST = 1 << 16
"""Steps that are foreseen at once, if their scalars do not come to rest before."""

BLOCK = 1024
"""Lines that are looked at together: all alike, and like those far away, they have come to rest."""

RING = 8
"""Rates that may be on their way to the device."""

# The words of a job, of which the first are those of verdict.py. Then which scalar is the largest
# size of an element; addresses of the program, which begins with the place of each scalar's part,
# of the numbers that are the same in all lines, of the lines, and of the rate; the words of a line,
# how many there are, whether the last one serves for good, the count of steps before the first, and
# where the key of the random bits is.
RECORD, COUNT, SIZE, AT_UNSCALE, AT_CLIP, AT_MOST = range(6)
PROGRAM, FIXED, LINES, RATE = range(6, 10)
WIDTH, ROWS, LASTS, BASE, AT_KEY, JOB = range(10, 16)

BOUND = 6
"""The word of a letter with the largest size of each element, see verdict.py."""

LATE = f"""\
for j in range(n_jobs):
    job = jobs + {8 * JOB} * j
    past = before - load_int64(job + {8 * BASE}) >= load_int64(job + {8 * ROWS})
    late = late or (past and load_int64(job + {8 * LASTS}) == 0)""".splitlines()
"""The lines by which a kernel finds whether a step is beyond those that are foreseen."""


LINE = f"""\
row = min(before - load_int64(job + {8 * BASE}), load_int64(job + {8 * ROWS}) - 1)
line = load_int64(job + {8 * LINES}) + 8 * row * load_int64(job + {8 * WIDTH})
fixed, program = load_int64(job + {8 * FIXED}), load_int64(job + {8 * PROGRAM})
place = load_int64(job + {8 * AT_KEY})
key_at = fixed + 8 * place if place >= 0 else line - 8 * (place + 1)""".splitlines()
"""The lines by which a kernel finds a job's line, and the key in it."""

SCALAR = f"""\
at = program + 8 * load_int64(program + 8 * k)
x = load(load_int64(job + {8 * RATE}))
steps = load_int64(at)
at += 8
for _ in range(steps):
    operation, place = load_int64(at), load_int64(at + 8)
    c = load(fixed + 8 * place if place >= 0 else line - 8 * (place + 1))
    at += 16
    if operation == {TAKE}:
        x = c
    elif operation == {TIMES}:
        x = mul(x, c)
    elif operation == {OVER}:
        x = div(x, c)
    elif operation == {INTO}:
        x = div(c, x)
    elif operation == {PLUS}:
        x = add(x, c)
    elif operation == {MINUS}:
        x = sub(x, c)
    else:
        x = sub(c, x)
if k == load_int64(job + {8 * AT_MOST}):
    x = load(letter + {8 * BOUND})""".splitlines()
"""The lines by which it makes scalar k."""


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
            program.append(len(own.operations))
            for operation, numbers in zip(own.operations, own.numbers, strict=True):
                program += [operation, len(columns)]
                operations.append(len(program) - 1)
                columns.append(as_words(numbers[: self.count]))
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


class Timetable:
    """The jobs of a table as the device knows them: in memory that stays where it is."""

    def __init__(
        self, where: Device, launches: Sequence[tuple[int, Launch]], records: Sequence[int]
    ) -> None:
        self.device = where
        self.launches = launches
        self.records = records
        self.jobs = where.zeros((max(len(launches), 1), JOB), np.dtype(np.int64))
        self.at = address(self.jobs)
        """The address of the jobs."""
        self.rates = Mail(where, max(len(launches), 1), RING)
        self.known_rates: list[float] | None = None
        """The rates that were sent last."""
        self.decays: tuple[bool, ...] = ()
        """Whether the gradients of each job are joined by decays."""
        self.end = 0
        """The count of steps from which on none is foreseen."""
        self.kept: list[list[Array]] = []
        """The memory that jobs are in, or were before, as a graph may still read it."""

    def write(self, foreseen: Foreseen, base: int, fixed: bool) -> None:
        """Write the jobs, for the steps after so many.

        `fixed` says that graphs have kernels that either have decays or not.
        """
        made = []
        for index, launch in self.launches:
            lines = Lines(foreseen, index, base, launch.scalars(True))
            made.append(lines.written(launch.scalars(lines.decays)))
        decays = tuple(each.decays for each in made)
        if fixed and decays != self.decays:
            raise RuntimeError(
                "a CUDA graph holds steps without weight decay or l1, and what is assigned brings "
                "one, or the other way round; assign it before the graph is recorded"
            )
        jobs = np.zeros((len(self.launches), JOB), np.int64)
        arrays = []
        pairs = zip(jobs, self.launches, self.records, made, strict=True)
        for k, (job, (_, launch), record, each) in enumerate(pairs):
            own = [self.device.load(x) for x in (each.program, each.fixed, each.lines)]
            arrays += own
            names = launch.scalars(each.decays)
            job[[RECORD, PROGRAM, FIXED, LINES]] = record, *map(address, own)
            job[RATE] = self.rates.at + 8 * k
            job[[COUNT, SIZE]] = len(names), launch.job.dtype.itemsize
            job[[AT_UNSCALE, AT_CLIP, AT_MOST]] = [*map(names.index, ("unscale", "clip", "most"))]
            job[[WIDTH, ROWS]] = each.lines.shape[::-1]
            job[[LASTS, BASE, AT_KEY]] = each.lasts, base, each.key
        self.kept = [*self.kept[-1:], arrays]
        if len(jobs):
            self.device.write(self.jobs, jobs)
        self.decays = decays
        ends = [base + len(each.lines) for each in made if not each.lasts]
        self.end = min(ends, default=1 << 62)

    def is_new(self, rates: Sequence[float]) -> bool:
        """Whether the device has other rates of the jobs."""
        return bool(self.launches) and self._own(rates) != self.known_rates

    def _own(self, rates: Sequence[float]) -> list[float]:
        return [rates[index] for index, _ in self.launches]

    def send(self, rates: Sequence[float], stream: int) -> None:
        """Send the rate of each job, in the order of a stream."""
        self.known_rates = None  # until they are on their way
        own = self._own(rates)
        self.rates.send(np.array(own, np.float64).view(np.int64), stream)
        self.known_rates = own
