"""The CPU kernel that sums the squares of a gradient, as norm.py has them, compiled by Numba."""

from __future__ import annotations

from functools import cache
from math import ldexp
from pathlib import Path
from typing import Any

import numpy as np

from fusedstep._backends.numba.primitives import READ, SUMS, G
from fusedstep._compiler import modules
from fusedstep._numerics import norm

PARTS = Path(__file__).with_name("primitives.py")
"""The file that generated modules import their parts from."""

TEXT = '''\
"""The CPU kernel that sums the squares of each block of a {dtype} gradient."""

from numba import carray, float64, int64
from numba import {dtype} as real
from numpy import zeros

from fusedstep._backends.numba.primitives import compiled, kernel, pointer


@compiled
def add(lanes, k, x):
{add}


@kernel
def run(row, begin, end, scalars):
    row = carray(pointer(row), {columns}, int64)
    lanes = zeros(({sums}, {lanes}))
    for start in range(begin, end, {block}):
        n = min(end - start, {block})
        g = carray(pointer(row[{g}] + start * {itemsize}), n, real)
        lanes[:] = 0
        whole = n - n % {lanes}
        for i in range(0, whole, {lanes}):
            for k in range({lanes}):
                add(lanes, k, float64(g[i + k]))
        for k in range(n - whole):
            add(lanes, k, float64(g[whole + k]))
        half = {lanes} // 2
        while half:
            for sum_ in range({sums}):
                for k in range(half):
                    lanes[sum_, k] += lanes[sum_, k + half]
            half //= 2
        sums = carray(pointer(row[{at}] + start // {block} * {sums} * 8), {sums}, float64)
        for sum_ in range({sums}):
            sums[sum_] = lanes[sum_, 0]
'''

ADD = {
    "float32": """\
    lanes[1, k] += x * x""",
    "float64": f"""\
    is_small, is_large = abs(x) < {norm.SMALL!r}, abs(x) > {norm.LARGE!r}
    small = x * {ldexp(1.0, norm.UP)!r} if is_small else 0.0
    middle = 0.0 if is_small or is_large else x
    large = x * {ldexp(1.0, norm.DOWN)!r} if is_large else 0.0
    lanes[0, k] += small * small
    lanes[1, k] += middle * middle
    lanes[2, k] += large * large""",
}
"""The lines that add the square of an element to the sums of its lane."""


@cache
def kernel(dtype: np.dtype[Any]) -> Any:
    """The compiled C callback for gradients of a dtype."""
    text = TEXT.format(
        dtype=dtype.name,
        columns=READ,
        sums=norm.SUMS,
        lanes=norm.LANES,
        block=norm.BLOCK,
        g=G,
        at=SUMS,
        itemsize=dtype.itemsize,
        add=ADD[dtype.name],
    )
    return modules.load(f"squares_{dtype.name}", text, PARTS).run
