"""Float32 values by their bits: those at which formats go wrong, and any."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SPECIAL = np.array(
    [
        *(0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000),  # zeros, subnormal and least
        *(0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001),
        *(0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F7FFF80),  # the largest
        *(0x38800000, 0x387FFFFF, 0x33000000, 0x33000001, 0x477FEFFF, 0x477FF000),  # of float16
        *(0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x3F800080, 0x3F800180),  # ties
    ],
    np.uint32,
)
"""NaN, infinity, the ends of ranges, and what lies halfway between two stored values."""


def patterns(rng: np.random.Generator, n: int) -> Array:
    """Float32 values of all kinds: special ones, any bits, and ordinary numbers."""
    of_any_bits = rng.integers(0, 2**32, n, dtype=np.uint64).astype(np.uint32)
    ordinary = rng.normal(size=n).astype(np.float32).view(np.uint32)
    kind = rng.integers(0, 5, n)
    chosen = np.where(kind == 0, rng.choice(SPECIAL, n), np.where(kind < 3, of_any_bits, ordinary))
    return chosen.view(np.float32)


def same(a: Array, b: Array) -> bool:
    """Whether two arrays of one dtype have the same bits; two NaNs count as equal."""
    equal = a.view(f"u{a.itemsize}") == b.view(f"u{b.itemsize}")
    if a.dtype.kind == "f":
        equal |= np.isnan(a) & np.isnan(b)
    return a.dtype == b.dtype and bool(equal.all())
