"""Learning rates that fall: functions of the step count t, from 1."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import exp
from typing import TypeAlias

Schedule: TypeAlias = Callable[[int], float]


def constant(lr: float) -> Schedule:
    return lambda t: lr


def exponential(lr: float, rate: float) -> Schedule:
    """Falls by the factor e^(-rate) at every step: lr·e^(-rate·t)."""
    return lambda t: lr * exp(-rate * t)


def piecewise(boundaries: Sequence[int], rates: Sequence[float]) -> Schedule:
    """rates[k] up to and including step boundaries[k], and the last rate from there on."""
    return lambda t: rates[bisect_left(boundaries, t)]
