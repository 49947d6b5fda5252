"""The search for arrays that share memory: what comparing every pair byte by byte would find."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import pytest

from fusedstep._arrays import cluster, overlap
from fusedstep._arrays.overlap import WrittenMemory, extent
from fusedstep._arrays.plain import address

Array: TypeAlias = np.ndarray[Any, Any]

# ---- the naive twin ----


def bytes_of(array: Array) -> set[int]:
    """The addresses of all bytes of an array's elements."""
    offsets = (
        sum(k * stride for k, stride in zip(index, array.strides, strict=True))
        for index in product(*map(range, array.shape))
    )
    return {address(array) + offset + k for offset in offsets for k in range(array.itemsize)}


class Twin:
    """`WrittenMemory`, with sets of bytes."""

    def __init__(self, arrays: list[tuple[str, Array]]) -> None:
        entries = [(*extent(array), name, bytes_of(array)) for name, array in arrays if array.size]
        self.entries = sorted(entries, key=lambda entry: entry[:2])

    def overlaps(self) -> str | None:
        for at, (*_, name, own) in enumerate(self.entries):
            for *_, before, other in reversed(self.entries[:at]):
                if own & other:
                    return "{} and {} share memory".format(*sorted((name, before)))
        return None

    def shared(self, g: Array) -> str | None:
        own = bytes_of(g)
        for *_, name, other in reversed(self.entries):
            if own & other:
                return f"g shares memory with {name}"
        return None


def refusal(check: Callable[[], None]) -> str | None:
    """The beginning of the error that a check raises, None if it raises none."""
    try:
        check()
    except ValueError as error:
        return str(error).partition(",")[0]
    return None


# ---- random families of views ----


def parts(rng: np.random.Generator, whole: Array, count: int) -> list[Array]:
    """Views of an array that share nothing: it is cut again and again, along any axis.

    A cut leaves two halves, or every k-th element and those between.
    """
    found = [whole]
    while len(found) < count and any(part.size > 1 for part in found):
        part = found.pop(int(rng.integers(len(found))))
        axis = int(rng.integers(part.ndim))
        length = part.shape[axis]
        if length < 2:
            found.append(part)
            continue
        part = np.moveaxis(part, axis, 0)
        if rng.integers(2):
            at = int(rng.integers(1, length))
            pieces = [part[:at], part[at:]]
        else:
            step = int(rng.integers(2, min(length, 6) + 1))
            pieces = [part[k::step] for k in range(step)]
        found += [np.moveaxis(piece, 0, axis) for piece in pieces]
    return found


def turned(rng: np.random.Generator, array: Array) -> Array:
    """A view of the same elements, with axes in another order, or backwards."""
    array = array.transpose(rng.permutation(array.ndim))
    return array[tuple(slice(None, None, rng.choice([1, -1])) for _ in range(array.ndim))]


