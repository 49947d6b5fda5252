"""The "numba" engine: kernels that Numba compiles from rules.py, or from a user's own rule.

They are C callbacks of the very type of the C engine's kernels, so the C runner runs them
too, with its threads; where it was not built, loop.py does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from numba import config

from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._backends.numba.primitives import EMA, READ, STATES, G, P
from fusedstep._backends.plan import Job, Row
from fusedstep._compiler import generate
from fusedstep._numerics import variants
from fusedstep._numerics.coefficients import Given

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ImportError("NUMBA_DISABLE_JIT is set, so Numba compiles nothing; unset it")

try:
    from fusedstep._backends.c.runner import Runner
except ImportError:  # dispatch.info() says why
    from fusedstep._backends.numba.runner import Runner  # type: ignore[assignment]

PARTS = Path(__file__).with_name("primitives.py")
"""What generated modules are made of, besides their own text."""

MODULE = '''\
"""The kernel {title}: formulas as fusedstep read them, and the loop over a row's elements.

It is made of fusedstep._backends.numba.primitives {digest}.
"""

from collections import namedtuple
from math import sqrt

from numba import carray, int64
from numba import {dtype} as real

from fusedstep._backends.numba.primitives import compiled, kernel, pointer

Scalars = namedtuple("Scalars", {names})


{functions}

@kernel
def run(row, begin, end, scalars):
    row = carray(pointer(row), {columns}, int64)
    scalars = carray(pointer(scalars), {count}, real)
    h = Scalars({scalars})
    n = end - begin
{arrays}
    for i in range(n):
        {results} = {rule}({arguments})
{average}'''


class Table(Runner):
    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        super().__init__(jobs, rows, written)
        self.pick = []
        for index, job in enumerate(jobs):
            names = variants.scalars(job.rule)
            self.pick.append(itemgetter(*names))
            self.bind(index, kernel(job).address, len(names))

    def prepare(self, scalars: Sequence[Given]) -> None:
        for index, (constants, values) in enumerate(scalars):
            self.write(index, self.pick[index]({**constants, **values}))


@cache
def kernel(job: Job) -> Any:
    """The compiled C callback of a job."""
    return generate.load(title(job), text(job)).run


def title(job: Job) -> str:
    return f"{variants.title(job.rule)}_{job.dtype.name}"


def text(job: Job) -> str:
    """The module of a job's kernel."""
    rule, gradient = variants.formula(job.rule), variants.gradient()
    names = variants.scalars(job.rule)
    columns = {"p": P, "g": G}
    columns |= {f"s{k}": STATES + k for k, letter in enumerate(job.rule.letters) if letter}
    p, g, *states = (f"{array}[i]" for array in columns)
    if job.rule.averaged:
        columns["ema"] = EMA
    around = " ".join([MODULE, *columns])
    functions = generate.functions(variants.roots(job.rule), "compiled", {}, around)
    arguments = [p, f"{functions.names[gradient]}({p}, {g}, h)", *states]
    average = ""
    if job.rule.averaged:
        average = f"        ema[i] = {functions.names[variants.average()]}({p}, ema[i], h)\n"
    return MODULE.format(
        title=title(job),
        digest=generate.digest(PARTS),
        dtype=job.dtype.name,
        names=names,
        functions=functions.text,
        columns=READ,
        count=len(names),
        scalars=", ".join(f"scalars[{k}]" for k in range(len(names))),
        arrays="\n".join(
            f"    {array} = carray(pointer(row[{k}] + begin * {job.dtype.itemsize}), n, real)"
            for array, k in columns.items()
        ),
        results=", ".join([p, *states]),
        rule=functions.names[rule],
        arguments=", ".join([*arguments, "h"] if rule.scalars else arguments),
        average=average,
    )
