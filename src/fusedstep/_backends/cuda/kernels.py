"""The CUDA kernel of a job's step, as the text of a module.

A table describes a step to it. Its rows are ROW int64 each: the addresses of p, of up to 8
state arrays, of the moving average and of the gradient's sums of squares, the number of
elements, the row's first tile and its first block of sums. The address of each row's
gradient stands apart, since it changes from step to step. A tile is what one block of
threads steps, a vector of 16 bytes for each thread and array; for each tile of the job there
is the index of its row, an int32. So tensors of any size fill the device, and thousands of
them are one launch. squares.py has a kernel over the same table, and a list of blocks of sums.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from textwrap import fill
from types import ModuleType

from fusedstep._backends.plan import MOST_STATES, Job
from fusedstep._compiler import generate, modules
from fusedstep._compiler.formula import Formula
from fusedstep._numerics import variants

PARTS = Path(__file__).with_name("primitives.py")
"""The file that generated modules import their parts from."""

P, STATES, EMA, SUMS = 0, 1, 1 + MOST_STATES, 2 + MOST_STATES
N, FIRST, FIRST_BLOCK, ROW = (3 + MOST_STATES + k for k in range(4))
"""The columns of a row, and their number."""

LANES = {4: 4, 8: 2}
"""The elements of a vector, by the bytes of one: a thread loads 16 bytes at most at once."""

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
from fusedstep._backends.cuda.primitives import device, load_float64, load_int32, load_int64
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
SIGNATURE = "void(int64, int64, int64, int64, int64, UniTuple({{dtype}}, {{count}}))"

Scalars = namedtuple("Scalars", "{{names}}")


"""


def title(job: Job) -> str:
    return f"{variants.title(job.rule)}_{job.dtype.name}_cuda"


@cache
def module(job: Job) -> ModuleType:
    """The module of a job's kernel: `run`, and its SIGNATURE."""
    return modules.load(title(job), text(job), PARTS)


def text(job: Job) -> str:
    """The text of that module."""
    step = variants.step(job.rule)
    return module_text(job, step, title(job), HEAD, _kernel(job, step))


def module_text(job: Job, step: Formula, title: str, head: str, kernel: str) -> str:
    """The text of a kernel's module: its head, what is done to one element, and the kernel."""
    filled = head.format(
        title=title,
        dtype=job.dtype.name,
        count=len(step.scalars),
        names=" ".join(step.scalars),
    )
    functions = generate.functions(step, "device", OPERATORS, head)
    return f"{filled}{functions}\n\n{kernel}"


def _kernel(job: Job, step: Formula) -> str:
    """The text of the kernel, which steps one tile.

    Of an array m it has the address as `m_at`, and the elements of a vector as `m_0`, `m_1`
    and so on. None of the kernel's other names end like that, so the arrays of a custom rule
    may be called as they like.
    """
    size = job.dtype.itemsize
    lanes = range(LANES[size])
    width = len(lanes)
    arrays = step.variables
    written = [array for array in arrays if array != "g"]
    slots = [STATES + k for k, letter in enumerate(job.rule.letters) if letter]
    columns = dict(zip(written, [P, *slots, EMA], strict=False))

    at_clip = step.scalars.index("clip")
    scalars = [f"scalars[{k}]" for k in range(len(step.scalars))]
    scalars[at_clip] = "clip"

    def vector(array: str) -> str:
        return ", ".join(f"{array}_{lane}" for lane in lanes)

    def stepped(lane: int) -> str:
        results = ", ".join(f"{array}_{lane}" for array in written)
        return f"{results} = step({', '.join(f'{array}_{lane}' for array in arrays)}, h)"

    return f"""\
# A block of threads steps a tile: {width} elements a thread. `rows`, `gradients` and `tiles` are
# the addresses of the tensors, of their gradients' addresses, and of each tile's row number.
# `zero` says whether zeros take the place of the gradients. `clips` is the address of a factor for
# each tensor, which clips its gradient in place of the one in the scalars; 0: there is none.
def run(rows, gradients, tiles, zero, clips, scalars):
    # The tensor that the tile is part of: its length, and where its arrays begin.
    index = load_int32(tiles + 4 * cuda.blockIdx.x)
    row = rows + {8 * ROW} * index
    n = load_int64(row + {8 * N})
    {_lines(4, (f"{x}_at = load_int64(row + {8 * k})" for x, k in columns.items()))}
    g_at = load_int64(gradients + 8 * index)
    clip = real(load_float64(clips + 8 * index)) if clips else scalars[{at_clip}]
    h = Scalars(
{fill(", ".join(scalars), 100, initial_indent=" " * 8, subsequent_indent=" " * 8)}
    )

    # The tile is [start, end) of it. Of that [start, whole) goes in vectors of 16 bytes.
    tile = cuda.blockIdx.x - load_int64(row + {8 * FIRST})
    start = tile * ({width} * cuda.blockDim.x)
    end = min(start + {width} * cuda.blockDim.x, n)
    aligned = ({" | ".join(f"{x}_at" for x in arrays)}) & 15 == 0
    whole = end & -{width} if aligned else start

    i = start + {width} * cuda.threadIdx.x
    if i < whole:
        at = {size} * i
        {_lines(8, (f"{vector(x)} = load_vector({x}_at + at)" for x in arrays))}
        {_lines(8, map(stepped, lanes))}
        {_lines(8, (f"store_vector({x}_at + at, ({vector(x)}))" for x in written))}
        if zero:
            store_vector(g_at + at, ({", ".join(["real(0)"] * width)}))

    # And [whole, end) goes one element at a time.
    i = whole + cuda.threadIdx.x
    for _ in range({width}):
        if i < end:
            at = {size} * i
            {_lines(12, (f"{x}_0 = load({x}_at + at)" for x in arrays))}
            {stepped(0)}
            {_lines(12, (f"store({x}_at + at, {x}_0)" for x in written))}
            if zero:
                store(g_at + at, real(0))
        i += cuda.blockDim.x
"""


def _lines(indent: int, lines: Iterable[str]) -> str:
    """Lines of a block whose first is indented already."""
    return ("\n" + " " * indent).join(lines)
