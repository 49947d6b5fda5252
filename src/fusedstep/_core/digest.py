"""Digests: SHA-256 over the numbers of a run, however they lie in memory and wherever.

Digest contract 1. A parameter's digest is that of these bytes, one after the other::

    ["fusedstep digest 1", name, dtype, shape, t]    as JSON without spaces, and a line feed
    the parameter's elements
    for each state array, by its letter in the order of the alphabet:
        [letter, dtype, shape]                       as JSON without spaces, and a line feed
        its elements

Elements are in C order and little-endian, as steps see them: float32 or float64, whatever their
format in memory. A NaN is 0x7fc00000, or 0x7ff8000000000000. Rows with a t of their own have these
as a state array "t" of int64, unless all are the parameter's. The digest of a run is that of the
hexadecimal digests of its parameters, each with a line feed after it, in the order of the names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.structure import Branch, Structure
from fusedstep._arrays.walk import Array

VERSION = "fusedstep digest 1"

ROW_STEPS = "t"
"""The letter of the steps of each row."""

PART = 1 << 18
"""Elements that are made canonical at a time, so that they stay in the cache."""


class Numbers(NamedTuple):
    """The numbers of one parameter, as steps see them."""

    name: str
    p: Array
    t: int
    states: Mapping[str, Array]
    """State arrays, by letter."""
    row_t: Any = None
    """The steps of each row, int64; None: they are the parameter's."""


def digest(parameters: Iterable[Numbers]) -> str:
    """The digest of a run, as 64 hexadecimal digits."""
    return digest_of({each.name: parameter_digest(each) for each in parameters})


def digest_of(digests: Mapping[str, str]) -> str:
    """The digest of a run whose parameters have these digests, by name."""
    lines = (f"{digests[name]}\n" for name in sorted(digests))
    return sha256("".join(lines).encode()).hexdigest()


def parameter_digest(numbers: Numbers) -> str:
    """The digest of one parameter with its state and t."""
    made = sha256()
    for part in parts_of(numbers):
        made.update(part)
    return made.hexdigest()


def parts_of(numbers: Numbers) -> Iterator[Any]:
    """The bytes of a parameter's digest, in parts."""
    p, t = numbers.p, numbers.t
    yield line(VERSION, numbers.name, p.dtype.name, [*p.shape], t)
    yield from canonical(p)
    states = {**numbers.states}
    if numbers.row_t is not None and (numbers.row_t != t).any():
        states[ROW_STEPS] = numbers.row_t.astype(np.int64)
    for letter in sorted(states):
        array = states[letter]
        yield line(letter, array.dtype.name, [*array.shape])
        yield from canonical(array)


def line(*entries: Any) -> bytes:
    """A line of JSON without spaces."""
    return (json.dumps(entries, separators=(",", ":")) + "\n").encode()


def canonical(array: Array) -> Iterator[Array]:
    """The bytes of an array's elements in C order, little-endian, with one NaN for all."""
    flat = np.ascontiguousarray(array).reshape(-1)
    little = flat.dtype.newbyteorder("<")
    for begin in range(0, flat.size, PART):
        part = flat[begin : begin + PART].astype(little, copy=False)
        if part.dtype.kind == "f" and (strange := part != part).any():
            part = np.where(strange, part.dtype.type(np.nan), part).astype(little)
        yield part.view(np.uint8)


def names_of(structure: Structure) -> list[str]:
    """The parameters' names: the keys that lead to each, with dots between them.

    Where keys with dots would give two the same name, all are called by their paths, as
    `["a"][0]`. A single array has the empty name.
    """
    names = [".".join(map(str, keys)) for keys in keys_of(structure)]
    return names if len({*names}) == len(names) else list(structure.paths)


def keys_of(structure: Structure) -> Iterator[tuple[Any, ...]]:
    """The keys and indices that lead to each parameter."""
    if not isinstance(structure, Branch):
        yield ()
        return
    for key, child in structure.children.items():
        for below in keys_of(child):
            yield key, *below
