"""The CUDA kernels: a job's step as the text of a module, and the module as PTX.

A table describes a step to them. Its rows are ROW int64 each: the addresses of p, of up to 8
state arrays, of the moving average and of the gradient's sums of squares, the number of
elements, the row's first tile and its first block of sums. The address of each row's
gradient stands apart, since it changes from step to step. A tile is what one block of
threads steps, WIDE elements a thread; for each tile of the job there is the index of its
row, an int32. So tensors of any size fill the device, and thousands of them are one launch.
For the blocks of sums it is the same, with a warp for each.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fusedstep._backends.plan import MOST_STATES, Job
from fusedstep._compiler import generate
from fusedstep._numerics import norm, variants

PARTS = Path(__file__).with_name("primitives.py")
"""What generated modules are made of, besides their own text."""

P, STATES, EMA, SUMS = 0, 1, 1 + MOST_STATES, 2 + MOST_STATES
N, FIRST, FIRST_BLOCK, ROW = (3 + MOST_STATES + k for k in range(4))
"""The columns of a row, and how many they are."""

WIDE = {4: 4, 8: 2}
"""How many elements of that many bytes are 128 bits, the most that a thread loads at once."""

OPERATORS: generate.Operators = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}

HEAD = '''\
"""The kernel {title}: formulas as fusedstep read them, and one tile of a table of tensors.

Numerics contract: a rule is a sequence of IEEE-754 operations, each rounded to nearest even
in {dtype}, in the order that reference.py writes them.

It is made of fusedstep._backends.cuda.primitives {digest}.
"""

from collections import namedtuple

from numba import cuda
from numpy import {dtype} as real

from fusedstep._backends.cuda.primitives import abs_{dtype} as abs
from fusedstep._backends.cuda.primitives import add_{dtype} as add
from fusedstep._backends.cuda.primitives import device, load_int32, load_int64
from fusedstep._backends.cuda.primitives import div_{dtype} as div
from fusedstep._backends.cuda.primitives import load_{dtype} as load
from fusedstep._backends.cuda.primitives import load_wide_{dtype} as load_wide
from fusedstep._backends.cuda.primitives import mul_{dtype} as mul
from fusedstep._backends.cuda.primitives import sqrt_{dtype} as sqrt
from fusedstep._backends.cuda.primitives import store_{dtype} as store
from fusedstep._backends.cuda.primitives import store_wide_{dtype} as store_wide
from fusedstep._backends.cuda.primitives import sub_{dtype} as sub

SIGNATURE = "void(int64, int64, int64, int64, {types})"

Scalars = namedtuple("Scalars", {names})


'''

RUN = """\
def run(rows, gradients, tiles, zero, {scalars}):
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
"""The kernel that copies {dtype} arrays of any strides.

It is made of fusedstep._backends.cuda.primitives {digest}.
"""

from numba import cuda

from fusedstep._backends.cuda.primitives import load_int64
from fusedstep._backends.cuda.primitives import load_{dtype} as load
from fusedstep._backends.cuda.primitives import store_{dtype} as store

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


SQUARES = '''\
"""The kernel that sums the squares of each block of {dtype} gradients, as norm.py has them.

It is made of fusedstep._backends.cuda.primitives {digest}.
"""

from numba import cuda, float64

from fusedstep._backends.cuda.primitives import abs_float64 as abs
from fusedstep._backends.cuda.primitives import add_float64 as add
from fusedstep._backends.cuda.primitives import load_{dtype} as load
from fusedstep._backends.cuda.primitives import load_int32, load_int64
from fusedstep._backends.cuda.primitives import mul_float64 as mul
from fusedstep._backends.cuda.primitives import store_float64 as store

SIGNATURE = "void(int64, int64, int64)"


# A warp sums a block: thread k is lane k.
def run(rows, gradients, blocks):
    index = load_int32(blocks + 4 * cuda.blockIdx.x)
    row = rows + {row} * index
    block = cuda.blockIdx.x - load_int64(row + {first})
    g = load_int64(gradients + 8 * index)
    lane = cuda.threadIdx.x
    i = {block} * block + lane
    end = min({block} * (block + 1), load_int64(row + {n}))
    small, middle, large = float64(0), float64(0), float64(0)
    while i < end:
        x = float64(load(g + {size} * i))
{add}
        i += {lanes}
    sums = cuda.shared.array(({sums}, {lanes}), float64)
    sums[0, lane], sums[1, lane], sums[2, lane] = small, middle, large
    half = {lanes} // 2
    while half:
        cuda.syncthreads()
        if lane < half:
            for of in range({sums}):
                sums[of, lane] = add(sums[of, lane], sums[of, lane + half])
        half //= 2
    if lane == 0:
        at = load_int64(row + {at}) + {sums} * 8 * block
        for of in range({sums}):
            store(at + 8 * of, sums[of, 0])
'''

