"""The CUDA kernels: a job's step as the text of a module, and the module as PTX.

A table describes a step to them. Its rows are ROW int64 each: the addresses of p and of up
to 8 state arrays, the number of elements, and the row's first tile. The address of each
row's gradient stands apart, since it changes from step to step. A tile is what one block of
threads steps, WIDE elements a thread; for each tile of the job there is the index of its
row, an int32. So tensors of any size fill the device, and thousands of them are one launch.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from fusedstep.backends import formulas, generate
from fusedstep.plan import MOST_STATES, Job

P, STATES, N, FIRST = 0, 1, 1 + MOST_STATES, 2 + MOST_STATES
ROW = 3 + MOST_STATES
"""The columns of a row, and how many they are."""

WIDE = {4: 4, 8: 2}
"""How many elements of that many bytes are 128 bits, the most that a thread loads at once."""

OPERATORS: generate.Operators = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}

HEAD = '''\
"""The kernel {title}: formulas as fusedstep read them, and one tile of a table of tensors.

Numerics contract: a rule is a sequence of IEEE-754 operations, each rounded to nearest even
in {dtype}, in the order that reference.py writes them.

It is made of fusedstep.backends.gpu {digest}.
"""

from collections import namedtuple

from numba import cuda
from numpy import {dtype} as real

from fusedstep.backends.gpu import abs_{dtype} as abs
from fusedstep.backends.gpu import add_{dtype} as add
from fusedstep.backends.gpu import device, load_int32, load_int64
from fusedstep.backends.gpu import div_{dtype} as div
from fusedstep.backends.gpu import load_{dtype} as load
from fusedstep.backends.gpu import load_wide_{dtype} as load_wide
from fusedstep.backends.gpu import mul_{dtype} as mul
from fusedstep.backends.gpu import sqrt_{dtype} as sqrt
from fusedstep.backends.gpu import store_{dtype} as store
from fusedstep.backends.gpu import store_wide_{dtype} as store_wide
from fusedstep.backends.gpu import sub_{dtype} as sub

SIGNATURE = "void(int64, int64, int64, {types})"

Scalars = namedtuple("Scalars", {names})


'''

RUN = """\
def run(rows, gradients, tiles, {scalars}):
    h = Scalars({scalars})
    index = load_int32(tiles + 4 * cuda.blockIdx.x)
    row = rows + {row} * index
    g = load_int64(gradients + 8 * index)
{addresses}
    n = load_int64(row + {n})
    start = (cuda.blockIdx.x - load_int64(row + {first})) * ({wide} * cuda.blockDim.x)
    end = min(start + {wide} * cuda.blockDim.x, n)
    # [start, whole) in 128 bits per thread and array, [whole, end) one element at a time.
    whole = end & -{wide} if ({every}) & 15 == 0 else start
    i = start + {wide} * cuda.threadIdx.x
    if i < whole:
        at = {size} * i
{wide_step}
    i = whole + cuda.threadIdx.x
    for _ in range({wide}):
        if i < end:
            at = {size} * i
{narrow_step}
        i += cuda.blockDim.x
"""


COPY = '''\
"""The kernel that copies {dtype} arrays of any strides, made of fusedstep.backends.gpu {digest}."""

from numba import cuda

from fusedstep.backends.gpu import load_int64
from fusedstep.backends.gpu import load_{dtype} as load
from fusedstep.backends.gpu import store_{dtype} as store

SIGNATURE = "void(int64, int64, int64, int64, int64)"


# Of each axis `axes` has the length, the stride of `to` and that of `source`; the last axis
# comes first. A thread copies one of n elements.
def run(axes, count, to, source, n):
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < n:
        for axis in range(count):
            length = load_int64(axes + 24 * axis)
            rest = i // length
            k = i - rest * length
            to += k * load_int64(axes + 24 * axis + 8)
            source += k * load_int64(axes + 24 * axis + 16)
            i = rest
        store(to, load(source))
'''


def title(job: Job) -> str:
    return f"{formulas.title(job.rule)}_{job.dtype.name}_cuda"


@cache
def module(job: Job) -> ModuleType:
    """The module of a job's kernel: `run`, and its SIGNATURE."""
    return generate.load(title(job), text(job))


