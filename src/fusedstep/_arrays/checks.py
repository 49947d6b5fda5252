"""Checks on the arrays that a step reads and writes: each returns nothing, or raises.

They are made on plain views, as `Place.see` and `plain` give them.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations
from math import prod
from numbers import Number
from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.cuda_array import is_shadow
from fusedstep._arrays.dtypes import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    HALVES,
    compute_dtype,
    dtype_name,
)
from fusedstep._arrays.libraries import library
from fusedstep._arrays.overlap import has_overlapping_elements
from fusedstep._arrays.walk import Array

DTYPES = (FLOAT32, FLOAT64, FLOAT16, BFLOAT16)
"""The dtypes of parameters."""

GRADIENTS = (FLOAT32, FLOAT16, BFLOAT16)
"""The dtypes of gradients of what is stepped in float32."""


def check_parameter(p: Array, name: str, given: Any = None) -> None:
    """Refuse an array that cannot be updated in place; `given` is the user's."""
    check_values(p, name)
    check_written(p, name, given)


def check_values(p: Array, name: str) -> None:
    """Refuse an array that a parameter's values cannot be read from."""
    if p.dtype not in DTYPES:
        raise TypeError(
            f"{name} has dtype {p.dtype.str!r} ({p.dtype.name}); "
            f"pass float32 or float64 in the machine's byte order{converted(p, name)}"
        )


def converted(p: Array, name: str) -> str:
    """How to have values of another dtype in one that will do; empty if they are no numbers."""
    if p.dtype.names:
        return f", as one field, `{name}[{p.dtype.names[0]!r}]`"
    if p.dtype.kind == "c":
        part = "float32" if p.dtype.itemsize == 8 else "float64"
        return (
            f", as the real and imaginary parts side by side, `{name}.view(np.{part})`, or the "
            f"real ones alone, `{name}.real.astype(np.{part})`"
        )
    if are_arrays(p):
        return f": it holds arrays, which are parameters as `list({name})`"
    if not are_numbers(p):
        return ""
    exact = p.dtype.itemsize > 8 or p.dtype.kind == "O"
    dtype = "float64" if exact or p.dtype.newbyteorder("=") == np.float64 else "float32"
    return f", as `{name}.astype(np.{dtype})`"


def are_numbers(array: Array) -> bool:
    """Whether `astype` makes a number of each element, as it does of some texts and objects."""
    if array.dtype.kind in "biufc":
        return True
    if is_shadow(array) or array.dtype.kind not in "OSU":
        return False
    if array.dtype.kind == "O" and not all(isinstance(each, Number) for each in array.flat):
        return False  # of None it makes NaN
    with suppress(OverflowError, TypeError, ValueError):
        array.astype(np.float64)
        return True
    return False


def are_arrays(array: Array) -> bool:
    """Whether each element of an array is an array itself."""
    if array.dtype.kind != "O" or is_shadow(array):
        return False
    return bool(array.ndim and array.size) and all(isinstance(each, np.ndarray) for each in array)


def check_state(array: Array, p: Array, name: str) -> None:
    """Refuse a state array that does not fit its parameter."""
    check_like(array, p, name)
    check_written(array, name)


def check_like(array: Array, p: Array, name: str) -> None:
    """Refuse a gradient or other array that does not fit its parameter."""
    if array.dtype != p.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype.str!r} ({array.dtype.name}), its parameter "
            f"{dtype_name(p.dtype)}; {converting(array, p, name)}"
        )
    check_shape(array, p, name)


def check_gradient(g: Array, p: Array, name: str) -> None:
    """Refuse a gradient that does not fit its parameter."""
    if compute_dtype(p.dtype) != FLOAT32 or g.dtype not in GRADIENTS:
        check_like(g, p, name)
    else:
        check_shape(g, p, name)


def check_copy(array: Array, p: Array, name: str) -> None:
    """Refuse an array that a parameter cannot be written into as well, in 16 bits."""
    if p.dtype != FLOAT32:
        raise TypeError(
            f"{name} belongs to a parameter of {dtype_name(p.dtype)}, and takes float32 in 16 "
            f"bits; leave {name} out for this parameter"
        )
    if array.dtype not in HALVES:
        raise TypeError(
            f"{name} has dtype {dtype_name(array.dtype)}; pass an array of 16 bits, as "
            f"`np.zeros({p.shape}, np.float16)`"
        )
    check_shape(array, p, name)
    check_written(array, name)


