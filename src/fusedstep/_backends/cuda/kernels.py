"""The CUDA kernel of a job's step, as the text of a module.

A table describes a step to it. Its rows are ROW int64 each: the addresses of p, of up to 8
state arrays, of the moving average and of the gradient's sums of squares, and the number of
elements. The address of each row's gradient stands apart, since it changes from step to step.

A tile is what one block of threads steps, VECTORS of 16 bytes for each thread and array. For each
tile of the job there is an int64: the index of its row, and in its upper half which of the row's
tiles it is. So tensors of any size fill the device, and thousands of them are one launch. A job of
one row needs none of that. squares.py has a kernel over the same table, and a list of blocks.

Where the memory does not lie in vectors, or ends within a tile, each thread has as many single
elements, a block of threads apart, so that those of neighbours are side by side. Either way all of
a thread's loads are under way before it computes: a device is kept busy by the bytes in flight.

A step that the host knows all of has its scalars by value. One that depends on the gradients' norm
has them in memory, where verdict.py has put them, see `Variant`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap
from types import ModuleType
from typing import NamedTuple

from fusedstep._backends.plan import MOST_STATES, Job
from fusedstep._compiler import generate, modules
from fusedstep._compiler.formula import Formula
from fusedstep._numerics import variants

PARTS = Path(__file__).with_name("primitives.py")
"""The file that generated modules import their parts from."""

P, STATES, EMA, SUMS = 0, 1, 1 + MOST_STATES, 2 + MOST_STATES
N, ROW = 3 + MOST_STATES, 4 + MOST_STATES
"""The columns of a row, and their number."""

LANES = {4: 4, 8: 2}
"""The elements of a vector, by the bytes of one: a thread loads 16 bytes at most at once."""

THREADS = 256
"""Threads of a block."""

LIGHT = 3
"""Arrays up to which a thread has two vectors of each: one would leave too few bytes in flight."""

SKIPPED, KEY, VALUES = 0, 8, 16
"""Where a record has whether the step is left out, the key of its random bits, and its scalars, in
the compute dtype."""


class Variant(NamedTuple):
    """A variant of a job's kernel."""

    decays: bool = True
    """Whether the gradient may be joined by decays, which most runs never ask for."""
    judged: bool = False
    """Whether the scalars are read from a record, and the step may turn out to be left out."""

    @property
    def title(self) -> str:
        return ("_decays" if self.decays else "") + ("_judged" if self.judged else "")


PLAIN = Variant(decays=False)
"""The variant of most steps."""

OPERATORS: generate.Operators = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}

IMPORTS = """\
\"\"\"The CUDA kernel {title}: a step of one element, and of a table of tensors.

Numerics contract: a rule is a sequence of IEEE-754 operations, each rounded to nearest even
in {dtype}, in the order that reference.py writes them.
\"\"\"

from collections import namedtuple

from numba import cuda
from numpy import {dtype} as real

from fusedstep._backends.cuda.primitives import abs_{dtype} as abs
from fusedstep._backends.cuda.primitives import add_{dtype} as add
from fusedstep._backends.cuda.primitives import device, load_float64, load_int64
from fusedstep._backends.cuda.primitives import div_{dtype} as div
from fusedstep._backends.cuda.primitives import load_{dtype} as load
from fusedstep._backends.cuda.primitives import load_vector_{dtype} as load_vector
from fusedstep._backends.cuda.primitives import mul_{dtype} as mul
from fusedstep._backends.cuda.primitives import sqrt_{dtype} as sqrt
from fusedstep._backends.cuda.primitives import store_{dtype} as store
from fusedstep._backends.cuda.primitives import store_vector_{dtype} as store_vector
from fusedstep._backends.cuda.primitives import sub_{dtype} as sub
"""

HEAD = f"""\
{IMPORTS}
SIGNATURE = "void(int64, int64, int64, int64, int64, {{scalars}})"

Scalars = namedtuple("Scalars", "{{names}}")


"""


def title(job: Job, variant: Variant) -> str:
    return f"{variants.title(job.rule)}_{job.dtype.name}{variant.title}_cuda"


@cache
def module(job: Job, variant: Variant = PLAIN, threads: int = THREADS) -> ModuleType:
    """The module of a job's kernel, for blocks of so many threads: `run`, and its SIGNATURE."""
    return modules.load(title(job, variant), text(job, variant, threads), PARTS)


def text(job: Job, variant: Variant = PLAIN, threads: int = THREADS) -> str:
    """The text of that module."""
    step = variants.step(job.rule, variant.decays)
    kernel = _kernel(job, step, variant, threads)
    given = "int64" if variant.judged else by_value(job, step)
    return module_text(job, step, title(job, variant), HEAD, kernel, given)


def by_value(job: Job, step: Formula) -> str:
    """The type of the scalars as an argument."""
    return f"UniTuple({job.dtype.name}, {len(step.scalars)})"


def module_text(job: Job, step: Formula, title: str, head: str, kernel: str, given: str) -> str:
    """The text of a kernel's module: its head, what is done to one element, and the kernel.

    `given` has the types of the arguments that bring the scalars.
    """
    filled = head.format(
        title=title,
        dtype=job.dtype.name,
        scalars=given,
        names=" ".join(step.scalars),
    )
    functions = generate.functions(step, "device", OPERATORS, head)
    return f"{filled}{functions}\n\n{kernel}"


def vectors(job: Job) -> int:
    """The vectors that a thread has of each array."""
    arrays = 2 + sum(letter is not None for letter in job.rule.letters) + job.rule.averaged
    return 2 if arrays <= LIGHT else 1


