"""The Numba backend: kernels that Numba compiles from scalar.py, or from a custom rule.

They are C callbacks of the very type of the C backend's kernels, so the C runner runs them
too, with its threads; where it was not built, runner.py does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from textwrap import fill
from typing import Any

from numba import config

from fusedstep._backends.numba.primitives import EMA, READ, STATES, G, P
from fusedstep._backends.plan import Job
from fusedstep._compiler import generate, modules
from fusedstep._numerics import variants
from fusedstep._numerics.coefficients import JobScalars

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set, so Numba compiles nothing; unset it")

try:
    from fusedstep._backends.c.runner import Runner
except ImportError:  # fusedstep.info() says why
    from fusedstep._backends.numba.runner import Runner  # type: ignore[assignment]

PARTS = Path(__file__).with_name("primitives.py")
"""The file that generated modules import their parts from."""

HEAD = """\
\"\"\"The CPU kernel {title}: a step of one element, and of part of a tensor.

Numerics contract: a rule is a sequence of IEEE-754 operations, each rounded to nearest even
in {dtype}, in the order that reference.py writes them.
\"\"\"

from collections import namedtuple
from math import sqrt

from numba import carray, int64
from numba import {dtype} as real

from fusedstep._backends.numba.primitives import compiled, kernel, pointer

Scalars = namedtuple("Scalars", "{names}")


"""


class Table(Runner):
    """A `plan.Table` of kernels that Numba compiles."""

    def begin(self, jobs: Sequence[Job]) -> None:
        super().begin(jobs)
        self.pick: list[Any] = []
        for index, job in enumerate(jobs):
            names = variants.step(job.rule).scalars
            self.pick.append(itemgetter(*names))
            self.bind(index, kernel(job.kernel).address, names)

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        for index, (constants, values) in enumerate(scalars):
            self.write(index, self.pick[index]({**constants, **values}))


@cache
def kernel(job: Job) -> Any:
    """The compiled C callback of a job."""
    return modules.load(title(job), text(job), PARTS).run


def title(job: Job) -> str:
    return f"{variants.title(job.rule)}_{job.dtype.name}"


def text(job: Job) -> str:
    """The text of the module of a job's kernel."""
    step = variants.step(job.rule)
    head = HEAD.format(title=title(job), dtype=job.dtype.name, names=" ".join(step.scalars))
    functions = generate.functions(step, "compiled", {}, HEAD)
    # An array m is `m_array` below. No other name there ends like that, so the arrays of a
    # custom rule may be called as they like.
    arrays = step.variables
    slots = [STATES + k for k, letter in enumerate(job.rule.letters) if letter]
    columns = dict(zip(arrays, [P, G, *slots, EMA], strict=False))
    located = "\n    ".join(
        f"{x}_array = carray(pointer(row[{k}] + {job.dtype.itemsize} * begin), n, real)"
        for x, k in columns.items()
    )
    results = ", ".join(f"{x}_array[i]" for x in arrays if x != "g")
    arguments = ", ".join(f"{x}_array[i]" for x in arrays)
    scalars = ", ".join(f"scalars[{k}]" for k in range(len(step.scalars)))
    return f"""\
{head}{functions}

# Elements [begin, end) of the tensor that `row` describes; `row` and `scalars` are addresses.
@kernel
def run(row, begin, end, scalars):
    scalars = carray(pointer(scalars), {len(step.scalars)}, real)
    h = Scalars(
{fill(scalars, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)}
    )
    row = carray(pointer(row), {READ}, int64)
    n = end - begin
    {located}
    for i in range(n):
        {results} = step(
            {arguments}, h
        )
"""
