"""Places: the memory where an optimizer's arrays live, and what is done to them there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from operator import setitem
from typing import Any, Protocol, TypeAlias

import numpy as np

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.cuda_array import is_viewed, on_device
from fusedstep._arrays.dtypes import foreign
from fusedstep._arrays.libraries import TO_HOST
from fusedstep._arrays.plain import address, plain, where
from fusedstep._arrays.remedies import as_gradient, refuse_unwritten
from fusedstep._checks.wording import describe

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Place(Protocol):
    """The memory of the CPU or of a device. Arrays in it are described by NumPy arrays.

    Only the argument of `see` and the result of `show` are arrays of a user's library.
    """

    backwards: bool
    """Whether new arrays here may have negative strides."""

    lasting: bool
    """Whether calls that were made ready for one step may serve the next: no stream is in them."""

    def see(self, array: Any, name: str) -> Any:
        """The description of a user's array, which errors call `name`; one elsewhere is refused.

        It is a new array over the same memory: nothing that is done to the user's changes it.
        """

    def see_written(self, array: Any, name: str) -> Any:
        """The same of an array that is going to be written: it must show the same memory twice."""

    def see_argument(self, array: Any, p: Array | None, name: str) -> Any:
        """The same of an array that a function writes to: a state of p, or for None p itself."""

    def see_gradient(self, g: Any, p: Array, name: str) -> Any:
        """The same of a gradient of p; of what is no array the error says how to make one."""

    def where(self, array: Any) -> tuple[int, Any]:
        """The address of a user's array, and its geometry: its shape first, its strides, its dtype.

        It is for the least that its library lets them cost.
        """

    def show(self, array: Array) -> Any:
        """The array that a user gets for one that was made here, over the same memory.

        It is a new one: whatever its shape or dtype is set to, the array here stays as it is.
        """

    def at_once(self, calls: Sequence[Call]) -> Any:
        """Make calls that work on arrays here, wholly or not at all; see at_once.py."""

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new C-contiguous array, its content undefined."""

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """A new C-contiguous array of zeros."""

    def copy(self, to: Array, source: Array) -> None:
        """Copy `source` to another array that lives here, of the same shape."""

    def copying(self, to: Array, source: Array) -> list[Call]:
        """The calls that do what `copy` does, without any Python code."""

    def clearing(self, array: Array) -> list[Call]:
        """The calls that fill an array that lives here with zeros, without any Python code."""

    def read(self, array: Array) -> Array:
        """A NumPy copy of an array that was made here."""

    def write(self, array: Array, source: Array | float) -> None:
        """Fill an array that was made here from a NumPy array or with one number."""

    def writing(self, array: Array, source: Array) -> list[Call]:
        """The calls that fill such an array from a NumPy array of its dtype, without Python code.

        All memory that they need has been allocated.
        """


class Host:
    """The memory of the CPU: an array is described by a view of it."""

    backwards = True
    lasting = True
    at_once = staticmethod(at_once)

    def see(self, array: Any, name: str) -> Array:
        if on_device(array):
            raise ValueError(
                f"{name} is on a CUDA device, the parameters are on the CPU; pass a copy on the "
                f"CPU: {TO_HOST}"
            )
        return plain(array, name)

    def see_written(self, array: Any, name: str) -> Array:
        seen = self.see(array, name)
        if seen.size and self.where(array)[0] != address(seen):
            raise TypeError(
                f"{name} shows other memory each time it is looked at, so that a step would be "
                "lost; pass a NumPy array, or a tensor of torch"
            )
        return seen

    def see_argument(self, array: Any, p: Array | None, name: str) -> Array:
        refuse_unwritten(array, name, p)
        return self.see_written(array, name)

    def see_gradient(self, g: Any, p: Array, name: str) -> Array:
        if not is_viewed(g):
            raise TypeError(f"{name} is {describe(g)}; {as_gradient(g, p, name)}")
        return self.see(g, name)

    where = staticmethod(where)

    def show(self, array: Array) -> Any:
        return foreign(array.view())

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        return np.empty(shape, dtype)

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        return np.zeros(shape, dtype)

    def copy(self, to: Array, source: Array) -> None:
        to[...] = source

    def copying(self, to: Array, source: Array) -> list[Call]:
        return [partial(setitem, to, ..., source)]

    def clearing(self, array: Array) -> list[Call]:
        return [partial(setitem, array, ..., np.zeros((), array.dtype)[()])]

    def read(self, array: Array) -> Array:
        return array.copy()

    def write(self, array: Array, source: Array | float) -> None:
        with np.errstate(over="ignore"):
            array[...] = source

    def writing(self, array: Array, source: Array) -> list[Call]:
        return self.copying(array, source)


HOST = Host()
