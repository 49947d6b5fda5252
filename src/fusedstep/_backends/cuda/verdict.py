"""The CUDA kernel that judges a step, as the text of a module.

Where gradients are measured, nobody waits for the result: one block of threads folds their sums,
finds the factor of clipping and whether the step is left out, and writes the record of each job,
from which kernels.py has its scalars. How many steps were left out before the host need not know
either. It sends the scalars of every t that may have come, a line for each, and the device, which
has counted, takes the right one.

Both ends of a step's letter are in pinned memory of the host, which the device reads and writes by
itself, so that neither a copy nor a wait is needed for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from math import ldexp
from types import ModuleType

import numpy as np

from fusedstep._backends.cuda import timetable
from fusedstep._backends.cuda.kernels import KEY, PARTS, SKIPPED, THREADS, VALUES
from fusedstep._backends.cuda.timetable import BOUND
from fusedstep._backends.cuda.totals import FOLDED
from fusedstep._compiler import modules
from fusedstep._numerics import norm

FLOAT32_MAX = float(np.finfo(np.float32).max)

# The words of a letter. What is asked:
SCALE, MAX_NORM = 0, 1
SKIPS = 2
"""1: a step with a gradient that is not finite is left out."""
EACH = 3
"""1: each gradient is clipped by its own norm."""
KNOWN = 4
"""The steps that have been taken; -1: the device knows."""
BASE = 5
"""The steps before the one that the first line is for."""
assert BOUND == BASE + 1  # the largest size of an element, for those who have no lines

SCALE_AT, FOUND_AT = 7, 8
"""The addresses of a float32 each: in the place of the scale, and of what is not 0 if the step is
left out; 0 for none."""

# And what is answered:
NORM, CLIP = 9, 10
LEFT_OUT, TAKEN = 11, 12
"""1 if the step was left out, and the steps that have been taken then."""
BEYOND = 13
"""1 if it was left out because nobody had foreseen it."""
UNFIT = 14
"""From here on, 1 for each tensor whose gradient is not finite."""

# The words of a job: the address of its record, its number of scalars, the bytes of one, and which
# of them are asked for by the step; and where in the letter its lines begin, or what timetable.py
# has in that place.
RECORD, COUNT, SIZE, AT_UNSCALE, AT_CLIP, LINES, JOB = range(7)

LANES = 32
"""Threads that write one record."""

PLACE, LARGE = 0, 1
"""The words of a tensor: its place in the table, and whether it is float64."""

TEXT = f'''\
"""The CUDA kernel that judges a step by the sums of squares of its gradients."""

from math import nan

from numba import cuda, float32, float64, int64

from fusedstep._backends.cuda.primitives import abs_float64 as abs
from fusedstep._backends.cuda.primitives import add_float64 as add
from fusedstep._backends.cuda.primitives import device, load_float32, load_int64
from fusedstep._backends.cuda.primitives import div_float64 as div
from fusedstep._backends.cuda.primitives import load_float64 as load
from fusedstep._backends.cuda.primitives import mul_float64 as mul
from fusedstep._backends.cuda.primitives import read_int64, store_float32, store_int64
from fusedstep._backends.cuda.primitives import sqrt_float64 as sqrt
from fusedstep._backends.cuda.primitives import store_float64 as store
from fusedstep._backends.cuda.primitives import sub_float64 as sub

SIGNATURE = "void({{integers}})"


@device
def norm_of(small, middle, large):
    if large > 0:
        down = mul(mul(middle, {ldexp(1.0, norm.DOWN)!r}), {ldexp(1.0, norm.DOWN)!r})
        return mul(sqrt(add(large, down)), {ldexp(1.0, -norm.DOWN)!r})
    if middle == 0:
        return mul(sqrt(small), {ldexp(1.0, -norm.UP)!r})
    return sqrt(add(middle, mul(mul(small, {ldexp(1.0, -norm.UP)!r}), {ldexp(1.0, -norm.UP)!r})))


@device
def is_finite(small, middle, large):
    return abs(add(add(small, middle), large)) <= {sys.float_info.max!r}


@device
def over(x, y):
    return div(x, y)


@device
def times(x, y):
    return mul(x, y)


@device
def factor(norm, most):
    return float64(1) if norm <= most or most > {sys.float_info.max!r} else div(most, norm)


# One block of threads. `sums` has {norm.SUMS} numbers for each of `count` blocks of gradients,
# `folded` room for them, and `totals` those of each tensor, or it is 0. `clips` gets the factor of
# each tensor, in the order of the table. `taken` is the address of the count of steps.
def run({{names}}):
    thread = cuda.threadIdx.x
    empty = count == 0
{{folded}}
    small = float64(0) if empty else load(sums)
    middle = float64(0) if empty else load(sums + 8)
    large = float64(0) if empty else load(sums + 16)

    scale, scale_at = load(letter + {8 * SCALE}), load_int64(letter + {8 * SCALE_AT})
    if scale_at:
        scale = float64(load_float32(scale_at))
    found_at = load_int64(letter + {8 * FOUND_AT})
    left_out = found_at != 0 and load_float32(found_at) != 0
    unscale = over(float64(1), scale)
    most = load(letter + {8 * MAX_NORM})
    norm = over(norm_of(small, middle, large), scale)
    finite = is_finite(small, middle, large)
    skips, each = load_int64(letter + {8 * SKIPS}), load_int64(letter + {8 * EACH})

    # What each tensor's own sums say. No element is larger than their norm.
    looks = skips != 0 and (unscale > 1.0 or not finite)
    rounded = float64(float32(unscale))
    unfit, least, unknown = 0, float64(1), 0
    k = thread
    while k < tensors:
        own_small = load(totals + {8 * norm.SUMS} * k)
        own_middle = load(totals + {8 * norm.SUMS} * k + 8)
        own_large = load(totals + {8 * norm.SUMS} * k + 16)
        own = norm_of(own_small, own_middle, own_large)
        fits = is_finite(own_small, own_middle, own_large)
        if fits and unscale > 1.0:
            if load_int64(kinds + 16 * k + {8 * LARGE}):
                fits = times(own, unscale) <= {sys.float_info.max!r}
            else:
                fits = times(own, rounded) <= {FLOAT32_MAX!r}
        store_int64(letter + {8 * UNFIT} + 8 * k, 1 if looks and not fits else 0)
        if looks and not fits:
            unfit += 1
        if each:
            clip = factor(over(own, scale), most)
            store(clips + 8 * load_int64(kinds + 16 * k + {8 * PLACE}), clip)
            if clip != clip:
                unknown += 1
            elif clip < least:
                least = clip
        k += {{threads}}

    # What all of them say together.
    counts = cuda.shared.array((2, {{threads}}), int64)
    smallest = cuda.shared.array({{threads}}, float64)
    counts[0, thread], counts[1, thread], smallest[thread] = unfit, unknown, least
    half = {{threads}} // 2
    while half:
        cuda.syncthreads()
        if thread < half:
            counts[0, thread] += counts[0, thread + half]
            counts[1, thread] += counts[1, thread + half]
            smallest[thread] = min(smallest[thread], smallest[thread + half])
        half //= 2
    cuda.syncthreads()
    known, before = load_int64(letter + {8 * KNOWN}), read_int64(taken)
    before = before if known < 0 else known
    late = False
{{late}}
    skipped = late or left_out or counts[0, 0] > 0
    clip = factor(norm, most)
    shown = clip
    if each:
        clip = float64(1)
        shown = nan if counts[1, 0] > 0 else smallest[0]
    cuda.syncthreads()
    if thread == 0:
        after = before if skipped else before + 1
        store_int64(taken, after)
        store(letter + {8 * NORM}, norm)
        store(letter + {8 * CLIP}, float64(1) if skipped else float64(shown))
        store_int64(letter + {8 * LEFT_OUT}, 1 if skipped else 0)
        store_int64(letter + {8 * TAKEN}, after)
        store_int64(letter + {8 * BEYOND}, 1 if late else 0)

    # The record of each job: its scalars at this t, each by a thread of {{lanes}}.
    j, lanes = thread // {{lanes}}, cuda.blockDim.x // {{groups}}
    while j < n_jobs:
        job = jobs + {{job}} * j
        record, size = load_int64(job + {8 * RECORD}), load_int64(job + {8 * SIZE})
        n, k = load_int64(job + {8 * COUNT}), thread % {{lanes}}
{{line}}
        if k == 0:
            store_int64(record + {SKIPPED}, 1 if skipped else 0)
            store_int64(record + {KEY}, load_int64(key_at))
        while k < n:
{{scalar}}
            if k == load_int64(job + {8 * AT_UNSCALE}):
                x = unscale
            if k == load_int64(job + {8 * AT_CLIP}):
                x = clip
            if size == 4:
                store_float32(record + {VALUES} + 4 * k, float32(x))
            else:
                store(record + {VALUES} + 8 * k, x)
            k += lanes
        j += {{groups}}
'''

LINE = f"""\
line = before - load_int64(letter + {8 * BASE})
key_at = letter + 8 * (load_int64(job + {8 * LINES}) + line * (n + 1))""".splitlines()
"""The lines by which a job's line in a letter is found, and its key."""

