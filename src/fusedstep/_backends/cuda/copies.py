"""The CUDA kernel that copies between arrays of any strides, as the text of a module."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from fusedstep._backends.cuda.kernels import PARTS
from fusedstep._compiler import modules

TEXT = '''\
"""The CUDA kernel that copies {dtype} arrays of any strides."""

from numba import cuda

from fusedstep._backends.cuda.primitives import load_int64
from fusedstep._backends.cuda.primitives import load_{dtype} as load
from fusedstep._backends.cuda.primitives import store_{dtype} as store

SIGNATURE = "void(int64, int64, int64, int64, int64)"


# A thread copies one of n elements. For each axis, the last one first, `axes` has the length,
# the stride of `to` and that of `source`.
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


@cache
def module(dtype: np.dtype[Any]) -> ModuleType:
    """The module of the kernel for a dtype: `run`, and its SIGNATURE.

    What is neither float32 nor float64 is copied as integers of its width.
    """
    floats = dtype.kind == "f" and dtype.itemsize >= 4
    name = dtype.name if floats else f"uint{8 * dtype.itemsize}"
    return modules.load(f"copy_{name}_cuda", TEXT.format(dtype=name), PARTS)
