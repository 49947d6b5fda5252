"""The slices p[i] of a tensor that a step touches: in which order, and by which scalars.

A step by rows of a gradient goes over these alone. They come in ascending order, each once; the
gradients of one that is there several times are added up in the order in which they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep._arrays.walk import Array
from fusedstep._backends.columns import Pattern

Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


class Order(NamedTuple):
    """Slices in ascending order, and where their gradients stand."""

    ids: Integers
    """The different ones."""
    starts: Integers
    """Where in `places` each one's begin, and the end."""
    places: Integers
    """The places of the gradients."""


def ordered(index: Integers, limit: int) -> Order | int:
    """The order of slices whose numbers stand in a contiguous `index`, each below `limit`.

    The place of the first number that is out of range, if one is.
    """
    c = in_c()
    if c is None:
        return _ordered(index, limit)
    k = index.size
    places, ids, starts = np.empty(k, np.int64), np.empty(k, np.int64), np.empty(k + 1, np.int64)
    at = (c.ffi.from_buffer("int64_t[]", each) for each in (index, places, ids, starts))
    found: int = c.lib.fs_order(next(at), k, limit, *at)
    return -1 - found if found < 0 else Order(ids[:found], starts[: found + 1], places)


@cache
def in_c() -> Any:
    """The library in C, which is loaded when it is first needed; None if it was not built."""
    try:
        from fusedstep import _engine
    except ImportError:  # fusedstep.info() says why
        return None
    return _engine


def _ordered(index: Integers, limit: int) -> Order | int:
    """The same without C."""
    wrong = (index < 0) | (index >= limit)
    if wrong.any():
        return int(wrong.argmax())
    places = np.argsort(index, kind="stable").astype(np.int64, copy=False)
    numbers = index[places]
    begins = np.flatnonzero(np.diff(numbers, prepend=-1))
    return Order(numbers[begins], np.append(begins, index.size).astype(np.int64), places)


class Calm(NamedTuple):
    """The scalars that past steps have in common from one on: see fs_calm in csrc/api.h."""

    start: int
    """The t of the first of these steps; past the last one: there is none."""
    growth: float = 1.0
    least_decay: float = 1.0
    least_eps: float = 1.0


class Scalars(NamedTuple):
    """The scalars of several steps, rounded, by which slices are stepped."""

    table: Array
    """For each set of columns a line of scalars for each step, in the order of
    `Table.scalars_of`. All columns are one set, unless slices are `Touched.columns`."""
    entries: np.ndarray[Any, np.dtype[np.int32]] | None = None
    """For slices with a t of their own the line of each t; for those of one t a single line, 0.
    None: slices may have missed steps, and the table has these, and where there are `columns` the
    step that comes."""
    first: int = 0
    """The t of the first line of past steps."""
    last: int = 0
    """The t of the last step that is over."""
    calm: Calm = Calm(1)


class Touched(NamedTuple):
    """The slices of one tensor that a step touches, their gradients, and their scalars."""

    width: int
    """The elements of a slice."""
    ids: Integers | None
    """The slices, ascending; None: all of them."""
    values: Array
    """The gradients, flat and contiguous, in the dtype of the step; on a device also 16 bits."""
    starts: Integers | None = None
    """Where in `places` the gradients of each slice begin, and the end; None: each has one."""
    places: Integers | None = None
    """The places of the gradients among the values; None: they stand in the slices' order."""
    counts: Integers | None = None
    """The steps that each slice of the tensor has taken; None: as many as the tensor."""
    scalars: Scalars | None = None
    """None: those of the tensor's job."""
    columns: Pattern | None = None
    """The columns of slices that have scalars of their own, which there are then; None: all have
    the same."""
    sums: Array | None = None
    """The sums of squares of the gradient's blocks; None: they are yet to be summed."""
    given: Any = None
    """The user's array of the values, as arrays here are described."""
    kind: type | None = None
    """The type of gradients of rows, where a table may take the next ones by itself."""

    @property
    def catches_up(self) -> bool:
        """Whether slices take the steps that they have missed."""
        return self.scalars is not None and self.scalars.entries is None

    def n(self, slices: int) -> int:
        """How many slices are touched, of a tensor that has so many."""
        return slices if self.ids is None else len(self.ids)

    def at(self) -> Any:
        """The slices as an index of NumPy."""
        return slice(None) if self.ids is None else self.ids

    def gradients(self, slices: int) -> Array:
        """One gradient for each slice that is touched, as a matrix: NumPy's way to add them up."""
        if not self.width:
            return np.empty((self.n(slices), 0), self.values.dtype)
        values = self.values.reshape(-1, self.width)
        if self.places is None:
            return values
        if self.starts is None:
            return values[self.places]
        sums = values[self.places[self.starts[:-1]]]
        most = int(np.diff(self.starts).max(initial=0))
        with np.errstate(all="ignore"):
            for k in range(1, most):
                more = np.flatnonzero(np.diff(self.starts) > k)
                sums[more] += values[self.places[self.starts[more] + k]]
        return sums

    def dense(self, slices: int) -> Array:
        """The gradient of the whole tensor, flat, with zeros elsewhere."""
        whole = np.zeros((slices, self.width), self.values.dtype)
        whole[self.at()] = self.gradients(slices)
        return whole.reshape(-1)


def steps_of(groups: Sequence[int]) -> dict[int, Any]:
    """The places of each number in a sequence, by the number, ascending."""
    numbers = np.asarray(groups)
    return {int(number): np.flatnonzero(numbers == number) for number in np.unique(numbers)}