ADD_SQUARE = {
    "float32": """\
        middle = add(middle, mul(x, x))""",
    "float64": f"""\
        if abs(x) < {norm.SMALL!r}:
            x = mul(x, {2.0**norm.UP!r})
            small = add(small, mul(x, x))
        elif abs(x) > {norm.LARGE!r}:
            x = mul(x, {2.0**norm.DOWN!r})
            large = add(large, mul(x, x))
        else:
            middle = add(middle, mul(x, x))""",
}
"""What an element adds to the sums of its lane."""


def title(job: Job) -> str:
    return f"{variants.title(job.rule)}_{job.dtype.name}_cuda"


@cache
def module(job: Job) -> ModuleType:
    """The module of a job's kernel: `run`, and its SIGNATURE."""
    return generate.load(title(job), text(job))


def text(job: Job) -> str:
    names = variants.scalars(job.rule)
    head = HEAD.format(
        title=title(job),
        dtype=job.dtype.name,
        digest=generate.digest(PARTS),
        types=", ".join([job.dtype.name] * len(names)),
        names=names,
    )
    roots = variants.roots(job.rule)
    around = head + _run(job, [""] * len(roots))
    functions = generate.functions(roots, "device", OPERATORS, around)
    run = _run(job, [functions.names[root] for root in roots])
    return f"{head}{functions.text}\n\n{run}"


@cache
def copying(dtype: np.dtype[Any]) -> ModuleType:
    """The module of the kernel that copies between strided arrays."""
    text = COPY.format(dtype=dtype.name, digest=generate.digest(PARTS))
    return generate.load(f"copy_{dtype.name}_cuda", text)


@cache
def squares(dtype: np.dtype[Any]) -> ModuleType:
    """The module of the kernel that sums the squares of gradients."""
    text = SQUARES.format(
        dtype=dtype.name,
        digest=generate.digest(PARTS),
        row=8 * ROW,
        first=8 * FIRST_BLOCK,
        n=8 * N,
        at=8 * SUMS,
        size=dtype.itemsize,
        block=norm.BLOCK,
        lanes=norm.LANES,
        sums=norm.SUMS,
        add=ADD_SQUARE[dtype.name],
    )
    return generate.load(f"squares_{dtype.name}_cuda", text)


def _run(job: Job, functions: Sequence[str]) -> str:
    """The kernel itself, which calls functions of these names, in the order of `roots`."""
    size = job.dtype.itemsize
    wide = WIDE[size]
    columns = {"p": P}
    columns |= {f"s{k}": STATES + k for k, letter in enumerate(job.rule.letters) if letter}
    stepped = [*columns]
    if job.rule.averaged:
        columns["ema"] = EMA
    every = ["p", "g", *[*columns][1:]]
    takes_h = ", h" if variants.formula(job.rule).scalars else ""

    def step(lane: int) -> list[str]:
        """The lines for one element."""
        gradient, rule, *average = functions
        p, *states = (f"{letter}_{lane}" for letter in stepped)
        arguments = ", ".join([p, f"{gradient}({p}, g_{lane}, h)", *states])
        lines = [f"{', '.join([p, *states])} = {rule}({arguments}{takes_h})"]
        return lines + [f"ema_{lane} = {name}({p}, ema_{lane}, h)" for name in average]

    def lanes(letter: str) -> str:
        return ", ".join(f"{letter}_{k}" for k in range(wide))

    wide_step = [f"{lanes(letter)} = load_wide({letter} + at)" for letter in every]
    wide_step += [line for lane in range(wide) for line in step(lane)]
    wide_step += [f"store_wide({letter} + at, ({lanes(letter)}))" for letter in columns]
    wide_step += ["if zero:", f"    store_wide(g + at, ({'real(0), ' * wide}))"]
    narrow_step = [f"{letter}_0 = load({letter} + at)" for letter in every]
    narrow_step += step(0)
    narrow_step += [f"store({letter} + at, {letter}_0)" for letter in columns]
    narrow_step += ["if zero:", "    store(g + at, real(0))"]
    return RUN.format(
        scalars=", ".join(f"h_{name}" for name in variants.scalars(job.rule)),
        row=8 * ROW,
        addresses=_lines([f"{x} = load_int64(row + {8 * k})" for x, k in columns.items()], 4),
        n=8 * N,
        first=8 * FIRST,
        wide=wide,
        size=size,
        every=" | ".join(every),
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
