"""Places: the memory where an optimizer's arrays live, and what is done to them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from fusedstep._arrays.cuda_array import on_device
from fusedstep._arrays.libraries import TO_HOST
from fusedstep._arrays.plain import plain

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Place(Protocol):
    """The memory of the CPU or of a device. Arrays in it are described by NumPy arrays.

    Only the argument of `see` and the result of `show` are arrays of a user's library.
    """

    backwards: bool
    """Whether new arrays here may have negative strides."""

    def see(self, array: Any, name: str) -> Any:
        """The description of a user's array, which errors call `name`; one elsewhere is refused.

        It is a new array over the same memory: nothing that is done to the user's changes it.
        """

    def show(self, array: Array) -> Any:
        """The array that a user gets for one that was made here, over the same memory.

        It is a new one: whatever its shape or dtype is set to, the array here stays as it is.
        """

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new C-contiguous array, its content undefined."""

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new C-contiguous array of zeros."""

    def copy(self, to: Array, source: Array) -> None:
        """Copy `source` to another array that lives here, of the same shape."""

    def clear(self, array: Array) -> None:
        """Fill an array that lives here with zeros."""

    def read(self, array: Array) -> Array:
        """A NumPy copy of an array that was made here."""

    def write(self, array: Array, source: Array | float) -> None:
        """Fill an array that was made here from a NumPy array or with one number."""


class Host:
    """The memory of the CPU: an array is described by a view of it."""

    backwards = True

    def see(self, array: Any, name: str) -> Any:
        if on_device(array):
            raise ValueError(
                f"{name} is on a CUDA device, the parameters are on the CPU; pass a copy on the "
                f"CPU: {TO_HOST}"
            )
        return plain(array, name)

    def show(self, array: Array) -> Any:
        return array.view()

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        return np.zeros(shape, dtype)

    def copy(self, to: Array, source: Array) -> None:
        to[...] = source

    def clear(self, array: Array) -> None:
        array[...] = 0

    def read(self, array: Array) -> Array:
        return array.copy()

    def write(self, array: Array, source: Array | float) -> None:
        with np.errstate(over="ignore"):
            array[...] = source


HOST = Host()
