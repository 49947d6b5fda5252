"""The range of a compute dtype: scalars that are infinite or zero in it, though they are neither.

A kernel would step with what is left of them: an infinite learning rate, or an ε of zero.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, NamedTuple

import numpy as np

from fusedstep._checks.rates import Rates
from fusedstep._numerics.coefficients import Hyperparameters, JobScalars


class Range(NamedTuple):
    """The sizes of float64 between which rounding to a dtype gives neither zero nor infinity."""

    above: float
    below: float

    def holds(self, value: float) -> bool:
        return value == 0 or self.above < abs(value) < self.below


RANGES: dict[np.dtype[Any], Range] = {
    np.dtype(np.float32): Range(2.0**-150, 2.0**128 - 2.0**103),
    np.dtype(np.float64): Range(0.0, inf),
}
"""Half of the smallest subnormal number, which is rounded to zero, and the least of what is
rounded to infinity."""

SMALL, LARGE = 1e-20, 1e10
"""Hyperparameters between which every dtype holds one, and products and quotients of two."""


def is_usual(value: Any) -> bool:
    """Whether every dtype holds what the package's rules make of a hyperparameter's value."""
    if isinstance(value, float):
        return SMALL < abs(value) < LARGE or value == 0
    if isinstance(value, tuple):
        for each in value:  # a loop, because loops of users assign betas
            if not is_usual(each):
                return False
    if isinstance(value, Rates):
        return all(map(is_usual, value.values.reshape(-1).tolist()))
    return True


OWNERS = {
    "l2": "weight_decay",
    "decay": "weight_decay",
    "shrink": "weight_decay",
    "gain": "lr",
    "lr1": "lr",
    "lr2": "lr",
    "rho": "alpha",
    "rest": "alpha",
    **dict.fromkeys(("beta1", "beta2", "beta3", "rest1", "rest2", "rest3"), "betas"),
    **dict.fromkeys(("rest_ema",), "ema"),
    **dict.fromkeys(("r", "r2"), "betas"),
}
"""The hyperparameters that scalars of another name come from."""


class Unfit(NamedTuple):
    """A scalar that a dtype does not hold."""

    scalar: str
    value: float
    hyperparameter: str | None
    """The hyperparameter that it comes from, as far as that is known."""


def unfit(
    given: JobScalars, hyper: Hyperparameters, dtype: np.dtype[Any], fading: bool = False
) -> Unfit | None:
    """The first number of a job that its dtype does not hold; None: it holds them all.

    Hyperparameters come first, which have to be finite there whatever is made of them. A product
    over the steps may well come to nothing, so that zero is looked for in what comes straight
    from hyperparameters; with `fading` not in the learning rate, which may end there.
    """
    span = RANGES[dtype]
    for name, value in hyper.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and span.below <= abs(number) < inf:
                return Unfit(name, number, name)
    for values in given:
        for name, value in values.items():
            if span.holds(value):
                continue
            owner = OWNERS.get(name, name)
            known = owner if owner in hyper else None
            if abs(value) < 1:
                direct = name in hyper or name == "l2"
                if direct and not (fading and name == "lr"):
                    return Unfit(name, value, known)
            elif isfinite(value) or name in NEVER_INFINITE:
                return Unfit(name, value, known)
    return None


NEVER_INFINITE = {"lr", "decay", "l2", "l1", "gain", "eps", "lr1", "lr2"}
"""Scalars that are never infinite by intent; a custom rule may have such of its own."""
