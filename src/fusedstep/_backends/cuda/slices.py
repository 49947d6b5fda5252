"""The CUDA kernels that step single slices of a tensor, p[i], as the text of modules.

A thread has one element of one slice that is touched. It adds up the gradients of its slice in
the order in which they stand, and takes the steps that the slice has missed before its own: so
each element is read and written once, however many steps that is. What is the slices' own comes
in arrays of int64, whose address is 0 where all slices have the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from textwrap import fill
from types import ModuleType

import numpy as np

from fusedstep._arrays.dtypes import HALVES, compute_dtype
from fusedstep._backends.cuda.formats import FILES
from fusedstep._backends.cuda.kernels import IMPORTS, OPERATORS
from fusedstep._backends.plan import Job
from fusedstep._compiler import generate, modules
from fusedstep._numerics import variants

ASKED = ("unscale", "clip", "most")
"""The scalars that a step is asked for, the same for all slices."""

SHARED = ("values", "n", "width", "ids", "starts", "places")
"""The arguments of both kernels, before their own: gradients, elements, and where they are."""

MISSED = ("table", "until", "of_set", "missed", "lines", "sets", "takes")
"""Further arguments of a step, behind the addresses of the arrays that it writes."""

HALF = """\
from fusedstep._backends.cuda.primitives import float_of, load_uint16
from fusedstep._backends.cuda.scalars import load_{name}
"""
"""The imports that read gradients of 16 bits."""

FOUND = """\
    e = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    if e < n:
        # The element is the k-th of the j-th slice that is touched, whose number is `which`.
        j = e // width
        k = e - j * width
        which = load_int64(ids + 8 * j) if ids else j
        i = which * width + k\
"""

SUMMED = """\
place = load_int64(starts + 8 * j) if starts else j
last = load_int64(starts + 8 * j + 8) if starts else j + 1
i = (load_int64(places + 8 * place) if places else place) * width + k
g_0 = {value}
for other in range(place + 1, last):
    i = (load_int64(places + 8 * other) if places else other) * width + k
    g_0 = add(g_0, {value})\
"""
"""The lines that add up the gradients of an element."""

GATHER = '''\
"""The CUDA kernel that puts {title} gradients of slices into a whole one of {dtype}."""

from numba import cuda

from fusedstep._backends.cuda.primitives import add_{dtype} as add
from fusedstep._backends.cuda.primitives import load_int64
from fusedstep._backends.cuda.primitives import load_{dtype} as load
from fusedstep._backends.cuda.primitives import store_{dtype} as store
{imports}
SIGNATURE = "void({integers})"


def run({names}):
{found}
        to = whole + {size} * i
        {summed}
        store(to, g_0)
'''


def _value(half: str | None, size: int) -> str:
    """The expression that loads an element of the gradients."""
    if half is None:
        return f"load(values + {size} * i)"
    return f"float_of(load_{half}(load_uint16(values + 2 * i)))"


def _summed(half: str | None, size: int, indent: int) -> str:
    lines = SUMMED.format(value=_value(half, size)).splitlines()
    return ("\n" + " " * indent).join(lines)


def _imports(half: str | None) -> str:
    return "" if half is None else HALF.format(name=half)


@cache
def gathering(dtype: np.dtype[np.floating]) -> ModuleType:
    """The module of the kernel that adds up gradients of a dtype: `run`, and its SIGNATURE."""
    half, computed = HALVES.get(dtype), compute_dtype(dtype)
    names = (*SHARED, "whole")
    text = GATHER.format(
        title=half or computed.name,
        dtype=computed.name,
        imports=_imports(half),
        integers=_integers(names),
        names=", ".join(names),
        found=FOUND,
        size=computed.itemsize,
        summed=_summed(half, computed.itemsize, 8),
    )
    return modules.load(f"gather_{half or computed.name}_cuda", text, *FILES)


def _integers(names: Sequence[str]) -> str:
    return ", ".join(["int64"] * len(names))


@cache
def stepping(job: Job, half: str | None) -> ModuleType:
    """The module of the kernel that steps by gradients, of 16 bits in that format if not None."""
    name = f"slices_{variants.title(job.rule)}_{job.dtype.name}{half or ''}_cuda"
    return modules.load(name, text(job, half, name), *FILES)


def text(job: Job, half: str | None, title: str) -> str:
    """The text of that module.

    As in kernels.py, of an array m the kernel has the address as `m_at` and the element as `m_0`,
    and no other of its names ends like that.
    """
    step, size = variants.step(job.rule), job.dtype.itemsize
    arrays, count = step.variables, len(step.scalars)
    written = [array for array in arrays if array != "g"]
    names = (*(f"{array}_at" for array in written), *SHARED, *MISSED)
    imports = IMPORTS.format(title=title, dtype=job.dtype.name)
    signature = f"void({_integers(names)}, UniTuple({job.dtype.name}, {count}))"
    head = f"""\
{imports}{_imports(half)}
SIGNATURE = "{signature}"

Scalars = namedtuple("Scalars", "{" ".join(step.scalars)}")


"""

    def stepped(g: str) -> str:
        results = ", ".join(f"{array}_0" for array in written)
        arguments = ", ".join(g if array == "g" else f"{array}_0" for array in arrays)
        return f"{results} = step({arguments}, h)"

    def listed(indent: int, scalars: Sequence[str]) -> str:
        margin = " " * indent
        return fill(", ".join(scalars), 100, initial_indent=margin, subsequent_indent=margin)

    from_line = [f"load(line + {size * k})" for k in range(count)]
    given = [f"scalars[{k}]" for k in range(count)]
    asked = [
        now if name in ASKED else line
        for name, line, now in zip(step.scalars, from_line, given, strict=True)
    ]
    loads = "\n        ".join(f"{x}_0 = load({x}_at + {size} * i)" for x in written)
    stores = "\n        ".join(f"store({x}_at + to, {x}_0)" for x in written)
    return f"""\
{head}{generate.functions(step, "device", OPERATORS, head)}

# A thread steps one of n elements of slices. `table` has lines of scalars, `of_set` for each set
# of columns, and `sets` the set of each column. For each slice `missed` has the first line of the
# steps before `until` that it has missed, and `lines` that of the step that comes; `takes` says
# whether it takes that one.
def run({", ".join((*names, "scalars"))}):
{FOUND}
        to = {size} * i
        {loads}
        begin = of_set * load_int64(sets + 8 * k) if sets else 0
        if missed:
            for at in range(load_int64(missed + 8 * j), until):
                line = table + {size * count} * (begin + at)
                h = Scalars(
{listed(20, from_line)}
                )
                {stepped("real(0)")}
        if takes:
            h = Scalars(
{listed(16, given)}
            )
            if lines or sets:
                at = load_int64(lines + 8 * j) if lines else until
                line = table + {size * count} * (begin + at)
                h = Scalars(
{listed(20, asked)}
                )
            {_summed(half, size, 12)}
            {stepped("g_0")}
        {stores}
"""
