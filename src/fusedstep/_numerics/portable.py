"""Powers, exp, log and cosines of float64, correctly rounded: no C library decides a bit of them.

Numerics contract: the scalars of a step are made by `+ - * /`, square root, and the functions of
this file, whose values are the float64 nearest to the exact ones, to even where two are. So they
are the same on every machine, and in whatever way they were computed.

They are computed in whole numbers, see series.py and rounded.py. What a schedule asks for at each
step is looked for in float64 first, near an entry of a table: that decides all but one value in
some thirty.
"""

from __future__ import annotations

from functools import cache
from math import copysign, inf, isinf, ldexp, nan, pi

from fusedstep._numerics import series
from fusedstep._numerics.powers import whole_power
from fusedstep._numerics.rounded import Approximation, rounded, shifted, split, two_floats

OUT = 800
"""exp is 0 or infinite beyond this on either side."""


def power(x: float, y: float) -> float:
    """Raise x to the power of y: xʸ, the nearest float64.

    Zeros, infinities, NaN and signs are as IEEE 754 has them for its `pow`; there are no errors.
    Where y is whole, an int may be as large as it likes.

    >>> from fusedstep.portable import power
    >>> power(0.96, 2.5), power(-2.0, 3), power(0.0, -1), power(-1.0, 0.5)
    (0.9029798987795907, -8.0, inf, nan)
    """
    x = float(x)
    whole = isinstance(y, int)
    if not whole:
        y = float(y)
        whole = not isinf(y) and y == y // 1
    if x == 1 or y == 0:
        return 1.0
    if x != x or y != y:
        return nan
    if not whole and isinf(y):
        return 1.0 if x == -1 else inf if (abs(x) > 1) == (y > 0) else 0.0
    if x == 0 or isinf(x):
        size = inf if (x == 0) == (y < 0) else 0.0
        return copysign(size, x) if whole and y % 2 else size
    if whole:
        return whole_power(x, int(y))
    if x < 0:
        return nan
    return rounded(lambda bits: _power(x, y, bits))


def _power(x: float, y: float, bits: int) -> Approximation:
    """exp(y·log(x)), for which y·log(x) has to be as exact as its size asks for."""
    m, e = split(y)
    w = bits + 64
    size = max(m.bit_length() + e, 0) + 16  # of y; a logarithm is below 2¹⁰
    return _exp(m * series.log(*split(x), w + size), e - w - size, w)


