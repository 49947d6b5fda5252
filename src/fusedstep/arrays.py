"""Every check on arrays, once, and the order in which the kernels walk over them.

A kernel sees contiguous memory only. Each parameter is visited in the order in which its
elements lie in memory, whatever its axes, so that C- and F-order, transposed and reversed
arrays need no copy; what has gaps in it, or another layout than its parameter, goes
through scratch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fusedstep.places import Place
from fusedstep.structure import describe

Array: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


class Walk:
    """The order in which one parameter's elements are visited: as they lie in memory."""

    def __init__(self, p: Array, place: Place) -> None:
        self.place = place
        self.shape = p.shape
        self.size = p.size
        # Strides mean nothing along axes of length 0 or 1, so plain goes by the flag alone.
        self.plain = p.flags.c_contiguous
        self.forward = tuple(
            slice(None, None, -1 if step < 0 and place.backwards else 1) for step in p.strides
        )
        self.axes = sorted(range(p.ndim), key=lambda axis: -abs(p.strides[axis]))
        self.back = sorted(range(p.ndim), key=self.axes.__getitem__)

    def lay(self, array: Array) -> Array:
        """`array`, of the parameter's shape, as a view whose C order is the walk's."""
        return array if self.plain else array[self.forward].transpose(self.axes)

    def shaped(self, flat: Array) -> Array:
        """Contiguous memory of the parameter's size as an array of its shape, along the walk."""
        if self.plain:
            return flat.reshape(self.shape)
        laid = flat.reshape([self.shape[axis] for axis in self.axes])
        return laid.transpose(self.back)[self.forward]


class Operand:
    """An array as a kernel sees it: `flat` is its own memory, or scratch where it has gaps.

    `before` is another of the same size, whose scratch is no longer needed.
    """

    __slots__ = ("flat", "laid", "place", "scratch")

    def __init__(self, array: Array, walk: Walk, before: Operand | None = None) -> None:
        self.place = walk.place
        self.laid = walk.lay(array.view(np.ndarray))
        self.scratch = not (self.laid.flags.c_contiguous and self.laid.flags.aligned)
        if not self.scratch:
            self.flat = self.laid.reshape(-1)
        elif before is not None and before.scratch:
            self.flat = before.flat
        else:
            self.flat = walk.place.empty((array.size,), array.dtype)

    def fetch(self) -> None:
        self.place.copy(self.flat.reshape(self.laid.shape), self.laid)

    def put_back(self) -> None:
        self.place.copy(self.laid, self.flat.reshape(self.laid.shape))


def address(array: Array) -> int:
    """Of an array's first element."""
    return int(array.__array_interface__["data"][0])


def extent(array: Array) -> tuple[int, int]:
    """The addresses of an array's lowest byte and of the one past its highest."""
    if array.flags.forc:  # contiguous, in either order
        low = address(array)
        return low, low + array.nbytes
    return byte_bounds(array)


def lies_as(array: Any, other: Array) -> bool:
    """Whether `array` is the very elements of `other`, in the same places."""
    if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (
        other.shape,
        other.dtype,
    ):
        return False
    strides = zip(array.strides, other.strides, array.shape, strict=True)
    return not other.size or (
        address(array) == address(other)
        and all(one == another for one, another, length in strides if length > 1)
    )


class Written:
    """The memory that a step writes, to refuse whatever else overlaps it."""

    def __init__(self, arrays: Iterable[tuple[str, Array]]) -> None:
        bounded = [(*extent(array), name, array) for name, array in arrays if array.size]
        bounded.sort(key=lambda entry: entry[:2])
        self.arrays = bounded
        self.lows = [low for low, *_ in bounded]
        self.highs = list(accumulate((high for _, high, *_ in bounded), max))

    def refuse(self, g: Array, name: str) -> None:
        """No gradient in memory that the step writes: it would be read half changed."""
        low, high = extent(g)
        other = self._first_overlap(g, low, bisect_left(self.lows, high))
        if other is not None:
            raise ValueError(
                f"{name} shares memory with {other}, which the step writes; pass a copy"
            )

    def refuse_overlaps(self) -> None:
        """No memory twice among parameters and state: the second step would undo the first."""
        for at, (low, _, name, array) in enumerate(self.arrays):
            other = self._first_overlap(array, low, at)
            if other is not None:
                first, second = sorted((name, other))
                raise ValueError(
                    f"{first} and {second} share memory, and both would be written; pass each "
                    "array once, or copies"
                )

    def _first_overlap(self, array: Array, low: int, before: int) -> str | None:
        """The name of an array that shares an element with `array`, whose lowest byte is `low`.

        Only the first `before` in order of address are looked at, which begin below its end.
        """
        while before > 0 and self.highs[before - 1] > low:
            before -= 1
            *_, name, other = self.arrays[before]
            if np.shares_memory(array, other):
                return name
        return None


def check_parameter(p: Any, name: str) -> None:
    """Refuse what cannot be updated in place."""
    check_values(p, name)
    check_written(p, name)


def check_values(p: Any, name: str) -> None:
    """Refuse what a parameter's values cannot be read from."""
    check_array(p, name)
    if p.dtype not in DTYPES:
        raise TypeError(
            f"{name} has dtype {p.dtype.str!r} ({p.dtype.name}); "
            "pass float32 or float64 in the machine's byte order, as `array.astype(np.float32)`"
        )


def check_state(array: Any, p: Array, name: str) -> None:
    """Refuse a state array that does not fit its parameter."""
    check_like(array, p, name)
    check_written(array, name)


def check_like(array: Any, p: Array, name: str) -> None:
    """Refuse a gradient or other array that does not fit its parameter."""
    check_array(array, name)
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


def check_array(array: Any, name: str) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name} is {describe(array)}; pass a NumPy array, for instance `np.asarray(x)`, or "
            "`x.detach().numpy()` of a torch tensor on the CPU, which share its memory"
        )
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, whose mask a step would ignore; pass its `.data`"
        )


def check_written(array: Array, name: str) -> None:
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


def has_overlapping_elements(array: Array) -> bool:
    if array.flags.c_contiguous or array.size == 0:
        return False
    axes = sorted(
        (abs(stride), length)
        for stride, length in zip(array.strides, array.shape, strict=True)
        if length > 1
    )
    reach = array.itemsize
    for stride, length in axes:
        if stride < reach:
            break
        reach += stride * (length - 1)
    else:
        return False
    # The axes interleave: only counting tells. The offsets are exact, byte by byte.
    offsets = np.zeros((), np.int64)
    for stride, length in axes:
        offsets = np.add.outer(offsets, stride * np.arange(length, dtype=np.int64))
    gaps = np.diff(np.sort(offsets, axis=None))
    return bool((gaps < array.itemsize).any())
