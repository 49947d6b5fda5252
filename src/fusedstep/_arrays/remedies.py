"""Remedies: the code that has in an array what was passed in something else.

A conversion is proposed only if it works, which is tried on the value itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from contextlib import suppress
from ctypes import Array as CArray
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.cuda_array import is_viewed
from fusedstep._arrays.libraries import in_numpy
from fusedstep._checks.wording import describe

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

BUFFERS = (bytes, bytearray, memoryview, array, CArray)
"""Types whose memory NumPy reads, and which are no arrays."""


def numbers_in(value: Any) -> Array | None:
    """The real numbers in a value as NumPy reads them; None if it has anything else."""
    with suppress(Exception):  # the conversion is the value's own, and may raise whatever it likes
        found = np.asarray(value)
        return found if found.dtype.kind in "biuf" else None
    return None


def is_raw(value: Any) -> bool:
    """Whether a value is memory of which nothing says what numbers it holds."""
    whole = value.obj if isinstance(value, memoryview) and value.format == "B" else value
    return isinstance(whole, (bytes, bytearray))


def taken_out(value: Any, name: str) -> str:
    """How to pass the arrays of a container alone; empty if it has others or none."""
    if not isinstance(value, (Mapping, list, tuple)):
        return ""
    keys = [*value] if isinstance(value, Mapping) else [*range(len(value))]
    if not keys or not all(is_viewed(value[key]) for key in keys):
        return ""
    which = "the array in it" if len(keys) == 1 else "one array at a time"
    return f"pass {which}, `{name}[{keys[0]!r}]`"


# ---- parameters ----


def over_buffer(value: Any, name: str) -> str:
    """The expression that has the numbers in a buffer as an array, over its memory if that can be
    stepped; empty if it holds none.
    """
    if is_raw(value):
        return over_bytes(memoryview(value), name)
    numbers = numbers_in(value)
    if numbers is None:
        return ""
    if numbers.dtype not in (np.float32, np.float64):
        return f"np.array({name}, np.float32)"
    seen = f"np.ctypeslib.as_array({name})" if isinstance(value, CArray) else f"np.asarray({name})"
    return seen if numbers.flags.writeable else f"{seen}.copy()"


def over_bytes(memory: memoryview, name: str) -> str:
    """The same of bytes: as floats, or if they are no whole number of those, one by one."""
    if memory.nbytes % 4:
        return f"np.frombuffer({name}, np.uint8).astype(np.float32)"
    dtype = ", np.float32" if memory.nbytes % 8 else ""
    return f"np.frombuffer({name}{dtype}){'.copy()' if memory.readonly else ''}"


def as_read(value: Any) -> str:
    """The way in which that expression reads bytes, where it is not as floats."""
    if not is_raw(value) or memoryview(value).nbytes % 4 == 0:
        return ""
    return f" has its {memoryview(value).nbytes} bytes as numbers, as they make no whole floats"


# ---- gradients ----


def as_gradient(value: Any, p: Array, name: str) -> str:
    """How to have as a gradient of p what is no array."""
    if value is None:
        return "pass the array's gradient, or leave the call out"
    dtype = f"np.{p.dtype.name}"
    if is_raw(value):
        held = memoryview(value).nbytes
        if held != p.nbytes:
            return f"pass a NumPy array; its parameter has {p.nbytes} bytes, and these are {held}"
        shaped = "" if p.ndim == 1 else f".reshape({p.shape})"
        return f"pass a NumPy array, `np.frombuffer({name}, {dtype}){shaped}`"
    out = taken_out(value, name)
    if out:
        return out
    numbers = numbers_in(value)
    if numbers is None:
        return in_numpy(value, name)
    if numbers.shape == p.shape:
        return f"pass a NumPy array, `np.asarray({name}, {dtype})`"
    return f"pass a NumPy array of shape {p.shape} and dtype {p.dtype.name}"


# ---- arrays that a function writes to ----


def refuse_unwritten(value: Any, name: str, p: Array | None) -> None:
    """Refuse what is no array where a function for one step writes; `p` is the parameter's, and
    None for the parameter itself.
    """
    if not is_viewed(value):
        if p is not None:
            refuse_number(value, name)
        raise TypeError(f"{name} is {describe(value)}; {as_written(value, name, p)}")


def refuse_number(value: Any, name: str) -> None:
    """Refuse a hyperparameter that came by position, and is taken for a state array."""
    if isinstance(value, Real) and not isinstance(value, bool):
        raise TypeError(
            f"{name} is {describe(value)}, and an array is due there; hyperparameters are passed "
            f"by name, as `lr={value!r}`"
        )


def as_written(value: Any, name: str, p: Array | None) -> str:
    """How to have in an array that outlives the call what is none."""
    if value is None and p is not None:
        return f"at t = 1 it is `{name} = np.zeros_like(p)`"
    out = taken_out(value, name)
    if out:
        return out
    dtype, others = ("float32", " or of float64") if p is None else (p.dtype.name, "")
    made = f"np.array({name}, np.{dtype})" if numbers_in(value) is not None else ""
    if isinstance(value, BUFFERS) and p is None:
        made, others = over_buffer(value, name), ""
    if not made:
        return in_numpy(value, name)
    return f"a step writes to it, so pass a NumPy array that stays, `{name} = {made}`{others}"
