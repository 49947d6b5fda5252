"""The float64 nearest to a value that whole numbers approximate as closely as is asked for.

An approximation is a whole number times a power of two, with a bound of its error. If all numbers
within the bound have the same nearest float64, that is the value's, too; otherwise the value is
approximated again, with twice as many bits. This is how Ziv (1991), "Fast Evaluation of Elementary
Mathematical Functions with Correctly Rounded Last Bit", rounds. Python's whole numbers are exact
everywhere, so the result is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from math import frexp, inf, ldexp
from typing import TypeAlias

Approximation: TypeAlias = tuple[int, int, int]
"""m, e and a bound of the error of m, for m·2ᵉ."""

PRECISIONS = (128, 256, 512)
"""The bits of the approximations that are tried in turn."""

EXACT = 64
"""More bits than a value has that is a float64, or lies half-way between two."""

MOST = 1000
"""Bits of a whole number that is converted to float64 at once."""

LEAST = -1074
"""The exponent of the smallest float64."""


def rounded(approximate: Callable[[int], Approximation]) -> float:
    """The float64 nearest to what `approximate` gives for so many bits, to even where two are.

    What the most bits leave undecided is a float64, or half-way between two.
    """
    for bits in PRECISIONS:
        m, e, error = approximate(bits)
        value = nearest(m - error, e)
        if value == nearest(m + error, e):
            return value
    lost = m.bit_length() - EXACT
    return nearest((m + (1 << (lost - 1))) >> lost, e + lost)


def nearest(m: int, e: int) -> float:
    """The float64 nearest to m·2ᵉ, to even where two are; infinite if that is too large."""
    if m < 0:
        return -nearest(-m, e)
    if (more := m.bit_length() - MOST) > 0:  # than a float64 can be converted from
        m, e = m >> more | (m & ((1 << more) - 1) != 0), e + more
    lost = LEAST - e
    if lost > 0 and m.bit_length() + e < LEAST + 53:  # subnormal: it has fewer bits
        m, e = halved(m, min(lost, m.bit_length() + 1)), LEAST
    try:
        return ldexp(float(m), e)
    except OverflowError:
        return inf


def halved(m: int, times: int) -> int:
    """The whole number nearest to m/2^times, to even where two are."""
    kept, rest = m >> times, m & ((1 << times) - 1)
    half = 1 << (times - 1)
    return kept + (rest > half or (rest == half and kept & 1))


def two_floats(m: int, e: int) -> tuple[float, float]:
    """The float64 nearest to m·2ᵉ, and the one nearest to what is left."""
    high = nearest(m, e)
    first, k = split(high)
    least = min(e, k)
    return high, nearest((m << (e - least)) - (first << (k - least)), least)


def split(x: float) -> tuple[int, int]:
    """M and e, whole numbers, of a finite x = m·2ᵉ."""
    fraction, e = frexp(x)
    return int(ldexp(fraction, 53)), e - 53


def shifted(m: int, by: int) -> int:
    """m·2^by, rounded down."""
    return m << by if by >= 0 else m >> -by