SCALAR = ["x = load(key_at + 8 + 8 * k)"]
"""The line by which scalar k of it is read."""

NO_LINES: list[str] = []

NAMES = (
    *("letter", "sums", "folded", "count", "totals", "kinds", "tensors", "jobs", "n_jobs"),
    *("taken", "clips"),
)
"""The arguments of the kernel."""


@cache
def module(threads: int = THREADS, foreseen: bool = False) -> ModuleType:
    """The module of the kernel, for a block of so many threads: `run`, and its SIGNATURE.

    Jobs are in the letter, or foreseen, in a timetable.
    """
    lanes = min(threads, LANES)
    late, line, scalar, job = NO_LINES, LINE, SCALAR, JOB
    if foreseen:
        late, line, scalar = timetable.LATE, timetable.LINE, timetable.SCALAR
        job = timetable.JOB
    text = TEXT.format(
        threads=threads,
        integers=", ".join(["int64"] * len(NAMES)),
        names=", ".join(NAMES),
        folded=indented(FOLDED, 4),
        late=indented(late, 4),
        line=indented(line, 8),
        scalar=indented(scalar, 12),
        job=8 * job,
        lanes=lanes,
        groups=threads // lanes,
    )
    return modules.load(f"verdict_cuda{'_foreseen' if foreseen else ''}", text, PARTS)


def indented(lines: Iterable[str], by: int) -> str:
    """Lines of a text, further to the right."""
    return "\n".join(f"{' ' * by}{line}" for line in lines)
