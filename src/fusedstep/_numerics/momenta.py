"""The momenta of NAdam and their products: μₖ = β₁·(1 - qᵏ/2), q = 0.96^ψ, and μ₁·μ₂···μₜ.

They are computed in whole numbers, with far more bits than float64 has, and rounded once; so they
are the same everywhere. Steps follow one another, so there are blocks of 64. The product up to a
block is found in a time that does not grow with it: the logarithm of 1 - qᵏ/2 is minus the sum of
qʲᵏ/(j·2ʲ) over all j from 1; summed over k first, each j has a geometric series.
"""

from __future__ import annotations

from functools import lru_cache
from math import frexp
from typing import NamedTuple

from fusedstep._numerics import series
from fusedstep._numerics.rounded import nearest, shifted, split

BLOCK = 64

BITS = 192
"""Bits of a momentum, of which float64 has 53."""

FEWEST = 64
"""A product below 2⁻⁶⁴ counts as 0: it does not change 1 - μ₁·μ₂···μₜ."""


class Momenta(NamedTuple):
    """Momenta around a step."""

    now: float
    """μₜ."""
    ahead: float
    """μₜ₊₁."""
    product: float
    """μ₁·μ₂···μₜ."""


def momenta(beta1: float, momentum_decay: float, t: int) -> Momenta:
    """The momenta of step t, which counts from 1; `momentum_decay` is ψ."""
    return _block(beta1, momentum_decay, (t - 1) // BLOCK)[(t - 1) % BLOCK]


@lru_cache(maxsize=128)
def _block(beta1: float, decay: float, k: int) -> list[Momenta]:
    """Momenta of the 64 steps after step 64·k."""
    done = k * BLOCK
    w = BITS + min(max(-frexp(decay)[1], 0), BITS)  # 1 - q is as small as ψ
    log_q = log_power(0.96, decay, w)
    q, power = exp(log_q, w), exp(log_q * (done + 1), w)
    product = _product(beta1, log_q, done, w)
    m, e = split(beta1)

    def momentum(power: int) -> int:
        return shifted(m * ((2 << w) - power), e - 1)

    found = []
    now = momentum(power)
    for _ in range(BLOCK):
        product = (product * now) >> w
        power = (power * q) >> w
        ahead = momentum(power)
        if product >> (w - FEWEST) == 0:
            product = 0
        found.append(Momenta(*(nearest(each, -w) for each in (now, ahead, product))))
        now = ahead
    return found


def _product(beta1: float, log_q: int, t: int, w: int) -> int:
    """μ₁·μ₂···μₜ times 2ʷ; 0 if it is below 2⁻⁶⁴."""
    if beta1 == 0:
        return 0 if t else 1 << w
    total = t * series.log(*split(beta1), w)
    one = 1 << w
    q, last = exp(log_q, w), exp(log_q * t, w)
    a = b = one
    for j in range(1, BITS):
        if -total >> w > FEWEST:
            return 0
        a, b = (a * q) >> w, (b * last) >> w
        geometric = a * (one - b) // (one - a) if a < one else t << w
        total -= geometric // (j << j)
    return exp(total, w)


def log_power(x: float, y: float, w: int) -> int:
    """The logarithm of x to the power of y, times 2ʷ."""
    m, e = split(y)
    return shifted(m * series.log(*split(x), w), e)


def exp(x: int, w: int) -> int:
    """exp(x), both times 2ʷ, of an x that is not positive."""
    k, r = divmod(x, series.log_of_2(w))
    return shifted(series.exp(r, w), k)
