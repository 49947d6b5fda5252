"""Checks on the arrays that a step reads and writes: each returns nothing, or raises.

They are made on plain views, as `Place.see` and `plain` give them.
"""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.libraries import library
from fusedstep._arrays.overlap import has_overlapping_elements
from fusedstep._arrays.walk import Array

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def check_parameter(p: Array, name: str, given: Any = None) -> None:
    """Refuse an array that cannot be updated in place; `given` is the user's."""
    check_values(p, name)
    check_written(p, name, given)


def check_values(p: Array, name: str) -> None:
    """Refuse an array that a parameter's values cannot be read from."""
    if p.dtype not in DTYPES:
        raise TypeError(
            f"{name} has dtype {p.dtype.str!r} ({p.dtype.name}); "
            f"pass float32 or float64 in the machine's byte order, {converted(p, name)}"
        )


def converted(p: Array, name: str) -> str:
    """How to have values of another dtype in one that will do."""
    if p.dtype.names:
        return f"as one field, `{name}[{p.dtype.names[0]!r}]`"
    if p.dtype.kind == "c":
        part = "float32" if p.dtype.itemsize == 8 else "float64"
        return (
            f"as the real and imaginary parts side by side, `{name}.view(np.{part})`, or the real "
            f"ones alone, `{name}.real.astype(np.{part})`"
        )
    if p.dtype.kind in "biufO":
        exact = p.dtype.itemsize > 8 or p.dtype.kind == "O"
        dtype = "float64" if exact or p.dtype.newbyteorder("=") == np.float64 else "float32"
        return f"as `{name}.astype(np.{dtype})`"
    return "as `array.astype(np.float32)`"


def check_state(array: Array, p: Array, name: str) -> None:
    """Refuse a state array that does not fit its parameter."""
    check_like(array, p, name)
    check_written(array, name)


def check_like(array: Array, p: Array, name: str) -> None:
    """Refuse a gradient or other array that does not fit its parameter."""
    if array.dtype != p.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype.str!r} ({array.dtype.name}), its parameter "
            f"{p.dtype.name}; convert it: `{converting(array, p, name)}`"
        )
    if array.shape != p.shape:
        raise ValueError(
            f"{name} has shape {array.shape}, its parameter {p.shape}; they must be equal"
            f"{fitted(array.shape, p.shape, name)}"
        )


def converting(array: Array, p: Array, name: str) -> str:
    """The expression that gives an array the dtype of a parameter."""
    if array.dtype.names:
        return f"{name}[{array.dtype.names[0]!r}].astype(np.{p.dtype.name})"
    real = ".real" if array.dtype.kind == "c" else ""
    return f"{name}{real}.astype(np.{p.dtype.name})"


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
    more = len(shape) - len(wanted)
    if more >= 0 and all(n in (1, m) for n, m in zip(wanted, shape[more:], strict=True)):
        kept = [axis for axis in range(more, len(shape)) if wanted[axis - more] != shape[axis]]
        axes = (*range(more), *kept)
        which = axes[0] if len(axes) == 1 else axes
        summed = f"{name}.sum({which})" if not kept else f"{name}.sum({which}, keepdims=True)"
        whole = summed if not (kept and more) else f"{name}.sum({which}).reshape({wanted})"
        return f"; if the parameter was broadcast, its gradient is the sum, `{whole}`"
    if more <= 0 and all(n in (1, m) for n, m in zip(shape, wanted[-more:], strict=True)):
        return f", so broadcast it yourself: `np.broadcast_to({name}, {wanted})`"
    return ": is it another parameter's?"


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