def family(rng: np.random.Generator) -> list[Array]:
    """Some views of one buffer: as a rule disjoint, or nearly so."""
    dtypes: list[Any] = [np.float32, np.float64]
    buffer = np.zeros(int(rng.integers(600, 1200)), np.uint8)[int(rng.integers(8)) :]
    first = rng.choice(dtypes)
    shape = [int(n) for n in rng.integers(1, 9, rng.integers(1, 4))]
    while np.prod(shape) * np.dtype(first).itemsize > buffer.size:
        shape[int(np.argmax(shape))] -= 1
    whole = np.ndarray(shape, first, buffer)
    found = [turned(rng, part) for part in parts(rng, whole, int(rng.integers(2, 30)))]
    if rng.integers(3) == 0:  # records: fields of different sizes, none aligned
        kinds = [(f"x{k}", rng.choice(dtypes)) for k in range(int(rng.integers(2, 12)))]
        record = np.dtype([("gap", np.uint8), *kinds])
        rows = np.ndarray(buffer.size // record.itemsize, record, buffer)
        found = [turned(rng, rows[name]) for name, _ in kinds]
    for _ in range(int(rng.integers(3))):  # anything anywhere, which may meet the others
        dtype = np.dtype(rng.choice(dtypes))
        strides = [int(s) for s in rng.integers(-40, 40, rng.integers(1, 4))]
        lengths = [int(n) for n in rng.integers(1, 5, len(strides))]
        ends = [s * (n - 1) for s, n in zip(strides, lengths, strict=True)]
        least = -sum(end for end in ends if end < 0)
        most = buffer.size - dtype.itemsize - sum(end for end in ends if end > 0)
        if least <= most:
            at = int(rng.integers(least, most + 1))
            found.append(np.ndarray(lengths, dtype, buffer, at, strides))
    return found


@pytest.mark.parametrize("few", [0, cluster.FEW])
@pytest.mark.parametrize("seed", range(10))
def test_as_byte_by_byte(seed: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same verdicts, and the same names, also where few arrays go the way of many."""
    for module in (overlap, cluster):
        monkeypatch.setattr(module, "FEW", few)
    rng = np.random.default_rng(seed)
    verdicts: list[bool] = []
    for _ in range(150):
        arrays = family(rng)
        named = [(f"params[{k}]", array) for k, array in enumerate(arrays)]
        held_out, kept = named[::5], [each for k, each in enumerate(named) if k % 5]
        written, twin = WrittenMemory(kept), Twin(kept)
        expected = twin.overlaps()
        assert refusal(written.refuse_overlaps) == expected
        verdicts.append(expected is None)
        for _, g in held_out:
            refused = refusal(partial(written.refuse, g, "g"))
            assert refused == twin.shared(g)
            verdicts.append(refused is None)
    assert 0.1 < np.mean(verdicts) < 0.9


# ---- how many are compared ----


def matrix(*shape: int, dtype: Any = np.float32) -> Array:
    return np.empty(shape, dtype)


def huge_columns(n: int) -> list[Array]:
    """Columns of a matrix of many gigabytes, none of which is there."""
    m: Array = np.lib.stride_tricks.as_strided(matrix(1), (1 << 20, n), (4 * n, 4))
    return [m[:, j] for j in range(n)]


def rows_beside_a_column(n: int) -> list[Array]:
    m = matrix(n, 9)
    return [m[:, 0], *m[:, 1:]]


def tiles(n: int) -> list[Array]:
    side = int(n**0.5)
    m = matrix(4 * side, 4 * side)
    return [tile for band in np.split(m, side) for tile in np.split(band, side, axis=1)]


def fields(n: int) -> list[Array]:
    kinds = [(f"x{k}", np.float32 if k % 2 else np.float64) for k in range(n)]
    records = matrix(50, dtype=kinds)
    return [records[name] for name, _ in kinds]


def columns_of_two_lengths(n: int) -> list[Array]:
    m = matrix(64, n)
    return [half for j in range(0, n, 2) for half in (m[:32, j], m[32:, j])]


def matrices_in_one_buffer(n: int) -> list[Array]:
    return [column for m in matrix(n // 20, 30, 20) for column in m.T]


FAMILIES: dict[str, Callable[[int], list[Array]]] = {
    "columns": lambda n: [*matrix(100, n).T],
    "rows of a Fortran matrix": lambda n: [*np.asfortranarray(matrix(n, 100))],
    "reversed columns": lambda n: [*matrix(100, n)[::-1].T],
    "huge columns": huge_columns,
    "blocks of columns": lambda n: np.split(matrix(30, 5 * n), n, axis=1),
    "blocks of any width": lambda n: np.split(
        matrix(30, n * n), np.cumsum(np.arange(1, n)), axis=1
    ),
    "every n-th element": lambda n: [m[k::n] for m in [matrix(20 * n)] for k in range(n)],
    "rows beside a column": rows_beside_a_column,
    "tiles": tiles,
    "diagonals": lambda n: [m.diagonal(k) for m in [matrix(n, n)] for k in range(n)],
    "fields of records": fields,
    "middle axis": lambda n: [*matrix(8, n, 8).transpose(1, 0, 2)],
    "last axis": lambda n: [*matrix(8, 8, n).transpose(2, 0, 1)],
    "columns of two lengths": columns_of_two_lengths,
    "matrices in one buffer": matrices_in_one_buffer,
    "separate": lambda n: [matrix(5) for _ in range(n)],
}
"""Families of n disjoint arrays that lie among one another."""


@pytest.mark.parametrize("name", FAMILIES)
def test_few_are_compared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of n arrays, and of n gradients that lie among them, meets a few others at most."""
    n = 400
    arrays = FAMILIES[name](2 * n)
    compared = 0

    def shares_memory(one: Array, other: Array) -> bool:
        nonlocal compared
        compared += 1
        return bool(real(one, other))

    real = np.shares_memory
    monkeypatch.setattr(np, "shares_memory", shares_memory)
    written = WrittenMemory((str(k), array) for k, array in enumerate(arrays[::2]))
    written.refuse_overlaps()
    for g in arrays[1::2]:
        written.refuse(g, "g")
    assert compared <= cluster.FEW * len(arrays)
    with pytest.raises(ValueError, match="share memory"):
        WrittenMemory(
            (str(k), array) for k, array in enumerate([*arrays, arrays[-1]])
        ).refuse_overlaps()
