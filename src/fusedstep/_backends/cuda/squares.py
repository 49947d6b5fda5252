"""The CUDA kernel that sums the squares of gradients, as norm.py has them, as the text of a module.

It reads the table of kernels.py, and for each block of sums the index of its row, an int32.
"""

from __future__ import annotations

from functools import cache
from math import ldexp
from types import ModuleType
from typing import Any

import numpy as np

from fusedstep._backends.cuda.formats import FILES
from fusedstep._backends.cuda.kernels import FIRST_BLOCK, PARTS, ROW, SUMS, N
from fusedstep._backends.plan import Held
from fusedstep._compiler import modules
from fusedstep._numerics import norm

TEXT = '''\
"""The CUDA kernel that sums the squares of each block of {dtype} gradients."""

from numba import cuda, float64

from fusedstep._backends.cuda.primitives import abs_float64 as abs
from fusedstep._backends.cuda.primitives import add_float64 as add
{load}
from fusedstep._backends.cuda.primitives import load_int32, load_int64
from fusedstep._backends.cuda.primitives import mul_float64 as mul
from fusedstep._backends.cuda.primitives import store_float64 as store

SIGNATURE = "void(int64, int64, int64)"


# A warp sums a block of {block} elements: thread k is lane k.
def run(rows, gradients, blocks):
    index = load_int32(blocks + 4 * cuda.blockIdx.x)
    row = rows + {row} * index
    n = load_int64(row + {n})
    g_at = load_int64(gradients + 8 * index)
    block = cuda.blockIdx.x - load_int64(row + {first})

    # Each lane sums every {lanes}th element.
    lane = cuda.threadIdx.x
    small, middle, large = float64(0), float64(0), float64(0)
    i = {block} * block + lane
    end = min({block} * (block + 1), n)
    while i < end:
        x = float64({value})
{add}
        i += {lanes}

    # Then the second half of the lanes is added to the first, until one is left.
    sums = cuda.shared.array(({sums}, {lanes}), float64)
    sums[0, lane], sums[1, lane], sums[2, lane] = small, middle, large
    half = {lanes} // 2
    while half:
        cuda.syncthreads()
        if lane < half:
            for k in range({sums}):
                sums[k, lane] = add(sums[k, lane], sums[k, lane + half])
        half //= 2
    if lane == 0:
        at = load_int64(row + {at}) + {sums} * 8 * block
        for k in range({sums}):
            store(at + 8 * k, sums[k, 0])
'''

ADD = {
    "float32": """\
        middle = add(middle, mul(x, x))""",
    "float64": f"""\
        if abs(x) < {norm.SMALL!r}:
            x = mul(x, {ldexp(1.0, norm.UP)!r})
            small = add(small, mul(x, x))
        elif abs(x) > {norm.LARGE!r}:
            x = mul(x, {ldexp(1.0, norm.DOWN)!r})
            large = add(large, mul(x, x))
        else:
            middle = add(middle, mul(x, x))""",
}
"""The lines that add the square of an element to the sums of its lane."""


HALF = """\
from fusedstep._backends.cuda.primitives import float_of, load_uint16
from fusedstep._backends.cuda.scalars import load_{name}"""
"""The imports that read gradients of 16 bits."""


@cache
def module(dtype: np.dtype[Any], held: Held | None = None) -> ModuleType:
    """The module of the kernel for gradients of a dtype: `run`, and its SIGNATURE.

    They are held in a format, or for None as they are.
    """
    name, files = dtype.name, [PARTS]
    load = f"from fusedstep._backends.cuda.primitives import load_{name} as load"
    value = f"load(g_at + {dtype.itemsize} * i)"
    if held is not None:
        name, files = held.format, [*FILES]
        load = HALF.format(name=name)
        value = f"float_of(load_{name}(load_uint16(g_at + 2 * i)))"
    text = TEXT.format(
        dtype=name,
        load=load,
        value=value,
        row=8 * ROW,
        first=8 * FIRST_BLOCK,
        n=8 * N,
        at=8 * SUMS,
        block=norm.BLOCK,
        lanes=norm.LANES,
        sums=norm.SUMS,
        add=ADD[dtype.name],
    )
    return modules.load(f"squares_{name}_cuda", text, *files)
