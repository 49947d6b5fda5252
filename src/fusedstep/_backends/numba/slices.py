"""Steps of single slices of a tensor, p[i], for runner.py: what csrc/slices.c is to C.

A slice is elements [width * i, width * (i + 1)) of its row, and the kernel is that of all steps.
Each call goes over all slices that a tensor has touched, in compiled code that no signal cuts
short: a slice and the count of its steps are written by the same call.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disallow-untyped-decorators=false
# mypy: disable-error-code="attr-defined, call-arg, call-overload"

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import types

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.walk import Array
from fusedstep._backends.numba.kept import kept
from fusedstep._backends.numba.primitives import G, call_kernel, compiled
from fusedstep._backends.numba.tiles import N
from fusedstep._backends.slices import Integers, Touched
from fusedstep._compiler.modules import unique
from fusedstep._numerics import norm

BLOCK = norm.BLOCK

NOTHING: Integers = np.empty(0, np.int64)
"""The integers of a `Touched` that has None."""

NO_LINES = np.empty(0, np.int32)

ASKED = ("unscale", "clip", "most")
"""The scalars that a step is asked for, the same for all slices."""


def stepping(
    row: Integers,
    kernel: int,
    scalars: Array,
    names: tuple[str, ...],
    touched: Touched,
    slices: int,
    takes: bool = True,
) -> Call:
    """The call that steps the slices touched of a tensor, and counts their steps.

    `row` describes the tensor, `scalars` has those of its job by these names, and `slices` is how
    many it has. Without `takes` they only take the steps that they have missed.
    """
    table, entries, first, last = np.empty((1, 0, len(names)), scalars.dtype), NO_LINES, 1, 0
    if touched.scalars is not None:
        table, lines, first, last, _ = touched.scalars
        entries = NO_LINES if lines is None else lines
    asked = np.array([names.index(name) for name in ASKED], np.int64)
    return partial(
        _function(_step, scalars.dtype),
        row,
        kernel,
        *_described(touched, slices),
        scalars,
        asked,
        NOTHING if touched.counts is None else touched.counts,
        table,
        entries,
        first,
        last,
        NOTHING if touched.columns is None else touched.columns.ends,
        NOTHING if touched.columns is None else touched.columns.of_runs,
        touched.catches_up,
        takes,
    )


def summing(row: Integers, kernel: int, touched: Touched, slices: int) -> Call:
    """The call that sums the squares of a gradient's blocks, where slices are touched.

    The sums of all others are 0, and are to be so before.
    """
    function = _function(_sum, touched.values.dtype)
    return partial(function, row, kernel, *_described(touched, slices))


def _described(touched: Touched, slices: int) -> tuple[Any, ...]:
    """The slices and their gradients, as compiled code takes them."""
    optional = touched.ids, touched.starts, touched.places
    integers = (NOTHING if each is None else each for each in optional)
    return touched.n(slices), touched.width, *integers, touched.values


@cache
def _function(function: Callable[..., None], dtype: np.dtype[Any]) -> Any:
    """One of the functions below for a dtype, compiled."""
    real = getattr(types, dtype.name)
    numbers = [each for each in globals().items() if isinstance(each[1], int)]  # imported, too
    text = Path(__file__).read_bytes(), repr(numbers).encode()
    column, flag = types.int64[::1], types.boolean
    values = types.Array(real, 1, "C", readonly=True)  # a user's array may be so
    signature = [column, types.int64, types.int64, types.int64, column, column, column, values]
    if function is _step:
        table = real[:, :, ::1], types.int32[::1], types.int64, types.int64
        signature += [real[::1], column, column, *table, column, column, flag, flag]
    name = unique(f"slices{function.__name__}_{dtype.name}", *text)
    return kept(function, name, types.void(*signature))


@compiled
def _add_up(j, width, starts, places, values, total):
    """Put the gradient of the j-th slice into `total`: several are added up in their order."""
    first, last = (starts[j], starts[j + 1]) if starts.size else (j, j + 1)
    for place in range(first, last):
        at = width * (places[place] if places.size else place)
        for i in range(width):
            total[i] = values[at + i] if place == first else total[i] + values[at + i]


def _step(
    row,
    kernel,
    n,
    width,
    ids,
    starts,
    places,
    values,
    scalars,
    asked,
    counts,
    table,
    entries,
    first,
    last,
    ends,
    sets,
    catches_up,
    takes,
):
    """Take the steps that slices have missed, and the one that comes.

    Columns [ends[k - 1], ends[k]) have the scalars of set sets[k].
    """
    runs = max(1, ends.size)
    beside, own = row.copy(), scalars.copy()
    at = beside.ctypes.data
    total, zeros = np.empty(width, values.dtype), np.zeros(width, values.dtype)
    for j in range(n):
        slice_ = ids[j] if ids.size else j
        begin = width * slice_
        if catches_up:
            # Kernels find the gradient of element `begin` where their slice's begins.
            beside[G] = zeros.ctypes.data - begin * zeros.itemsize
            for run in range(runs):
                low = begin + (ends[run - 1] if run else 0)
                high = begin + (ends[run] if ends.size else width)
                lines = table[sets[run] if sets.size else 0]
                for t in range(counts[slice_] + 1, last + 1):
                    call_kernel(kernel, at, low, high, lines[t - first].ctypes.data)
            counts[slice_] = last
        if takes:
            _add_up(j, width, starts, places, values, total)
            beside[G] = total.ctypes.data - begin * total.itemsize
            for run in range(runs):
                low = begin + (ends[run - 1] if run else 0)
                high = begin + (ends[run] if ends.size else width)
                if entries.size or sets.size:
                    line = last + 1 - first
                    if entries.size:
                        line = entries[counts[slice_] + 1 if counts.size else 0]
                    own[:] = table[sets[run] if sets.size else 0, line]
                    for k in asked:
                        own[k] = scalars[k]
                call_kernel(kernel, at, low, high, own.ctypes.data)
            if counts.size:
                counts[slice_] += 1


def _sum(row, kernel, n, width, ids, starts, places, values):
    """Sum the squares of the blocks that slices are in, each as if the rest were zeros."""
    beside = row.copy()
    at = beside.ctypes.data
    total = np.empty(width, values.dtype)
    block, begin, end = np.empty(BLOCK, values.dtype), 0, 0
    for j in range(n):
        slice_ = ids[j] if ids.size else j
        _add_up(j, width, starts, places, values, total)
        for i in range(width):
            element = width * slice_ + i
            if element >= end:
                if end:
                    call_kernel(kernel, at, begin, end, 0)
                block[:] = 0
                begin = element - element % BLOCK
                end = min(begin + BLOCK, row[N])
                beside[G] = block.ctypes.data - begin * block.itemsize
            block[element - begin] = total[i]
    if end:
        call_kernel(kernel, at, begin, end, 0)
