"""Whole powers of float64, correctly rounded, and 1 - βᵗ, which the moments are corrected by.

A loop asks for βᵗ with one t after the other, so these are computed by blocks of 256: as
β^(256·k)·βʲ, with each factor known as the sum of two float64, and the product, too. What a block
leaves undecided, and all else, is computed in whole numbers by squaring and multiplying.
"""

from __future__ import annotations

from math import ldexp
from typing import Any, TypeAlias

import numpy as np

from fusedstep._numerics.rounded import Approximation, rounded, shifted, split, two_floats
from fusedstep._numerics.rounding import check_rounding

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

HUGE = 2**64
"""An exponent from which on a power is 0, 1 or infinite."""


def correction(beta: float, t: int) -> float:
    """1 - βᵗ for β in [0, 1) and t from 1: βᵗ is rounded, and the difference is.

    A running mean that began at 0 is divided by it.

    >>> from fusedstep.portable import correction
    >>> correction(0.9, 1), correction(0.9, 2), correction(0.9, 10**6)
    (0.09999999999999998, 0.18999999999999995, 1.0)
    """
    known = _POWERS.get(beta)
    if known is None:
        if not 0 <= beta < 1:
            raise ValueError(f"beta={beta!r} is outside [0, 1); pass a share such as 0.9")
        known = powers_of(beta)
    if t >= known.gone:
        return 1.0
    rests = known.rests.get(t >> 8) or known.compute_rests(t >> 8)
    return rests[t & 255]


def beta_power(beta: float, t: int) -> float:
    """βᵗ for β in [0, 1) and t from 0."""
    return powers_of(beta)(t)


def whole_power(x: float, n: int) -> float:
    """xⁿ of a finite x."""
    if x == 0:
        return 1.0 if n == 0 else 0.0
    m, e = split(abs(x))
    sign = -1.0 if x < 0 and n % 2 else 1.0
    if abs(n) > HUGE and abs(x) != 1:
        n = HUGE if n > 0 else -HUGE
    return sign * rounded(lambda bits: raised(m, e, n, bits))


def geometric(x: float, n: int) -> float:
    """1 + x + x² + ··· + xⁿ⁻¹ = (xⁿ - 1)/(x - 1), for x above 1 and n from 0."""
    if n == 0:
        return 0.0
    m, e = split(x)
    grown, k = split(x - 1)  # which is exact

    def approximate(bits: int) -> Approximation:
        w = bits + 64  # the difference is at least 2⁻⁵²
        power, exponent, error = raised(m, e, n, w)
        difference = shifted(power, exponent + w) - (1 << w)
        lost = shifted(error, exponent + w) + 1
        return (difference << w) // grown, -2 * w - k, (lost << w) // grown + 1

    return rounded(approximate)


def raised(m: int, e: int, n: int, bits: int) -> Approximation:
    """(m·2ᵉ)ⁿ by squaring and multiplying, in the order of the bits of n from the highest.

    A product that is cut off to w bits loses less than a share 2¹⁻ʷ of itself, and each squaring
    doubles the share that was lost before: in the end that is less than 4n·2¹⁻ʷ. A negative n
    makes it the reciprocal, which loses as much again.
    """
    most = bits + n.bit_length()
    value, exponent, lost = 1, 0, 0
    for bit in bin(abs(n))[2:]:
        value, exponent = value * value, 2 * exponent
        if bit == "1":
            value, exponent = value * m, exponent + e
        cut = value.bit_length() - most
        if cut > 0:
            lost = lost or value & ((1 << cut) - 1)
            value, exponent = value >> cut, exponent + cut
    if n < 0:
        scale = value.bit_length() + most
        value, exponent, lost = (1 << scale) // value, -exponent - scale, 1
    return value, exponent, 32 << (value.bit_length() - bits) if lost else 0


class Powers:
    """Powers of one number in [0, 1), for exponents from 0."""

    BLOCK = 256
    MOST_BLOCKS = 1024
    BITS = 192
    """Bits of each power of the first block."""
    BOUND = ldexp(1.0, -100)
    """The share of a product that its two float64 may be off by."""
    FEWEST = ldexp(1.0, -900)
    """Below it the second of two float64 may have lost bits."""

    def __init__(self, x: float) -> None:
        self.x = x
        m, e = split(x)
        value, exponent, pairs = 1, 0, []
        for _ in range(self.BLOCK):
            pairs.append(two_floats(value, exponent))
            cut = max((value * m).bit_length() - self.BITS, 0)
            value, exponent = (value * m) >> cut, exponent + e + cut
        self.low = np.array(pairs).T
        self.blocks: dict[int, list[float]] = {}
        self.rests: dict[int, list[float]] = {}
        """1 - xⁿ, by blocks, too: a step asks for little else."""
        self.gone = HUGE
        """An exponent from which on 1 - xⁿ is 1, as far as that is known."""

    def __call__(self, n: int) -> float:
        block = self.blocks.get(n >> 8) or self.compute(n >> 8)
        return block[n & 255]

    def compute(self, k: int) -> list[float]:
        """The powers of a block, whose first exponent is 256·k."""
        check_rounding()  # what another rounding gave would be there for good
        first = k * self.BLOCK
        m, e, _ = raised(*split(self.x), min(first, HUGE), 128)
        with np.errstate(all="ignore"):
            sums, rests = product(*two_floats(m, e), *self.low)
            bound = sums * self.BOUND
            values: list[float] = (sums + (rests - bound)).tolist()
            undecided = (sums + (rests + bound) != values) | (sums < self.FEWEST)
        for j in np.flatnonzero(undecided).tolist():
            values[j] = whole_power(self.x, first + j)
        if len(self.blocks) >= self.MOST_BLOCKS:
            self.blocks, self.rests = {}, {}
        self.blocks[k] = values
        return values

    def compute_rests(self, k: int) -> list[float]:
        """1 - xⁿ of a block."""
        rests = [1 - power for power in self.blocks.get(k) or self.compute(k)]
        if rests[0] == 1 and k * self.BLOCK < self.gone:
            self.gone = k * self.BLOCK
        self.rests[k] = rests
        return rests


def product(high: float, rest: float, highs: Array, rests: Array) -> tuple[Array, Array]:
    """(high + rest)·(highs + rests), but for rest·rests, as sums of two.

    The product of two float64 is the sum of two: Dekker (1971), "A Floating-Point Technique for
    Extending the Available Precision".
    """
    first = high * highs
    a, b = halves(high)
    c, d = halves(highs)
    second = ((a * c - first) + a * d + b * c) + b * d
    second = second + (high * rests + rest * highs)
    total = first + second
    return total, second - (total - first)


def halves(x: Any) -> tuple[Any, Any]:
    """Two numbers of at most 26 bits each whose sum is x."""
    scaled = x * 134217729.0  # 2²⁷ + 1
    upper = scaled - (scaled - x)
    return upper, x - upper


_POWERS: dict[float, Powers] = {}

MOST_NUMBERS = 1024
"""Numbers whose powers are known, of some ten thousand bytes each; then all are forgotten."""


def powers_of(x: float) -> Powers:
    """The powers of x in [0, 1), with those that are known."""
    known = _POWERS.get(x)
    if known is None:
        known = Powers(x)
        if len(_POWERS) >= MOST_NUMBERS:
            _POWERS.clear()
        _POWERS[x] = known
    return known
