"""The CUDA kernels that fold the sums of blocks by the tree of norm.py, as the text of modules.

`fold` is one level of the tree over the whole device, for sums too many for one block of threads.
`totals` is the rest of it: each block of threads folds the sums of one tensor.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

from fusedstep._backends.cuda.kernels import PARTS
from fusedstep._compiler import modules
from fusedstep._numerics import norm

MANY = 8192
"""Sums from which on a level of the tree is a launch of its own."""

FOLD = f'''\
"""The CUDA kernel that folds sums once."""

from numba import cuda

from fusedstep._backends.cuda.primitives import add_float64 as add
from fusedstep._backends.cuda.primitives import load_float64 as load
from fusedstep._backends.cuda.primitives import store_float64 as store

SIGNATURE = "void(int64, int64, int64)"


# Of `count` sums of {norm.SUMS} numbers each, the second half is added to the first.
def run(sums, folded, count):
    half = (count + 1) >> 1
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if i < {norm.SUMS} * half:
        x = load(sums + 8 * i)
        if i < {norm.SUMS} * (count - half):
            x = add(x, load(sums + 8 * ({norm.SUMS} * half + i)))
        store(folded + 8 * i, x)
'''

FOLDED = f"""\
while count > 1:
    half = (count + 1) >> 1
    i = cuda.threadIdx.x
    while i < {norm.SUMS} * half:
        x = load(sums + 8 * i)
        if i < {norm.SUMS} * (count - half):
            x = add(x, load(sums + 8 * ({norm.SUMS} * half + i)))
        store(folded + 8 * i, x)
        i += cuda.blockDim.x
    cuda.syncthreads()
    sums = folded
    count = half""".splitlines()
"""The lines by which a block of threads folds sums to one, into memory for half of them."""

TOTALS = '''\
"""The CUDA kernel that folds the sums of each tensor to its total."""

from numba import cuda, float64

from fusedstep._backends.cuda.primitives import add_float64 as add
from fusedstep._backends.cuda.primitives import load_float64 as load
from fusedstep._backends.cuda.primitives import load_int64
from fusedstep._backends.cuda.primitives import store_float64 as store

SIGNATURE = "void(int64, int64, int64, int64)"


# Block k of threads folds the sums from starts[k] to starts[k + 1] into total k.
def run(sums, folded, starts, totals):
    start = load_int64(starts + 8 * cuda.blockIdx.x)
    count = load_int64(starts + 8 * cuda.blockIdx.x + 8) - start
    empty = count == 0
    sums += {size} * start
    folded += {size} * start
{lines}
    k = cuda.threadIdx.x
    while k < {sums}:
        at = totals + {size} * cuda.blockIdx.x + 8 * k
        store(at, float64(0) if empty else load(sums + 8 * k))
        k += cuda.blockDim.x
'''


@cache
def fold() -> ModuleType:
    """The module of the kernel of one level: `run`, and its SIGNATURE."""
    return modules.load("fold_cuda", FOLD, PARTS)


@cache
def totals() -> ModuleType:
    """The module of the kernel of all levels, tensor by tensor: `run`, and its SIGNATURE."""
    lines = "\n".join(f"    {line}" for line in FOLDED)
    text = TOTALS.format(lines=lines, size=8 * norm.SUMS, sums=norm.SUMS)
    return modules.load("totals_cuda", text, PARTS)