def scalar_lines(job: Job, step: Formula, variant: Variant) -> Iterator[str]:
    """The lines that make h of the scalars; the factor of a tensor's own may stand for `clip`."""
    size, at_clip = job.dtype.itemsize, step.scalars.index("clip")
    given = [f"scalars[{k}]" for k in range(len(step.scalars))]
    if variant.judged:
        given = [f"load(record + {VALUES + size * k})" for k in range(len(step.scalars))]
        yield f"skipped = load_int64(record + {SKIPPED})"
    yield f"clip = real(load_float64(clips + 8 * index)) if clips else {given[at_clip]}"
    given[at_clip] = "clip"
    yield "h = Scalars("
    yield from wrap(", ".join(given), 96, initial_indent=" " * 4, subsequent_indent=" " * 4)
    yield ")"


PLACE = (
    "tile = load_int64(tiles + 8 * cuda.blockIdx.x) if tiles else cuda.blockIdx.x << 32",
    "index = tile & 0xFFFFFFFF",
    "tile >>= 32",
    f"row = rows + {8 * ROW} * index",
    f"n = load_int64(row + {8 * N})",
)
"""The lines that find the tile of a block of threads, and the tensor that it is part of."""


def _kernel(job: Job, step: Formula, variant: Variant, threads: int) -> str:
    """The text of the kernel, which steps one tile.

    Of an array m it has the address as `m_at`, and the elements of a thread as `m_0`, `m_1`
    and so on. None of the kernel's other names end like that, so the arrays of a custom rule
    may be called as they like.
    """
    size, each = job.dtype.itemsize, vectors(job)
    width = LANES[size]
    lanes = range(each * width)
    arrays = step.variables
    written = [array for array in arrays if array != "g"]
    slots = [STATES + k for k, letter in enumerate(job.rule.letters) if letter]
    columns = dict(zip(written, [P, *slots, EMA], strict=False))
    scalars = "record" if variant.judged else "scalars"

    def vector(x: str, k: int) -> str:
        return ", ".join(f"{x}_{lane}" for lane in lanes[k * width : (k + 1) * width])

    def vector_at(x: str, k: int) -> str:
        return f"{x}_at + at + {16 * threads * k}" if k else f"{x}_at + at"

    def element_at(x: str, lane: int) -> str:
        return f"{x}_at + at + {size * threads * lane}" if lane else f"{x}_at + at"

    def stepped(lane: int) -> str:
        results = ", ".join(f"{x}_{lane}" for x in written)
        return f"{results} = step({', '.join(f'{x}_{lane}' for x in arrays)}, h)"

    def loads() -> Iterator[str]:
        yield "if whole:"
        yield f"    at = {size} * start + 16 * cuda.threadIdx.x"
        for k in range(each):
            yield from (f"    {vector(x, k)} = load_vector({vector_at(x, k)})" for x in arrays)
        yield "else:"
        yield f"    at = {size} * (start + cuda.threadIdx.x)"
        for lane in lanes:
            yield f"    {' = '.join(f'{x}_{lane}' for x in arrays)} = real(0)"
            yield f"    if left > {threads * lane}:"
            yield from (f"        {x}_{lane} = load({element_at(x, lane)})" for x in arrays)

    def stores(stored: Sequence[str], value: Callable[[str, int], str]) -> Iterator[str]:
        yield "if whole:"
        for k in range(each):
            values = lanes[k * width : (k + 1) * width]
            for x in stored:
                vector = ", ".join(value(x, lane) for lane in values)
                yield f"    store_vector({vector_at(x, k)}, ({vector}))"
        yield "else:"
        for lane in lanes:
            yield f"    if left > {threads * lane}:"
            for x in stored:
                yield f"        store({element_at(x, lane)}, {value(x, lane)})"

    tile = threads * len(lanes)
    body = [
        "# The tensor that the tile is part of: its length, and where its arrays begin.",
        *PLACE,
        *(f"{x}_at = load_int64(row + {8 * k})" for x, k in columns.items()),
        "g_at = load_int64(gradients + 8 * index)",
        *scalar_lines(job, step, variant),
        "",
        "# A tile goes in vectors of 16 bytes, or, if not all of it does, element by element.",
        f"start = {tile} * tile",
        f"aligned = ({' | '.join(f'{x}_at' for x in arrays)}) & 15 == 0",
        f"whole = aligned and start + {tile} <= n",
        "left = n - start - cuda.threadIdx.x",
        *loads(),
        "",
        *map(stepped, lanes),
        "",
        *unless_skipped(stores(written, lambda x, lane: f"{x}_{lane}"), variant),
        "if zero:",
        *(f"    {line}" for line in stores(["g"], lambda x, lane: "real(0)")),
    ]
    return f"""\
# A block of {threads} threads steps a tile, {len(lanes)} elements each. `rows`, `gradients` and
# `tiles` are the addresses of the tensors, of their gradients' addresses, and of each tile's place;
# 0: there is one tensor. `zero` says whether zeros take the place of the gradients. `clips` is the
# address of a factor for each tensor, which clips its gradient in place of the one in the scalars;
# 0: there is none.
def run(rows, gradients, tiles, zero, clips, {scalars}):
{indented(body)}
"""


def unless_skipped(lines: Iterable[str], variant: Variant) -> list[str]:
    """Lines that store the results of a step, which may turn out to be left out."""
    if not variant.judged:
        return [*lines]
    return ["if not skipped:", *(f"    {line}" for line in lines)]


def indented(lines: Iterable[str]) -> str:
    """Lines as the body of a function."""
    return "\n".join(f"    {line}" if line else "" for line in lines)