def check_shape(array: Array, p: Array, name: str) -> None:
    """Refuse a gradient or other array of another shape than its parameter."""
    if array.shape != p.shape:
        raise ValueError(
            f"{name} has shape {array.shape}, its parameter {p.shape}; they must be equal"
            f"{fitted(array.shape, p.shape, name)}"
        )


def converting(array: Array, p: Array, name: str) -> str:
    """How to give an array the dtype of a parameter."""
    if array.dtype.names:
        wanted = compute_dtype(p.dtype).name
        return f"convert it: `{name}[{array.dtype.names[0]!r}].astype(np.{wanted})`"
    if are_arrays(array):
        return f"pass one array at a time, `{name}[0]`"
    if not are_numbers(array):
        return "its elements are no numbers; pass an array of numbers"
    real = ".real" if array.dtype.kind == "c" else ""
    return f"convert it: `{name}{real}.astype(np.{compute_dtype(p.dtype).name})`"


Shape: TypeAlias = tuple[int, ...]


def fitted(shape: Shape, wanted: Shape, name: str) -> str:
    """The remedy for a gradient of another shape than its parameter, as the end of an error.

    It is an expression that has the right shape; which one was meant is found by the lengths.
    """
    if len(shape) > 1 and shape[::-1] == wanted:
        return f"; if it was taken of the transpose, pass `{name}.T`"
    if sorted(shape) == sorted(wanted) and len({*shape}) == len(shape):
        axes = tuple(shape.index(length) for length in wanted)
        return f"; if its axes stand in another order, pass `{name}.transpose({axes})`"
    if [n for n in shape if n != 1] == [n for n in wanted if n != 1] or (
        1 in (len(shape), len(wanted)) and prod(shape) == prod(wanted)
    ):
        return f"; if its elements are in order, pass `{name}.reshape({wanted})`"
    summed = summed_to(shape, wanted, name)
    if summed is not None:
        return f"; if the parameter was broadcast, its gradient is the sum, `{summed}`"
    more = len(shape) - len(wanted)
    if more <= 0 and all(n in (1, m) for n, m in zip(shape, wanted[-more:], strict=True)):
        return f", so broadcast it yourself: `np.broadcast_to({name}, {wanted})`"
    return ": is it another parameter's?"


def summed_to(shape: Shape, wanted: Shape, name: str) -> str | None:
    """The sum over axes that a parameter does not have, the first that fit, or has of length 1."""
    more = len(shape) - len(wanted)
    if more < 0:
        return None
    for lost in combinations(range(len(shape)), more):
        left = [axis for axis in range(len(shape)) if axis not in lost]
        pairs = [*zip(left, wanted, strict=True)]
        if not all(n in (1, shape[axis]) for axis, n in pairs):
            continue
        kept = [axis for axis, n in pairs if n != shape[axis]]
        axes = (*sorted((*lost, *kept)),)
        which = axes[0] if len(axes) == 1 else axes
        if not wanted or (kept and lost):  # a sum over all axes is no array
            return f"{name}.sum({which}, keepdims=True).reshape({wanted})"
        return f"{name}.sum({which}{', keepdims=True' if kept else ''})"
    return None


def check_written(array: Array, name: str, given: Any = None) -> None:
    """Refuse an array that cannot be written, or has elements in the same memory."""
    if not array.flags.writeable:
        raise ValueError(
            f"{name} is read-only, and a step writes to it; {writeable(array, name, given)}"
        )
    if has_overlapping_elements(array):
        raise ValueError(
            f"{name} has elements that share memory (shape {array.shape}, strides "
            f"{array.strides}), so one would be updated several times; pass a copy, `{name}.copy()`"
        )


def writeable(array: Array, name: str, given: Any) -> str:
    """How to have a read-only array's values in one that can be written."""
    advice = library(given).writeable
    if advice is not None and (name == "p" or name.startswith("params")):
        return advice.replace("NAME", name)
    if given is not None and not issubclass(type(given), np.ndarray):
        return f"pass a copy, `np.array({name})`"
    if type(given) is np.memmap:
        return f"map it with `mode='r+'`, or pass a copy in memory, `np.array({name})`"
    return f"pass a copy, `{name}.copy()`"
