"""Arrays of nested structures, compared leaf by leaf: what the tests of arenas share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from cases import differing_bits

Array: TypeAlias = np.ndarray[Any, Any]


def leaves(structure: Any) -> Iterator[Any]:
    """The arrays of a structure in order."""
    if isinstance(structure, np.ndarray):
        yield structure
    else:
        for item in structure.values() if isinstance(structure, dict) else structure:
            yield from leaves(item)


def write(views: Any, values: Any) -> None:
    for view, value in zip(leaves(views), leaves(values), strict=True):
        view[...] = value


def assert_same(found: Any, expected: Any) -> None:
    """The same bits, in structures of the same arrays."""
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        assert differing_bits(one, other) == 0


def assert_same_state(found: Any, expected: Any) -> None:
    """Compare state dicts or parts of them: same types, same bits."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same_state(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same_state(one, other)
    elif isinstance(expected, np.ndarray):
        assert differing_bits(found, expected) == 0
    else:
        assert found == expected


def kinds(structure: Any) -> Any:
    """The structure with "a" for each array, in the same kinds of containers, but plain ones."""
    if isinstance(structure, np.ndarray):
        return "a"
    if isinstance(structure, dict):
        made = OrderedDict if isinstance(structure, OrderedDict) else dict
        return made((key, kinds(item)) for key, item in structure.items())
    items = [kinds(item) for item in structure]
    if hasattr(structure, "_fields"):
        return structure._make(items)
    assert isinstance(structure, (list, tuple))
    return items if isinstance(structure, list) else tuple(items)


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
