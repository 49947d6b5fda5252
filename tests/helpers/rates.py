"""Learning-rate schedules walked step by step in long double: what `fusedstep.schedules` solves.

Each function of the same name, with the same arguments, yields the rates of steps t = 1, 2, ...
for ever. Periods of restarts are exact fractions, of a factor as its decimals say, so that 1.1
is eleven tenths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import count, islice, repeat
from typing import Any, TypeAlias

import numpy as np

Rates: TypeAlias = Iterator[np.floating[Any]]

PI = np.arccos(np.longdouble(-1))


def wide(x: Fraction | float) -> np.floating[Any]:
    """The long double nearest to x."""
    if isinstance(x, Fraction):
        return np.longdouble(x.numerator) / np.longdouble(x.denominator)
    return np.longdouble(x)


def bend(a: float, b: float, x: Fraction | float) -> np.floating[Any]:
    """Go from a at x = 0 to b at x = 1 along half a cosine."""
    middle, radius = (wide(a) + wide(b)) / 2, (wide(a) - wide(b)) / 2
    return np.longdouble(middle + radius * np.cos(PI * wide(x)))


def constant(lr: float) -> Rates:
    yield from repeat(wide(lr))


def piecewise(boundaries: Sequence[int], rates: Sequence[float]) -> Rates:
    before = 0
    for boundary, rate in zip(boundaries, rates, strict=False):
        yield from repeat(wide(rate), boundary - before)
        before = boundary
    yield from repeat(wide(rates[-1]))


def exponential(lr: float, rate: float) -> Rates:
    value, decay = wide(lr), np.exp(-wide(rate))
    while True:
        value = value * decay
        yield value


def step(lr: float, every: int, factor: float) -> Rates:
    value = wide(lr)
    while True:
        yield from repeat(value, every)
        value = value * wide(factor)


def polynomial(lr: float, steps: int, power: float = 1.0, end: float = 0.0) -> Rates:
    for n in range(steps):
        yield wide(end) + (wide(lr) - wide(end)) * (1 - wide(n) / wide(steps)) ** wide(power)
    yield from repeat(wide(end))


def warmup(lr: float, steps: int, start: float = 0.0) -> Rates:
    value, rise = wide(start), (wide(lr) - wide(start)) / wide(steps)
    for _ in range(steps):
        value = value + rise
        yield value
    yield from repeat(wide(lr))


def cosine(lr: float, steps: int, end: float = 0.0) -> Rates:
    for n in range(steps):
        yield bend(lr, end, Fraction(n, steps))
    yield from repeat(wide(end))


def restarts(lr: float, steps: int, factor: float = 1.0, end: float = 0.0) -> Rates:
    begin, length = Fraction(0), Fraction(steps)
    for n in count():
        if n >= begin + length:
            begin, length = begin + length, length * Fraction(str(factor))
        yield bend(lr, end, (n - begin) / length)


def one_cycle(
    lr: float,
    steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Rates:
    first = lr / div_factor
    last = first / final_div_factor
    peak = max(Fraction(str(pct_start)) * steps, Fraction(1))
    for t in range(1, steps):
        if t < peak:
            yield bend(first, lr, (t - 1) / (peak - 1))
        else:
            yield bend(lr, last, (t - peak) / (steps - peak))
    yield from repeat(wide(last))


def sequence(schedules: Sequence[Rates], steps: Sequence[int]) -> Rates:
    for rates, lasting in zip(schedules, steps, strict=False):
        yield from islice(rates, lasting)
    yield from schedules[-1]
