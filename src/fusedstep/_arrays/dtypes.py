"""The dtypes of arrays here: float32, float64, and those of 16 bits that are stepped in float32.

NumPy has no bfloat16. The package ml_dtypes has one, which is recognised by its name, and torch
another; here both are views of `BFLOAT16`, whose elements are their bits.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, TypeAlias

import numpy as np

Dtype: TypeAlias = np.dtype[Any]
Array: TypeAlias = np.ndarray[Any, Dtype]

FLOAT32, FLOAT64, FLOAT16 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)

BFLOAT16 = np.dtype([("bfloat16", np.uint16)])
"""The upper half of a float32, as bits in a field, so that it is equal to no dtype of numbers."""

HALVES = {FLOAT16: "float16", BFLOAT16: "bfloat16"}
"""Dtypes of 16 bits, and the names of their formats, see _numerics/storage.py."""


def compute_dtype(dtype: Dtype) -> Dtype:
    """The dtype in which arrays of a dtype are stepped."""
    return FLOAT32 if dtype in HALVES else dtype


dtype_of: Any = vars(np.ndarray)["dtype"].__get__
"""The function that gives an array's dtype as NumPy has it."""


@cache
def _format_of(dtype: Any) -> str | None:
    """The format of 16 bits that a dtype is by its name, of NumPy, torch or another library."""
    name = str(getattr(dtype, "name", dtype)).rpartition(".")[2]
    if dtype == BFLOAT16:
        return "bfloat16"
    return name if name in HALVES.values() else None


def format_of(array: Any) -> str | None:
    """The format of an array of 16 bits; None for any other."""
    # A subclass may say of itself what it likes, and so NumPy is asked.
    found = (
        dtype_of(array) if issubclass(type(array), np.ndarray) else getattr(array, "dtype", None)
    )
    return _format_of(found) if isinstance(found, Hashable) else None


def dtype_name(dtype: Dtype) -> str:
    """The name of a dtype, as users call it."""
    return HALVES.get(dtype, dtype.name)


def is_foreign_bfloat16(dtype: Any) -> bool:
    """Whether a dtype of NumPy is another package's bfloat16."""
    return bool(dtype.kind == "V" and dtype.name == "bfloat16" and dtype.itemsize == 2)


def foreign(array: Array) -> Array:
    """An array of bfloat16 in the dtype that users know it by, of ml_dtypes; any other as it is."""
    if array.dtype != BFLOAT16:
        return array
    try:
        from ml_dtypes import bfloat16
    except ImportError as error:
        raise ImportError(
            "arrays of bfloat16 are shown by ml_dtypes; `pip install 'fusedstep[bfloat16]'`"
        ) from error
    return array.view(bfloat16)


def own(array: Array) -> Array:
    """The same array, in the dtype that it has here."""
    if not is_foreign_bfloat16(array.dtype):
        return array
    _foreign.add(array.dtype)
    return array.view(BFLOAT16)


_foreign: set[Dtype] = set()


def foreign_dtype(dtype: Dtype) -> Dtype:
    """The very object that arrays of bfloat16 have as their dtype in NumPy, if one was seen."""
    return next(iter(_foreign), dtype)
