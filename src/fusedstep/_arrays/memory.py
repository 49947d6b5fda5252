"""Where new memory begins, and state arrays that lie side by side.

A step goes through p, g and each state array at the same pace. A load waits for a store
before it whose address has the same last twelve bits, even if it is of another array: of
tensors of 1,000 elements, whose state arrays a general allocator puts 4,016 bytes apart, a
step took half as long again. So a parameter's state arrays lie to pages as one another, and
those of all parameters follow one another, as in one large tensor.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fusedstep._arrays.overlap import address
from fusedstep._arrays.place import Place
from fusedstep._arrays.walk import Array

PAGE = 4096
"""Bytes after which addresses look alike to a processor's loads and stores."""

LINE = 64
"""Bytes of a cache line, and of the widest vector."""

SMALL = 1024
"""Bytes below which memory is not worth a page."""


def zeros(place: Place, size: int, dtype: np.dtype[Any], like: int = 0) -> Array:
    """New flat memory, whose address lies to pages as `like` does, or to lines if it is small."""
    alignment = PAGE if size * dtype.itemsize >= SMALL else LINE
    flat = place.zeros((size + alignment // dtype.itemsize,), dtype)
    skip = (like - address(flat)) % alignment // dtype.itemsize
    return flat[skip : skip + size]


class Shelf:
    """State arrays of parameters of one dtype: for each letter one array, of which each has a part.

    What no parameter has taken of it is zero.
    """

    def __init__(self, place: Place, dtype: np.dtype[Any], size: int, like: int) -> None:
        self.place = place
        self.dtype = dtype
        self.size = size
        self.like = like
        self.states: dict[str, Array] = {}

    def state(self, letter: str) -> Array:
        if letter not in self.states:
            self.states[letter] = zeros(self.place, self.size, self.dtype, self.like)
        return self.states[letter]

    def keep(self, letters: Iterable[str]) -> None:
        """Give up the memory of other letters."""
        self.states = {letter: self.states[letter] for letter in letters}
