"""The norm of all gradients together, the same to the bit on every backend.

It is the root of a sum of squares in float64 over a fixed tree, which the arrays' layout
alone decides. Each gradient, in the order of its parameter's memory, is cut into blocks of
BLOCK elements. Element i of a block is added to lane i % LANES, in turn, and the lanes are
folded in halves. The sums of all blocks, gradient after gradient, are folded in halves too.

No square is lost. The square of a float32 is exact in float64. A float64 that is very small or
very large is scaled by a power of two before it is squared, and summed apart: Blue (1978), "A
Portable Fortran Program to Find the Euclidean Norm of a Vector". So a block has three sums,
and they are finite exactly if all of its elements are.

The backends sum the blocks: csrc/loops.inc, _backends/numba/squares.py and
_backends/cuda/squares.py compute what `squares` here defines. csrc/norm.c is `measure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf, isfinite, isnan, ldexp, nan, sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LANES = 32
"""Partial sums of a block."""

BLOCK = 4096
"""Elements of a block."""

SUMS = 3
"""Sums of a block: of the squares of its small, its middling and its large elements."""

SMALL, LARGE = ldexp(1.0, -500), ldexp(1.0, 480)
"""Magnitudes: smaller and larger elements are scaled before they are squared."""

UP, DOWN = 600, -560
"""The exponents of the powers of two that small and large elements are scaled by."""


def blocks(n: int) -> int:
    """The number of blocks of n elements."""
    return -(-n // BLOCK)


def squares(g: Array) -> Array:
    """The sums of each block of a flat gradient: an array of (blocks, SUMS), float64."""
    n = blocks(g.size)
    rows = -(-min(g.size, BLOCK) // LANES)
    padded = np.zeros(n * BLOCK, g.dtype)
    padded[: g.size] = g
    elements = padded.reshape(n, BLOCK // LANES, LANES)
    lanes = np.zeros((SUMS, n, LANES))
    for row in range(rows):
        lanes += _parts(elements[:, row])
    half = LANES // 2
    while half:
        lanes[..., :half] += lanes[..., half : 2 * half]
        half //= 2
    return lanes[..., 0].T


def _parts(g: Array) -> Array:
    """The squares that each element adds to each of the sums."""
    small, large = np.abs(g) < SMALL, np.abs(g) > LARGE
    doubles = g.astype(np.float64)
    if g.dtype == np.float32:
        small = large = np.zeros_like(small)
    scaled = (
        np.where(small, doubles * ldexp(1.0, UP), 0.0),
        np.where(small | large, 0.0, doubles),
        np.where(large, doubles * ldexp(1.0, DOWN), 0.0),
    )
    return np.square(scaled)


Total: TypeAlias = tuple[float, float, float]
"""The sums of all blocks together: of small, middling and large elements."""


def total(sums: Array) -> Total:
    """The sums of all blocks, folded in halves."""
    while len(sums) > 1:
        half = (len(sums) + 1) // 2
        folded = sums[:half].copy()
        folded[: len(sums) - half] += sums[half:]
        sums = folded
    return tuple(sums[0].tolist()) if len(sums) else (0.0, 0.0, 0.0)


def norm(total: Total) -> float:
    """The norm of all elements: NaN or infinity if one of them is."""
    small, middle, large = total
    if large > 0:
        return sqrt(large + ldexp(middle, 2 * DOWN)) * ldexp(1.0, -DOWN)
    if middle == 0:
        return sqrt(small) * ldexp(1.0, -UP)
    return sqrt(middle + ldexp(small, -2 * UP))


class Measured(NamedTuple):
    """The measures of all gradients together, before a step."""

    norm: float
    """Their norm over `scale`."""
    clip: float
    """The factor that cuts the norm to `max_norm`; or, where each gradient has its own, the
    smallest."""
    finite: bool


def measure(total: Total, scale: float, max_norm: float) -> Measured:
    """The measures of gradients whose squares have this sum."""
    scaled = norm(total) / scale
    return Measured(scaled, factor(scaled, max_norm), is_finite(total))


def factor(norm: float, max_norm: float) -> float:
    """The factor that cuts a norm to `max_norm`: 1 if it is no larger, NaN if it is NaN."""
    return 1.0 if norm <= max_norm or max_norm == inf else max_norm / norm


def totals(sums: Array, sizes: Iterable[int]) -> Iterator[Total]:
    """The sums of each gradient's blocks; `sums` has those of all, gradient after gradient.

    `sizes` are the gradients' elements.
    """
    start = 0
    for size in sizes:
        end = start + blocks(size)
        yield total(sums[start:end])
        start = end


def factors(totals: Iterable[Total], scale: float, max_norm: float) -> list[float]:
    """The factor that cuts the norm of each gradient to `max_norm`."""
    return [factor(norm(total) / scale, max_norm) for total in totals]


def smallest(factors: Sequence[float]) -> float:
    """The smallest of some factors of clipping: NaN if one is, 1 if there is none."""
    return nan if any(map(isnan, factors)) else min(factors, default=1.0)


def is_finite(total: Total) -> bool:
    """Whether all elements are finite."""
    return isfinite(sum(total))


def fits(total: Total, unscale: float, dtype: np.dtype[Any]) -> bool:
    """Whether elements with these sums are finite, and remain so when they are unscaled.

    No element is larger than their norm, so that is compared with the dtype's range. The factor
    is rounded to the dtype first, as in the rules.
    """
    if not is_finite(total) or unscale <= 1:
        return is_finite(total)
    return norm(total) * float(dtype.type(unscale)) <= float(np.finfo(dtype).max)
