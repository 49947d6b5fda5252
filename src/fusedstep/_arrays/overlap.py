"""The bytes that an array covers, and the search for arrays that share some."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import TypeAlias

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fusedstep._arrays.cluster import FEW, Cluster, Grid
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array


def extent(array: Array) -> tuple[int, int]:
    """The addresses of an array's lowest byte and of the one past its highest."""
    if array.flags.forc:  # contiguous, in either order
        low = address(array)
        return low, low + array.nbytes
    return byte_bounds(array)


def lies_as(array: Array, other: Array) -> bool:
    """Whether `array` has the very elements of `other`, in the same order."""
    if (array.shape, array.dtype) != (other.shape, other.dtype):
        return False
    strides = zip(array.strides, other.strides, array.shape, strict=True)
    return not other.size or (
        address(array) == address(other)
        and all(one == another for one, another, length in strides if length > 1)
    )


Name: TypeAlias = str | Callable[[Array], str | None]
"""The name of an array in errors. An array that holds several has a function instead: it gives
the name of the one that shares memory with its argument, or None if none does."""


class WrittenMemory:
    """The memory that a step writes, to refuse whatever else overlaps it."""

    def __init__(self, arrays: Iterable[tuple[Name, Array]]) -> None:
        self._take([_entry(name, array) for name, array in arrays if array.size])

    def _take(self, entries: list[Entry]) -> None:
        self.entries = sorted(entries, key=itemgetter(0, 1))
        self.lows = [entry[0] for entry in self.entries]
        """Addresses at which the arrays begin, in ascending order."""
        self.highs = list(accumulate((entry[1] for entry in self.entries), max))
        """Addresses past which neither an array nor those before it reach."""
        self._clusters: dict[int, Cluster] = {}

    def with_more(self, arrays: Iterable[tuple[Name, Array]]) -> WrittenMemory:
        """The union of this memory and more; the arrays here are not looked at again."""
        both = object.__new__(WrittenMemory)
        both._take([*self.entries, *(_entry(name, array) for name, array in arrays if array.size)])
        return both

    def refuse(self, g: Array, name: str) -> None:
        """Refuse a gradient in memory that the step writes: it would be read half changed."""
        low, high = extent(g)
        other = self._overlap(g, low, bisect_left(self.lows, high))
        if other is not None:
            raise ValueError(
                f"{name} shares memory with {other}, which the step writes; pass a copy"
            )

    def refuse_overlaps(self) -> None:
        """Refuse memory that is there twice: the second step would undo the first."""
        for at, (low, _, array, name) in enumerate(self.entries):
            other = self._overlap(array, low, at)
            if other is not None:
                first, second = sorted((str(name), other))
                raise ValueError(
                    f"{first} and {second} share memory, and both would be written; pass each "
                    "array once, or copies"
                )

    def _overlap(self, array: Array, low: int, before: int) -> str | None:
        """The name of an array that shares an element with `array`, whose lowest byte is `low`.

        Only the first `before` arrays in order of address are searched: the others begin at its
        end or above.
        """
        if before == 0 or self.highs[before - 1] <= low:
            return None
        first = bisect_right(self.highs, low, 0, before)
        for at in self._candidates(array, low, first, before):
            _, _, other, name = self.entries[at]
            if np.shares_memory(array, other):
                named = name if isinstance(name, str) else name(array)
                if named is not None:
                    return named
        return None

    def _candidates(self, array: Array, low: int, first: int, before: int) -> Iterator[int]:
        """The arrays from `first` to `before` that may share an element with one, the last first.

        If they are few these are all, and so they are where arrays lie apart from one another.
        """
        if before - first <= FEW:
            yield from range(before - 1, first - 1, -1)
            return
        grid = Grid.of(array, low)
        edges = self._edges
        for k in range(bisect_left(edges, before) - 1, bisect_right(edges, first) - 2, -1):
            begin, end = edges[k], edges[k + 1]
            if end - begin <= FEW:
                near: Iterable[int] = range(begin, end)
            else:
                near = (begin + index for index in self._cluster(begin, end).near(grid))
            yield from (at for at in reversed([*near]) if first <= at < before)

    @cached_property
    def _edges(self) -> list[int]:
        """Where clusters begin, and the last one ends: no extent reaches from one to another."""
        inner = range(1, len(self.lows))
        return [0, *(at for at in inner if self.highs[at - 1] <= self.lows[at]), len(self.lows)]

    def _cluster(self, begin: int, end: int) -> Cluster:
        """The cluster of the arrays from `begin` to `end`, made when it is first needed."""
        if begin not in self._clusters:
            grids = [Grid.of(array, low) for low, _, array, _ in self.entries[begin:end]]
            self._clusters[begin] = Cluster(grids)
        return self._clusters[begin]


Entry: TypeAlias = tuple[int, int, Array, Name]
"""An array's lowest byte, the byte past its highest, the array, and its name."""


def _entry(name: Name, array: Array) -> Entry:
    return (*extent(array), array, name)


def has_overlapping_elements(array: Array) -> bool:
    """Whether two elements of an array share memory, as those of a broadcast array do."""
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
