"""The norm of all gradients together, the same to the bit on every engine.

It is the root of a sum of squares in float64 over a fixed tree, which the arrays' layout
alone decides. Each gradient, in the order of its parameter's memory, is cut into blocks of
BLOCK elements. Element i of a block is added to lane i % LANES, in turn, and the lanes are
folded in halves. The sums of all blocks, gradient after gradient, are folded in halves too.

No square is lost. That of a float32 is exact in float64. Of a float64 that is very small or
very large the element is scaled by a power of two first, and summed apart: Blue (1978), "A
Portable Fortran Program to Find the Euclidean Norm of a Vector". So a block has three sums,
and they are finite exactly if all of its elements are.

The engines sum the blocks: csrc/kernels.inc, backends/sums.py and backends/kernels.py do
what `squares` here defines.
"""

from __future__ import annotations

from math import isfinite, ldexp, sqrt
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LANES = 32
BLOCK = 4096
SUMS = 3
"""Of a block: of the squares of its small, middling and large elements."""

SMALL, LARGE = 2.0**-500, 2.0**480
"""What is below or above is scaled before it is squared."""

UP, DOWN = 600, -560
"""By which powers of two."""


def blocks(n: int) -> int:
    """How many blocks n elements have."""
    return -(-n // BLOCK)


def squares(g: Array) -> Array:
    """The sums of each block of a gradient, which is flat: (blocks, SUMS), float64."""
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
    """What each element adds to each of the sums."""
    small, large = np.abs(g) < SMALL, np.abs(g) > LARGE
    wide = g.astype(np.float64)
    if g.dtype == np.float32:
        small = large = np.zeros_like(small)
    scaled = (
        np.where(small, wide * 2.0**UP, 0.0),
        np.where(small | large, 0.0, wide),
        np.where(large, wide * 2.0**DOWN, 0.0),
    )
    return np.square(scaled)


Total: TypeAlias = tuple[float, float, float]


def total(sums: Array) -> Total:
    """The sums of all blocks together."""
    while len(sums) > 1:
        half = (len(sums) + 1) // 2
        folded = sums[:half].copy()
        folded[: len(sums) - half] += sums[half:]
        sums = folded
    return tuple(sums[0].tolist()) if len(sums) else (0.0, 0.0, 0.0)


def norm(total: Total) -> float:
    """The norm that a total makes: NaN or infinity if an element is."""
    small, middle, large = total
    if large > 0:
        return sqrt(large + ldexp(middle, 2 * DOWN)) * 2.0**-DOWN
    if middle == 0:
        return sqrt(small) * 2.0**-UP
    return sqrt(middle + ldexp(small, -2 * UP))


def is_finite(total: Total) -> bool:
    """Whether all elements are."""
    return isfinite(sum(total))


def fits(total: Total, unscale: float, dtype: np.dtype[Any]) -> bool:
    """Whether elements of such sums are finite, and still are once they are unscaled.

    It is their norm that is held against the dtype's range then, to be safe, and the factor
    is the one of that dtype, which may be larger.
    """
    if not is_finite(total) or unscale <= 1:
        return is_finite(total)
    return norm(total) * float(dtype.type(unscale)) <= float(np.finfo(dtype).max)
