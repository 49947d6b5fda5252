"""Many of Python's objects at a time: attributes of a list's items, and whether they are the same.

C does it without Python code, where it was built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from operator import is_
from typing import Any

import numpy as np

try:
    from fusedstep._engine import ffi, lib
except ImportError:  # fusedstep.info() says why
    ffi = lib = None


def gather(items: list[Any], name: str, into: list[Any]) -> None:
    """Put the attribute `name` of each item into a list of Nones; None has none.

    The list is there already, because a new one of thousands of items may take as long as all
    else: it is where the allocator tidies up.
    """
    done = 0 if lib is None else lib.fs_gather(id(items), id(name), id(into))
    for at in range(done, len(items)):
        into[at] = None if items[at] is None else getattr(items[at], name)


def empty(items: list[Any]) -> None:
    """Put None in the place of all items."""
    if lib is not None:
        lib.fs_empty(id(items))
    else:
        items[:] = [None] * len(items)


def same(items: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether two sequences, best of all lists, have the very same objects in the same order."""
    if lib is not None and isinstance(items, list) and isinstance(others, list):
        return bool(lib.fs_same(id(items), id(others)))
    return len(items) == len(others) and all(map(is_, items, others))


class Content:
    """The dicts in a dict as they were, and the objects in these."""

    def __init__(self, of: dict[Any, dict[Any, Any]], held: Counter[int] | None = None) -> None:
        """`held` has by id how many references to an object, or to `of`, the caller has."""
        self.outer = [of]
        self.inner = [*of.values()]
        dicts = [each for each in self.inner if isinstance(each, dict)]
        self.values = [*chain.from_iterable(each.values() for each in dicts)]
        held = Counter() if held is None else held
        mine = 2  # that of a dict, and that of a list here
        self.counts = [
            (self.outer, np.array([1 + held[id(of)]], np.int64)),
            (self.inner, np.full(len(self.inner), mine, np.int64)),
            (self.values, np.array([mine + held[id(each)] for each in self.values], np.int64)),
        ]
        """The references to all of these, if nobody else has any."""

    def is_of(self, state: dict[Any, dict[Any, Any]]) -> bool:
        """Whether these are still the very dicts in `state`, and the very objects in them."""
        if lib is not None and isinstance(state, dict):
            return bool(lib.fs_holds(id(state), id(self.inner), id(self.values)))
        now = Content(state)
        return same(now.inner, self.inner) and same(now.values, self.values)

    def is_reached(self) -> bool:
        """Whether anybody else has one of the dicts or of the objects; True if C cannot tell."""
        return lib is None or not all(
            lib.fs_counts(id(items), ffi.cast("int64_t *", counts.ctypes.data))
            for items, counts in self.counts
        )
