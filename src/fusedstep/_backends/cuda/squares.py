"""The CUDA kernel that sums the squares of gradients, as norm.py has them, as the text of a module.

It reads the table of kernels.py, and for each block of sums its place, as for a tile.
"""

from __future__ import annotations

from functools import cache
from math import ldexp
from types import ModuleType
from typing import Any

import numpy as np

from fusedstep._backends.cuda.formats import FILES
from fusedstep._backends.cuda.kernels import PARTS, PLACE, SUMS, indented
from fusedstep._backends.plan import Held
from fusedstep._compiler import modules
from fusedstep._numerics import norm

LOADS = 16
"""Elements that a lane loads before it adds the first of them: one at a time would keep too few
bytes in flight. Zeros in the place of those beyond the end change no sum."""

TEXT = '''\
"""The CUDA kernel that sums the squares of each block of {dtype} gradients."""

from numba import cuda, float64

from fusedstep._backends.cuda.primitives import abs_float64 as abs
from fusedstep._backends.cuda.primitives import add_float64 as add
{load}
from fusedstep._backends.cuda.primitives import load_int64
from fusedstep._backends.cuda.primitives import mul_float64 as mul
from fusedstep._backends.cuda.primitives import store_float64 as store

SIGNATURE = "void(int64, int64, int64)"


# A warp sums a block of {block} elements: thread k is lane k. `tiles` has each block's place, as
# that of a tile in kernels.py.
def run(rows, gradients, tiles):
{place}
    g_at = load_int64(gradients + 8 * index)

    # Each lane sums every {lanes}th element.
    lane = cuda.threadIdx.x
    small, middle, large = float64(0), float64(0), float64(0)
    i = {block} * tile + lane
    end = min({block} * (tile + 1), n)
    while i < end:
{loads}
{adds}
        i += {step}

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
        at = load_int64(row + {at}) + {sums} * 8 * tile
        for k in range({sums}):
            store(at + 8 * k, sums[k, 0])
'''

ADD = {
    "float32": """\
        middle = add(middle, mul(x_{k}, x_{k}))""",
    "float64": f"""\
        if abs(x_{{k}}) < {norm.SMALL!r}:
            x = mul(x_{{k}}, {ldexp(1.0, norm.UP)!r})
            small = add(small, mul(x, x))
        elif abs(x_{{k}}) > {norm.LARGE!r}:
            x = mul(x_{{k}}, {ldexp(1.0, norm.DOWN)!r})
            large = add(large, mul(x, x))
        else:
            middle = add(middle, mul(x_{{k}}, x_{{k}}))""",
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
    name, size, files = dtype.name, dtype.itemsize, [PARTS]
    load = f"from fusedstep._backends.cuda.primitives import load_{name} as load"
    value = "load(g_at + {size} * (i + {after}))"
    if held is not None:
        name, size, files = held.format, 2, [*FILES]
        load = HALF.format(name=name)
        value = f"float_of(load_{name}(load_uint16(g_at + {{size}} * (i + {{after}}))))"
    loads = []
    for k in range(LOADS):
        loads.append(f"        x_{k} = float64(0)")
        loads.append(f"        if i + {norm.LANES * k} < end:")
        loaded = value.format(size=size, after=norm.LANES * k)
        loads.append(f"            x_{k} = float64({loaded})")
    text = TEXT.format(
        dtype=name,
        load=load,
        place=indented(PLACE),
        loads="\n".join(loads),
        adds="\n".join(ADD[dtype.name].format(k=k) for k in range(LOADS)),
        step=LOADS * norm.LANES,
        at=8 * SUMS,
        block=norm.BLOCK,
        lanes=norm.LANES,
        sums=norm.SUMS,
    )
    return modules.load(f"squares_{name}_cuda", text, *files)