def text(job: Job) -> str:
    rule, gradient = formulas.formula(job.rule), formulas.gradient()
    names = formulas.scalars(job.rule)
    head = HEAD.format(
        title=title(job),
        dtype=job.dtype.name,
        digest=generate.digest("gpu.py"),
        types=", ".join([job.dtype.name] * len(names)),
        names=names,
    )
    around = head + _run(job, "", "")
    functions = generate.functions([gradient, rule], "device", OPERATORS, around)
    run = _run(job, functions.names[rule], functions.names[gradient])
    return f"{head}{functions.text}\n\n{run}"


@cache
def copying(dtype: np.dtype[Any]) -> ModuleType:
    """The module of the kernel that copies between strided arrays."""
    text = COPY.format(dtype=dtype.name, digest=generate.digest("gpu.py"))
    return generate.load(f"copy_{dtype.name}_cuda", text)


def _run(job: Job, rule: str, gradient: str) -> str:
    size = job.dtype.itemsize
    wide = WIDE[size]
    columns = {"p": P}
    columns |= {f"s{k}": STATES + k for k, letter in enumerate(job.rule.letters) if letter}
    p, *states = columns
    letters = [p, "g", *states]
    takes_h = ", h" if formulas.formula(job.rule).scalars else ""

    def call(p: str, g: str, *states: str) -> str:
        return f"{rule}({', '.join([p, f'{gradient}({p}, {g}, h)', *states])}{takes_h})"

    def lanes(letter: str) -> str:
        return ", ".join(f"{letter}_{k}" for k in range(wide))

    wide_step = [f"{lanes(letter)} = load_wide({letter} + at)" for letter in letters]
    wide_step += [
        f"{', '.join(f'{letter}_{k}' for letter in columns)} = "
        + call(*(f"{letter}_{k}" for letter in letters))
        for k in range(wide)
    ]
    wide_step += [f"store_wide({letter} + at, ({lanes(letter)}))" for letter in columns]
    narrow_step = [f"{letter}_0 = load({letter} + at)" for letter in letters]
    narrow_step += [
        f"{', '.join(f'{letter}_0' for letter in columns)} = "
        + call(*(f"{letter}_0" for letter in letters))
    ]
    narrow_step += [f"store({letter} + at, {letter}_0)" for letter in columns]
    return RUN.format(
        scalars=", ".join(f"h_{name}" for name in formulas.scalars(job.rule)),
        row=8 * ROW,
        addresses=_lines([f"{x} = load_int64(row + {8 * k})" for x, k in columns.items()], 4),
        n=8 * N,
        first=8 * FIRST,
        wide=wide,
        size=size,
        every=" | ".join(letters),
        wide_step=_lines(wide_step, 8),
        narrow_step=_lines(narrow_step, 12),
    )


def _lines(lines: Sequence[str], indent: int) -> str:
    return textwrap.indent("\n".join(lines), " " * indent)


def ptx(module: ModuleType, cc: tuple[int, int]) -> str:
    """A module's kernel as PTX for a compute capability. No device is needed.

    It has the module's name there, in place of the long one that Numba gives it.
    """
    from numba import cuda

    compiled, _ = cuda.compile_ptx(module.run, module.SIGNATURE, cc=cc)
    found = re.search(r"\.visible \.entry (\w+)\(", compiled)
    assert found is not None
    return str(compiled).replace(found[1], module.__name__)


def types(module: ModuleType) -> list[str]:
    """Of a kernel's arguments."""
    return re.findall(r"(\w+)[,)]", module.SIGNATURE)
