"""Checks on the arrays that a step reads and writes: each returns nothing, or raises.

They are made on plain views, as `Place.see` and `plain` give them.
"""

from __future__ import annotations

import numpy as np

from fusedstep._arrays.overlap import has_overlapping_elements
from fusedstep._arrays.walk import Array

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def check_parameter(p: Array, name: str) -> None:
    """Refuse an array that cannot be updated in place."""
    check_values(p, name)
    check_written(p, name)


def check_values(p: Array, name: str) -> None:
    """Refuse an array that a parameter's values cannot be read from."""
    if p.dtype not in DTYPES:
        raise TypeError(
            f"{name} has dtype {p.dtype.str!r} ({p.dtype.name}); "
            "pass float32 or float64 in the machine's byte order, as `array.astype(np.float32)`"
        )


def check_state(array: Array, p: Array, name: str) -> None:
    """Refuse a state array that does not fit its parameter."""
    check_like(array, p, name)
    check_written(array, name)


def check_like(array: Array, p: Array, name: str) -> None:
    """Refuse a gradient or other array that does not fit its parameter."""
    if array.dtype != p.dtype:
        raise TypeError(
            f"{name} has dtype {array.dtype.str!r} ({array.dtype.name}), its parameter "
            f"{p.dtype.name}; convert it: `array.astype(np.{p.dtype.name})`"
        )
    if array.shape != p.shape:
        raise ValueError(
            f"{name} has shape {array.shape}, its parameter {p.shape}; they must be equal, so "
            "broadcast it yourself: `np.broadcast_to(array, shape)`"
        )


def check_written(array: Array, name: str) -> None:
    """Refuse an array that cannot be written, or has elements in the same memory."""
    if not array.flags.writeable:
        raise ValueError(
            f"{name} is read-only, and a step writes to it; pass a copy, or set "
            "`array.flags.writeable = True`"
        )
    if has_overlapping_elements(array):
        raise ValueError(
            f"{name} has elements that share memory (shape {array.shape}, strides "
            f"{array.strides}), so one would be updated several times; pass a copy"
        )
