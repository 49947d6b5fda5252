"""New memory at addresses that suit a step, and state arrays side by side.

A step goes through p, g and each state array at the same pace. A load waits for an earlier
store whose address has the same last twelve bits, even if that is in another array: with
tensors of 1,000 elements, whose state arrays a general allocator puts 4,016 bytes apart, a
step took half as long again. So all state arrays of a parameter begin at the same place
within a page, and those of all parameters follow one another, as in one large tensor.

In which page is no matter of chance either. AMD's processors guess the way of the first cache that
holds a line from a few bits of its address (Lipp et al., "Take A Way", 2020), and arrays that are
read together and have these bits in common drive each other out. An allocator lays those of 4096 by
4096 elements just so: a step over one in float32 took 1.3 times as long, with gradients of bfloat16
1.7 times. So large arrays begin where these bits are others than those of p.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from weakref import ReferenceType, ref

import numpy as np

from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array

PAGE = 4096
"""Bytes after which a processor takes addresses for the same when it orders loads and stores."""

LINE = 64
"""Bytes of a cache line, and of the longest vector."""

SMALL = 1024
"""Bytes below which memory is aligned to lines only: a page would be mostly waste."""

LARGE = 2**24
"""Bytes from which on arrays are laid apart: what is left out for that is a sixteenth at most."""

STRIDE, STRIDES = 2**16, 16
"""Bytes between the places where such an array may begin, and how many places there are."""

base_of: Any = vars(np.ndarray)["base"].__get__
"""The function that gives an array's `base` as NumPy has it, whatever a subclass makes of it."""


def zeros(
    place: Place,
    size: int,
    dtype: np.dtype[Any],
    like: int = 0,
    apart: Collection[int] = (),
) -> Array:
    """New flat memory, at the place within a page where the address `like` is.

    Small memory is placed so within a line. Large memory of the CPU is laid apart from what is at
    the addresses `apart`.
    """
    nbytes = size * dtype.itemsize
    alignment = PAGE if nbytes >= SMALL else LINE
    spread = STRIDE * STRIDES if apart and nbytes >= LARGE and isinstance(place, Host) else 0
    flat = place.zeros((size + (alignment + spread) // dtype.itemsize,), dtype)
    start = address(flat)
    skip = (like - start) % alignment
    if spread:
        taken = {foretold(other) for other in apart}
        places = range(skip, skip + spread, STRIDE)
        skip = next((at for at in places if foretold(start + at) not in taken), skip)
    skip //= dtype.itemsize
    return flat[skip : skip + size]


def foretold(at: int) -> int:
    """The bits of an address by which a line's way is guessed, as far as STRIDE moves them."""
    return sum((at >> 16 + k ^ at >> 21 + k) % 2 << k for k in range(4))


def pin(array: Array) -> ReferenceType[Array]:
    """A reference that keeps the memory under an array in place for as long as it is held.

    A user has the array that owns the memory, or gets at it by `base` of a view. NumPy refuses to
    resize an array to which there are weak references, even with `refcheck=False`.
    """
    base = base_of(array)
    while base is not None and issubclass(type(base), np.ndarray):
        array, base = base, base_of(base)
    return ref(array)


class Shelf:
    """State memory of all parameters of one dtype: one array a letter, one part a parameter.

    Parts that no parameter has taken are zero.
    """

    def __init__(self, place: Place, dtype: np.dtype[Any], size: int, like: int) -> None:
        self.place = place
        self.dtype = dtype
        self.size = size
        self.like = like
        self.states: dict[str, Array] = {}
        self.pins: dict[str, ReferenceType[Array]] = {}
        """A pin for each of them."""

    def state(self, letter: str) -> Array:
        """The array of a letter, made when it is first asked for."""
        if letter not in self.states:
            apart = [self.like, *map(address, self.states.values())]
            state = zeros(self.place, self.size, self.dtype, self.like, apart)
            self.pins[letter] = pin(state)
            self.states[letter] = state
        return self.states[letter]

    def keep(self, letters: Collection[str]) -> None:
        """Free the memory of all other letters."""
        self.states = {letter: self.states[letter] for letter in letters}
        self.pins = {letter: self.pins[letter] for letter in letters}
