"""The rules that thinc's optimizers step by, and their scalars, as thinc computes them.

thinc's formulas, with α the learning rate times the scale of the call, λ `L2`, and t counted from
1 for each parameter::

    SGD     p = p - α·g
    Adam    p = p - α·√(1 - β₂ᵗ)/(1 - β₁ᵗ) · m/(√v + ε)
    RAdam   p = p - α·s · m/(√v + ε), or p = p - α·s · m while too few steps are known
    decay   p = p - α·λ·p           after any of them
    average e = e - (1 - d)·(e - p)    d = min((1 + t)/(10 + t), 0.9999), from e = 0

The decay after the step is (p - α·u)·(1 - α·λ) for its update u, which is the same as the decay
before it that the kernels have, with the learning rate α·(1 - α·λ).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import sqrt
from typing import Any, NamedTuple, Protocol

import numpy as np

from fusedstep._numerics.coefficients import NOTHING_ASKED, Rule, Scalars, Values
from fusedstep._numerics.powers import beta_power, correction

MOST_DECAY = 0.9999
"""The share of a moving average that a step leaves, at most."""

FEWEST = 5
"""The length of RAdam's moving average from which it divides by √v."""


class Settings(Protocol):
    """The attributes of thinc's optimizer that steps go by, as they are when a step is taken."""

    learn_rate: float
    b1: float
    b2: float
    eps: float
    L2: float
    L2_is_weight_decay: bool
    grad_clip: float
    use_radam: bool
    mom1: dict[Any, Any]
    mom2: dict[Any, Any]
    averages: dict[Any, Any] | None
    nr_update: dict[Any, int]
    backend: str


class Kind(NamedTuple):
    """A rule of thinc's, with and without decay after the step."""

    rule: Rule
    decaying: Rule
    scalars: Callable[[Settings, int, float], Values]
    """The scalars of step t, with the scale of the learning rate, that are not neutral."""
    keeps_nan: bool
    """Whether thinc leaves NaN in a gradient that held NaN or infinity; else it zeroes all."""

    def rule_of(self, optimizer: Settings) -> Rule:
        """The rule that the optimizer's attributes call for."""
        rule = self.decaying if decays(optimizer) else self.rule
        return rule if optimizer.averages is None else averaged(rule)


@cache
def averaged(rule: Rule) -> Rule:
    """The rule with a moving average of the parameter."""
    return rule._replace(averaged=True)


def decays(optimizer: Settings) -> bool:
    """Whether the optimizer decays parameters after the step."""
    return bool(optimizer.L2 != 0 and optimizer.L2_is_weight_decay)


def kept(optimizer: Settings, lr_scale: float) -> float:
    """The share of a parameter that the decay leaves: 1 - αλ."""
    return 1.0 - lr_scale * optimizer.learn_rate * optimizer.L2 if decays(optimizer) else 1.0


def coupled(optimizer: Settings) -> float:
    """λ of L2 that is a part of the gradient; 0 where it is decay."""
    return 0.0 if optimizer.L2_is_weight_decay else optimizer.L2


def in_kernel(optimizer: Settings) -> float:
    """The same of what a kernel adds, after clipping: thinc clips the sum."""
    return 0.0 if optimizer.grad_clip else coupled(optimizer)


def sgd(optimizer: Settings, t: int, lr_scale: float) -> Values:
    left = kept(optimizer, lr_scale)
    # As the gradient's part: p - α(1 - αλ)·(g + λ/(1 - αλ)·p).
    l2 = optimizer.L2 / left if decays(optimizer) else in_kernel(optimizer)
    return {"lr": lr_scale * optimizer.learn_rate * left, "l2": l2}


def adam(optimizer: Settings, t: int, lr_scale: float) -> Values:
    beta1, beta2 = optimizer.b1, optimizer.b2
    left = kept(optimizer, lr_scale)
    corrected = optimizer.learn_rate * sqrt(correction(beta2, t)) / correction(beta1, t)
    return {
        "lr": corrected * lr_scale * left,
        "decay": left,
        "beta1": beta1,
        "rest1": rest(beta1),
        "beta2": beta2,
        "rest2": rest(beta2),
        "r": 1.0,
        "eps": optimizer.eps,
        "l2": in_kernel(optimizer),
    }


def rest(beta: float) -> float:
    """1 - β as thinc's kernel has it: of β in float32, whose rounding is a part of 1e-5 of it."""
    return 1.0 - float(np.float32(beta))


def radam(optimizer: Settings, t: int, lr_scale: float) -> Values:
    """Thinc counts the steps of RAdam from 2, and scales its decay alone by `lr_scale`."""
    beta1, beta2 = optimizer.b1, optimizer.b2
    left = kept(optimizer, lr_scale)
    t += 1
    power = beta_power(beta2, t)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * power / (1 - power)
    size = 1.0 / correction(beta1, t)
    divides = length >= FEWEST
    if divides:
        size *= sqrt(
            (1 - power)
            * (length - 4)
            / (longest - 4)
            * (length - 2)
            / length
            * longest
            / (longest - 2)
        )
    return {
        "lr": size * optimizer.learn_rate * left,
        "decay": left,
        "beta1": beta1,
        "rest1": 1 - beta1,
        "beta2": beta2,
        "rest2": 1 - beta2,
        # √v·0 + 1 divides by nothing.
        "r": 1.0 if divides else 0.0,
        "eps": optimizer.eps if divides else 1.0,
        "l2": in_kernel(optimizer),
    }


MOMENTS = ("m", "v", None)

SGD = Kind(Rule("sgd"), Rule("sgd"), sgd, keeps_nan=True)
ADAM = Kind(Rule("adam", MOMENTS), Rule("adamw", MOMENTS), adam, keeps_nan=False)
RADAM = Kind(Rule("adam", MOMENTS), Rule("adamw", MOMENTS), radam, keeps_nan=True)


def kind_of(optimizer: Settings) -> Kind | None:
    """The kind that the optimizer's attributes choose, as thinc does; None: thinc has none."""
    if optimizer.use_radam:
        return RADAM
    if optimizer.b1 > 0.0 and optimizer.b2 > 0.0:
        return ADAM
    return None if optimizer.b2 > 0.0 else SGD


NEUTRAL: Values = {**Scalars()._asdict(), **NOTHING_ASKED}
"""All scalars, of a step that does nothing but what a kind asks for."""


def average(t: int) -> Values:
    """The scalars of the moving average after step t."""
    decay = min((1.0 + t) / (10.0 + t), MOST_DECAY)
    return {"ema": decay, "rest_ema": 1.0 - decay}
