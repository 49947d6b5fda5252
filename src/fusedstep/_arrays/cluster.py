"""Arrays that lie among one another, as columns of a matrix do: which of them may share memory.

The extents of all columns overlap, and to compare every pair takes a time that grows with the
square of their number. Addresses modulo M tell more. An axis whose stride is a multiple of M
does not count there: modulo the length of a row a column is as short as one element, and lies
beside the next one. So the strides that most of the arrays have, and the greatest common divisor
of all, become moduli. The addresses themselves are one more case, with a modulus above them all.
Arrays that do not meet modulo one of these numbers share no memory; for the few that meet in
each case np.shares_memory decides.

The other way that was tried is a bitmap of all addresses. It is exact by itself, but takes memory
and time that grow with the elements. Milliseconds to compare all columns of a float32 matrix:

    ================  =======  =======  ===========  =========
    rows × columns    MB       pairs    bitmap       moduli
    ================  =======  =======  ===========  =========
    100 × 2,000       1        978      21           33
    100 × 20,000      8        111,217  230          400
    125,000 × 2,000   1,000    990      1,300        33
    12,500 × 20,000   1,000             3,300        430
    ================  =======  =======  ===========  =========
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

    def span(self, modulus: int) -> tuple[int, int]:
        """Where the array begins modulo `modulus`, and how many bytes it reaches from there."""
        reach = self.itemsize + sum(stride % modulus * (n - 1) for stride, n in self.axes)
        return self.low % modulus, min(reach, modulus)


class Projection:
    """The spans of several arrays modulo a number, on a circle of so many bytes.

    Spans of about the same length are sorted by where they begin. So those that another span meets
    lie between two places of that order.
    """

    def __init__(self, modulus: int, grids: Sequence[Grid]) -> None:
        self.modulus = modulus
        spans = [grid.span(modulus) for grid in grids]
        self.starts, self.reaches = np.array(spans, np.int64).T
        sizes: dict[int, list[tuple[int, int]]] = {}
        for index, (start, reach) in enumerate(spans):
            size = 1 << (reach - 1).bit_length()
            sizes.setdefault(size, []).append((start, index))
            if start + reach > modulus:  # it comes round: here it is again
                sizes[size].append((start - modulus, index))
        self.sizes: list[tuple[int, Sequence[int], Sequence[int]]] = []
        """Spans no longer than a power of two: that, where they begin, and their indices."""
        for size, members in sizes.items():
            starts, indices = zip(*sorted(members), strict=True)
            self.sizes.append((size, starts, indices))

    def about(self, start: int, reach: int) -> list[tuple[Sequence[int], int, int]]:
        """The spans about another one: parts of sequences of indices, from one place to another."""
        parts = []
        for size, starts, indices in self.sizes:
            for turned in (start, start - self.modulus):
                first = bisect_right(starts, turned - size)
                last = bisect_left(starts, turned + reach, first)
                if first < last:
                    parts.append((indices, first, last))
        return parts

    def meets(self, indices: Any, start: int, reach: int) -> Any:
        """Whether each of the spans with these indices meets another one."""
        away = (self.starts[indices] - start) % self.modulus
        return (away < reach) | (self.modulus - away < self.reaches[indices])


class Cluster:
    """Arrays whose extents overlap, to find those that another array may share memory with."""

    def __init__(self, grids: Sequence[Grid]) -> None:
        strides = Counter(stride for grid in grids for stride in grid.gaps())
        common = [stride for stride, _ in strides.most_common(MODULI)]
        moduli = dict.fromkeys((*common, gcd(*strides))) if strides else ()
        self.projections = [Projection(modulus, grids) for modulus in (*moduli, EVERYWHERE)]

    def near(self, grid: Grid) -> list[int]:
        """Ascending indices of the arrays that one may share memory with."""
        spans, fewest, least = [], [], EVERYWHERE
        for each in self.projections:
            start, reach = grid.span(each.modulus)
            parts = each.about(start, reach)
            count = sum(last - first for _, first, last in parts)
            if count < least:
                fewest, least = parts, count
            if least <= FEW:
                break
            spans.append((each, start, reach))
        found = [index for indices, first, last in fewest for index in indices[first:last]]
        if least > FEW:
            kept = np.array(found, np.intp)
            for each, start, reach in spans:
                kept = kept[each.meets(kept, start, reach)]
            found = kept.tolist()
        return sorted({*found})
