"""exp, log, sine and cosine by their series, in whole numbers: all of them times 2ʷ.

Each term is rounded down, so that a sum of n terms is off by less than 2n.
"""

from __future__ import annotations

from functools import cache

HALVINGS = 8


def exp(x: int, w: int) -> int:
    """exp(x) for x from 0 to 1, off by less than 2²⁰: that of x/2⁸, squared eight times."""
    w += HALVINGS  # so that x/2⁸ is what x was
    term = total = 1 << w
    n = 1
    while term:
        term = ((term * x) >> w) // n
        total += term
        n += 1
    for _ in range(HALVINGS):
        total = (total * total) >> w
    return total >> HALVINGS


def sine(x: int, w: int) -> int:
    """sin(x) for x from 0 to 1."""
    return alternating(x, (x * x) >> w, 2, w)


def cosine(x: int, w: int) -> int:
    """cos(x) for x from 0 to 1."""
    return alternating(1 << w, (x * x) >> w, 1, w)


def alternating(term: int, square: int, n: int, w: int) -> int:
    """The sum of terms of which each is -square/(n·(n + 1)) times the one before, n + 2 next."""
    total, sign = term, 1
    while term:
        term, sign = ((term * square) >> w) // (n * (n + 1)), -sign
        total += sign * term
        n += 2
    return total


def log(m: int, e: int, w: int) -> int:
    """log(m·2ᵉ) = k·log(2) + 2·artanh((f - 1)/(f + 1)), f = m·2ᵉ/2ᵏ in [1, 2)."""
    bits = m.bit_length() - 1
    one = 1 << bits
    return (e + bits) * log_of_2(w) + 2 * artanh(((m - one) << w) // (m + one), w)


def artanh(z: int, w: int) -> int:
    """artanh(z) for z from 0 to 1/3."""
    square = (z * z) >> w
    total, n = z, 3
    while z:
        z = (z * square) >> w
        total += z // n
        n += 2
    return total


@cache
def log_of_2(w: int) -> int:
    """log(2) = 18·artanh(1/26) - 2·artanh(1/4801) + 8·artanh(1/8749)."""
    parts = ((18, 26), (-2, 4801), (8, 8749))
    return sum(times * artanh((1 << (w + 16)) // n, w + 16) for times, n in parts) >> 16


@cache
def pi(w: int) -> int:
    """π = 16·arctan(1/5) - 4·arctan(1/239), as Machin found."""

    def arctan(n: int) -> int:
        term = (1 << (w + 16)) // n
        total, k = 0, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term //= n * n
            k += 2
        return total

    return (16 * arctan(5) - 4 * arctan(239)) >> 16
