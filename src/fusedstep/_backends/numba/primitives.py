"""Parts of the CPU kernels that Numba compiles: the columns of a row, decorators, memory."""

# mypy: allow-untyped-defs

from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

from fusedstep._backends.numba.kept import Kept
from fusedstep._backends.plan import MOST_STATES

# The columns of `fs_row` in csrc/api.h that kernels read; the runners put more behind them.
P, G, STATES, EMA, SUMS, READ = 0, 1, 2, 2 + MOST_STATES, 3 + MOST_STATES, 4 + MOST_STATES

compiled = njit(error_model="numpy")
"""Decorator of a kernel's functions. Division by zero is IEEE's, not an exception."""


class kernel(CFunc):
    """Decorator of a kernel: it becomes an `fs_kernel` of csrc/api.h, with addresses as integers.

    Its module has no other kernel, and its name says what the module holds.
    """

    def __init__(self, function):
        signature = (types.int64,) * 4, types.void
        super().__init__(function, signature, locals={}, options={"error_model": "numpy"})
        self._cache = Kept(function.__module__)
        self.compile()


@intrinsic
def pointer(typing_context, address):
    """The memory at an address."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate
