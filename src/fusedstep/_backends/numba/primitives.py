"""Parts of the CPU kernels that Numba compiles: the columns of a row, decorators, memory."""

# mypy: allow-untyped-defs, allow-untyped-calls

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


def _calling(result, count):
    """An intrinsic that calls the function at an address with so many integers."""

    def generate(context, builder, signature, arguments):
        function, *rest = arguments
        integer = ir.IntType(64)
        kind = ir.FunctionType(
            ir.VoidType() if result is types.void else integer, [integer] * count
        )
        returned = builder.call(builder.inttoptr(function, kind.as_pointer()), rest)
        return context.get_dummy_value() if result is types.void else returned

    return result(*(types.int64,) * (1 + count)), generate


@intrinsic
def call_kernel(typing_context, kernel, row, begin, end, scalars):
    """Call the kernel at an address."""
    return _calling(types.void, 4)


@intrinsic
def call_load(typing_context, load, first, second, at, n, tile):
    """Call the function that loads a format, see tiles.py."""
    return _calling(types.int64, 5)


@intrinsic
def call_store(typing_context, store, values, first, second, at, n, random):
    """Call the function that stores a format, see tiles.py."""
    return _calling(types.void, 6)