def exp(x: float) -> float:
    """Return the exponential eˣ, the nearest float64; infinity where that is too large.

    >>> from fusedstep.portable import exp
    >>> exp(1.0), exp(-0.5), exp(1000.0)
    (2.718281828459045, 0.6065306597126334, inf)
    """
    x = float(x)
    if -700 < x < 700:
        k = round(x * EXP_ENTRIES_A_UNIT)
        r = (x - k * STEP_HIGH) - k * STEP_LOW
        high, rest = exp_entry(k & (EXP_ENTRIES - 1))
        more = rest + high * (r + r * r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120)))))
        value = high + (more - EXP_BOUND)
        if value == high + (more + EXP_BOUND):
            return ldexp(value, k // EXP_ENTRIES)
    if x != x or isinf(x):
        return 0.0 if x < 0 else x
    return rounded(lambda bits: _exp(*split(x), bits + 64))


def _exp(m: int, e: int, w: int) -> Approximation:
    """exp(m·2ᵉ) = 2ᵏ·exp(r), with r from 0 to log(2)."""
    x = min(max(shifted(m, e + w), -OUT << w), OUT << w)
    k, r = divmod(x, series.log_of_2(w))
    return series.exp(r, w), k - w, 1 << 32


EXP_ENTRIES = 256
EXP_ENTRIES_A_UNIT = ldexp(EXP_ENTRIES / series.log_of_2(64), 64)
STEP_HIGH = ldexp(series.log_of_2(64) >> 30, -34) / EXP_ENTRIES
"""log(2)/256 with 34 bits, so that a product with a number of entries is exact."""
STEP_LOW = ldexp(series.log_of_2(128) - (series.log_of_2(64) >> 30 << 94), -128) / EXP_ENTRIES
EXP_BOUND = ldexp(1.0, -59)
"""More than the error of what is added to an entry: some five roundings of less than 2⁻⁹."""


@cache
def exp_entry(k: int) -> tuple[float, float]:
    """2^(k/256) as the sum of two float64."""
    w = 192
    return two_floats(series.exp(series.log_of_2(w) * k // EXP_ENTRIES, w), -w)


def log(x: float) -> float:
    """Return the natural logarithm of x, the nearest float64; NaN below 0.

    >>> from fusedstep.portable import log
    >>> log(10.0), log(1.0), log(0.0)
    (2.302585092994046, 0.0, -inf)
    """
    x = float(x)
    if x != x or x < 0:
        return nan
    if x == 0 or isinf(x):
        return x if x else -inf
    return rounded(lambda bits: _log(x, bits))


def _log(x: float, bits: int) -> Approximation:
    w = bits + 96  # which one as small as 2⁻⁵³ asks for
    return series.log(*split(x), w), -w, 1 << 16 if x != 1 else 0


def cos_pi(x: float) -> float:
    """Return cos(π·x), the nearest float64: exact where x is a multiple of a half.

    Half a cosine from 1 to 0 over n steps is `(1 + cos_pi(t / n)) / 2`.

    >>> from fusedstep.portable import cos_pi
    >>> [cos_pi(x) for x in (0.0, 0.25, 0.5, 1.0, 1e300)]
    [1.0, 0.7071067811865476, 0.0, -1.0, 1.0]
    """
    x = float(x)
    if x != x or isinf(x):
        return nan
    x = abs(x) % 2.0
    x = min(x, 2 - x)
    if x == 0.5:
        return 0.0
    if x > 0.5:
        return -rounded(lambda bits: _cos_pi(*split(1 - x), bits))
    return rounded(lambda bits: _cos_pi(*split(x), bits))


def _cos_pi(m: int, e: int, bits: int) -> Approximation:
    """cos(π·m·2ᵉ) of what is below a half, as a sine where that is small."""
    w = bits + 64
    x = shifted(m, e + w)
    if 4 * x < 1 << w:
        return series.cosine((x * series.pi(w)) >> w, w), -w, 1 << 10
    x = (1 << (w - 1)) - x
    return series.sine((x * series.pi(w)) >> w, w), -w, 1 << 10


def half_cosine(x: float) -> float:
    """(1 + cos(π·x))/2 for x from 0 to 1: half a cosine from 1 to 0."""
    k = round(x * COSINE_ENTRIES)
    angle = pi * (x - k / COSINE_ENTRIES)
    square = angle * angle
    high, rest, cosine, sine = cosine_entry(k)
    fall = square * (1 / 2 - square * (1 / 24 - square * (1 / 720)))
    rise = angle * (1 - square * (1 / 6 - square * (1 / 120)))
    more = rest - (cosine * fall + sine * rise)
    value = high + (more - COSINE_BOUND)
    if value == high + (more + COSINE_BOUND):
        return value
    return rounded(lambda bits: _half_cosine(*split(x), bits))


def _half_cosine(m: int, e: int, bits: int) -> Approximation:
    """The square of the cosine of x·π/2, which is the sine of (1 - x)·π/2."""
    w = bits + 128
    x = shifted(m, e + w)
    if 2 * x < 1 << w:
        root = series.cosine((x * series.pi(w)) >> (w + 1), w)
    else:
        root = series.sine((((1 << w) - x) * series.pi(w)) >> (w + 1), w)
    return root * root, -2 * w, root << 11


COSINE_ENTRIES = 512
COSINE_BOUND = ldexp(1.0, -59)
"""More than the error of what is added to an entry: some eight roundings of less than 2⁻⁹."""


@cache
def cosine_entry(k: int) -> tuple[float, float, float, float]:
    """(1 + cos(π·k/512))/2 as the sum of two float64, and half of the cosine and the sine."""
    x = k / COSINE_ENTRIES
    return *two_floats(*_half_cosine(*split(x), 128)[:2]), cos_pi(x) / 2, cos_pi(x - 0.5) / 2
