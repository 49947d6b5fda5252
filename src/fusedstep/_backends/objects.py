"""Many of Python's objects at a time: attributes of a list's items, and whether they are the same.

C does it without Python code, where it was built.
"""

from __future__ import annotations

from itertools import chain
from operator import is_
from typing import Any

try:
    from fusedstep._engine import lib
except ImportError:  # fusedstep.info() says why
    lib = None


def gather(items: list[Any], name: str) -> list[Any]:
    """The attribute `name` of each item, or None where an item is None."""
    into: list[Any] = [None] * len(items)
    done = 0 if lib is None else lib.fs_gather(id(items), id(name), id(into))
    for at in range(done, len(items)):
        into[at] = None if items[at] is None else getattr(items[at], name)
    return into


def same(items: list[Any], others: list[Any]) -> bool:
    """Whether two lists have the very same objects in the same order."""
    if lib is not None and isinstance(items, list) and isinstance(others, list):
        return bool(lib.fs_same(id(items), id(others)))
    return len(items) == len(others) and all(map(is_, items, others))


def holds(state: dict[Any, dict[Any, Any]], values: list[Any]) -> bool:
    """Whether the values of the dicts in `state`, one after the other, are these objects."""
    if lib is not None and isinstance(state, dict):
        return bool(lib.fs_holds(id(state), id(values)))
    return same(values_of(state), values)


def values_of(state: dict[Any, dict[Any, Any]]) -> list[Any]:
    """The values of the dicts in `state`, one after the other."""
    return [*chain.from_iterable(each.values() for each in state.values())]
