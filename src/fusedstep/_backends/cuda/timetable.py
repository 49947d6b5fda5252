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

from collections.abc import Sequence

import numpy as np

from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.foreseen import END, Lines
from fusedstep._backends.cuda.launches import Launch
from fusedstep._backends.cuda.mail import Mail
from fusedstep._backends.plan import Foreseen
from fusedstep._numerics.of_rate import (
    INTO,
    MINUS,
    OVER,
    PLUS,
    TAKE,
    TIMES,
)

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
job, end = jobs, jobs + {8 * JOB} * n_jobs
while job < end and not late:
    past = before - load_int64(job + {8 * BASE}) >= load_int64(job + {8 * ROWS})
    late = past and load_int64(job + {8 * LASTS}) == 0
    job += {8 * JOB}""".splitlines()
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
operation = load_int64(at)
while operation != {END}:
    place = load_int64(at + 8)
    c = load(fixed + 8 * place if place >= 0 else line - 8 * (place + 1))
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
    at += 16
    operation = load_int64(at)
if k == load_int64(job + {8 * AT_MOST}):
    x = load(letter + {8 * BOUND})""".splitlines()
"""The lines by which it makes scalar k."""


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
