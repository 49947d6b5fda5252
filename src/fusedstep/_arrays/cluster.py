"""Arrays that lie among one another, such as the columns of a matrix: which of them may meet.

The extents of columns overlap, all of them, and to compare every pair takes time that grows with
the square of their number. Addresses modulo M tell more. An axis whose stride is a multiple of M
moves nothing there, so modulo the length of a row a column is one element long, and lies beside
the next. Each modulus that suits some of the arrays gives such a projection; the whole address
space is one more, with a modulus above all addresses. Arrays that do not meet in every
projection share no memory. Of those that do, np.shares_memory tells.

The other way that was tried is a bitmap of a cluster, in units of the greatest common divisor of
all offsets, strides and sizes. It needs no candidates, but memory and time that grow with the
elements. Milliseconds for float32 columns, to compare all with one another:

    ===================  =====  ======  ===========
    rows × columns       pairs  bitmap  projections
    ===================  =====  ======  ===========
    ===================  =====  ======  ===========
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from math import gcd
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

EVERYWHERE = 1 << 62
"""The modulus above all addresses."""

FEW = 8
"""Arrays that are compared one by one, before anything is made or computed to save that."""

MODULI = 3
"""How many strides, of those that most arrays have, are made moduli."""


class Grid(NamedTuple):
    """The addresses of an array's elements: from the lowest byte on, some steps along each axis."""

    low: int
    itemsize: int
    axes: list[tuple[int, int]]
    """The stride of each axis, in bytes and without its sign, and its length."""

    @classmethod
    def of(cls, array: Array, low: int) -> Grid:
        """The grid of an array whose lowest byte is at the address `low`."""
        axes = zip(array.strides, array.shape, strict=True)
        return cls(low, array.itemsize, sorted((abs(step), n) for step, n in axes if n > 1))

    def gaps(self) -> list[int]:
        """The strides of axes along which the array is not dense."""
        reach, wide = self.itemsize, []
        for stride, length in self.axes:
            if stride > reach:
                wide.append(stride)
            reach += stride * (length - 1)
        return wide

    def stretch(self, modulus: int) -> tuple[int, int]:
        """Where the array begins modulo `modulus`, and how many bytes it reaches from there."""
        reach = self.itemsize + sum(stride % modulus * (n - 1) for stride, n in self.axes)
        return self.low % modulus, min(reach, modulus)


class Projection:
    """The stretches of several arrays modulo a number: a circle of so many bytes.

    Those of about the same length are sorted by where they begin, so that a stretch finds the ones
    that it meets between two places of that order.
    """

    def __init__(self, modulus: int, grids: Sequence[Grid]) -> None:
        self.modulus = modulus
        stretches = [grid.stretch(modulus) for grid in grids]
        self.starts, self.reaches = np.array(stretches, np.int64).T
        sizes: dict[int, list[tuple[int, int]]] = {}
        for index, (start, reach) in enumerate(stretches):
            size = 1 << (reach - 1).bit_length()
            sizes.setdefault(size, []).append((start, index))
            if start + reach > modulus:  # it comes round: here it is again
                sizes[size].append((start - modulus, index))
        self.sizes = []
        """For each power of two: the stretches no longer than that, by where they begin."""
        for size, members in sizes.items():
            members.sort()
            starts, indices = zip(*members, strict=True)
            self.sizes.append((size, starts, indices))

    def places(self, start: int, reach: int) -> list[tuple[Sequence[int], int, int]]:
        """Stretches near one: parts of sequences of indices, each from one place to another."""
        near: list[tuple[Sequence[int], int, int]] = []
        for size, starts, indices in self.sizes:
            for turned in (start, start - self.modulus):
                first = bisect_right(starts, turned - size)
                last = bisect_left(starts, turned + reach, first)
                if first < last:
                    near.append((indices, first, last))
        return near

    def meets(self, indices: Any, start: int, reach: int) -> Any:
        """Whether each of the stretches with these indices meets another one."""
        away = (self.starts[indices] - start) % self.modulus
        return (away < reach) | (self.modulus - away < self.reaches[indices])


class Cluster:
    """Arrays whose extents overlap, to find those that another array may share memory with."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        strides = Counter(stride for grid in grids for stride in grid.gaps())
        moduli = {stride for stride, _ in strides.most_common(MODULI)} | {gcd(*strides)} - {0}
        self.projections = [Projection(modulus, grids) for modulus in (*moduli, EVERYWHERE)]

    def near(self, grid: Grid) -> list[int]:
        """Ascending indices of the arrays that meet one in every projection."""
        stretches, fewest, least = [], [], EVERYWHERE
        for each in self.projections:
            start, reach = grid.stretch(each.modulus)
            places = each.places(start, reach)
            count = sum(last - first for _, first, last in places)
            if count < least:
                fewest, least = places, count
            if least <= FEW:
                break
            stretches.append((each, start, reach))
        found = [index for indices, first, last in fewest for index in indices[first:last]]
        if least > FEW:
            kept = np.array(found, np.intp)
            for each, start, reach in stretches:
                kept = kept[each.meets(kept, start, reach)]
            found = kept.tolist()
        return sorted({*found})
