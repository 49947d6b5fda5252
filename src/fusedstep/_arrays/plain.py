"""The plain view of a user's array on the CPU: its shape, dtype and memory are what is checked."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.dtypes import own
from fusedstep._arrays.libraries import library

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def address(array: Array) -> int:
    """The address of an array's first element."""
    return int(array.__array_interface__["data"][0])


def plain(array: Any, name: str) -> Array:
    """A new view of an array as NumPy itself sees it; what it cannot view is refused.

    A subclass may say of itself what it likes, and an array's shape may be assigned to later.
    So nothing is read off the array: the view's shape is the true one, and stays. Not even
    `isinstance` is asked, which believes what an object says its class is.
    """
    kind = type(array)
    if kind is not np.ndarray:
        if not issubclass(kind, np.ndarray):
            return library(array).view(array, name)
        if issubclass(kind, np.ma.MaskedArray):
            raise TypeError(
                f"{name} is a masked array, whose mask a step would ignore; pass its `.data`"
            )
    return own(np.ndarray.view(array, np.ndarray))


def where(array: Any) -> tuple[int, Any]:
    """The address of a user's array on the CPU, and its shape, strides and dtype."""
    find = library(array).where
    if find is not None:
        return find(array)
    now = plain(array, "the array")
    return address(now), (now.shape, now.strides, now.dtype)
