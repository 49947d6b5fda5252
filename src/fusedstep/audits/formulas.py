"""The update rules in float64, written from the papers: what an optimizer is held against.

Each function takes a rule's hyperparameters and gives the change of the parameter at each step,
as a function of t (from 1) and the gradient. The letters are those of the papers: m and v the
moments, b the momentum buffer, s the sum of squares, a the average of gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Update: TypeAlias = Callable[[int, Array], Any]
Rule: TypeAlias = Callable[..., Update]


class Trajectory(NamedTuple):
    """Where a parameter ends, and how it came there."""

    p: Array

    path: Array
    """The sum of the steps' absolute changes."""

    highest: Array
    """The largest absolute value on the way."""

    longest: Array
    """The largest absolute change of a step."""


def trajectory(
    rule: Rule,
    start: Array,
    gradients: Sequence[Array],
    *,
    lr: float,
    coupled: float = 0.0,
    decoupled: float = 0.0,
    proximal: float = 0.0,
    maximize: bool = False,
    **options: Any,
) -> Trajectory:
    """Step from `start` by `rule`.

    `coupled` is λ of g + λ·p, `decoupled` that of p·(1 - α·λ) before the rule's own change, and
    `proximal` that of p / (1 + α·λ) after it.
    """
    p = np.array(start, np.float64)
    path, highest, longest = np.zeros_like(p), np.abs(p), np.zeros_like(p)
    update = rule(lr=lr, **options)
    with np.errstate(all="ignore"):
        for t, gradient in enumerate(gradients, 1):
            g = (-gradient if maximize else gradient) + coupled * p
            new = (p * (1 - lr * decoupled) - update(t, g)) / (1 + lr * proximal)
            path += np.abs(new - p)
            highest = np.maximum(highest, np.abs(new))
            longest = np.maximum(longest, np.abs(new - p))
            p = new
    return Trajectory(p, path, highest, longest)


def root(v: Array, eps: float, inside: bool) -> Array:
    found: Array = np.sqrt(v + eps) if inside else np.sqrt(v) + eps
    return found


def sgd(
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    lr_inside: bool = False,
) -> Update:
    """Robbins & Monro (1951); momentum of Polyak (1964) and Nesterov (1983).

    `lr_inside` is the velocity of Sutskever et al. (2013), which has the learning rate in it.
    """
    b: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal b
        if momentum == 0:
            return lr * g
        within = lr if lr_inside else 1.0
        fresh = g if t == 1 else (1 - dampening) * g
        b = momentum * b + within * fresh
        change = within * g + momentum * b if nesterov else b
        return change if lr_inside else lr * change

    return update


def adagrad(
    *, lr: float, eps: float, lr_decay: float = 0.0, initial: float = 0.0, inside: bool = False
) -> Update:
    """Duchi, Hazan & Singer (2011), diagonal form."""
    s: Any = initial

    def update(t: int, g: Array) -> Any:
        nonlocal s
        s = s + g * g
        return lr / (1 + (t - 1) * lr_decay) * g / root(s, eps, inside)

    return update


def rmsprop(
    *,
    lr: float,
    rho: float,
    eps: float,
    momentum: float = 0.0,
    centered: bool = False,
    inside: bool = False,
    lr_inside: bool = False,
) -> Update:
    """Tieleman & Hinton (2012), lecture 6.5; centered as Graves (2013)."""
    v: Any = 0.0
    a: Any = 0.0
    b: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal v, a, b
        v = rho * v + (1 - rho) * g * g
        a = rho * a + (1 - rho) * g
        change = g / root(v - a * a if centered else v, eps, inside)
        if momentum == 0:
            return lr * change
        b = momentum * b + (lr * change if lr_inside else change)
        return b if lr_inside else lr * b

    return update


def adam(
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    eps_root: float = 0.0,
    amsgrad: bool = False,
    corrected: bool = True,
    eps_uncorrected: bool = False,
) -> Update:
    """Kingma & Ba (2015), Algorithm 1; AMSGrad of Reddi, Kale & Kumar (2018).

    The maximum is taken before the correction for bias. `eps_root` is added under the root,
    `eps_uncorrected` adds ε to the root of the uncorrected v.
    """
    beta1, beta2 = betas
    m: Any = 0.0
    v: Any = 0.0
    x: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal m, v, x
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        x = np.maximum(x, v) if amsgrad else v
        c1, c2 = (1 - beta1**t, 1 - beta2**t) if corrected else (1.0, 1.0)
        if eps_uncorrected:
            d = (np.sqrt(x) + eps) / sqrt(c2)
        else:
            d = np.sqrt(x / c2 + eps_root) + eps
        return lr * (m / c1) / d

    return update


def adamax(
    *, lr: float, betas: tuple[float, float], eps: float, eps_in_maximum: bool = True
) -> Update:
    """Kingma & Ba (2015), Algorithm 2, with an ε that each framework puts elsewhere."""
    beta1, beta2 = betas
    m: Any = 0.0
    x: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal m, x
        m = beta1 * m + (1 - beta1) * g
        x = np.maximum(beta2 * x, np.abs(g) + (eps if eps_in_maximum else 0.0))
        return lr / (1 - beta1**t) * m / (x if eps_in_maximum else x + eps)

    return update


def nadam(
    *, lr: float, betas: tuple[float, float], eps: float, momentum_decay: float = 4e-3
) -> Update:
    """Dozat (2016), Algorithm 2, with a schedule of the momentum."""
    beta1, beta2 = betas
    m: Any = 0.0
    v: Any = 0.0
    product = 1.0

    def momentum(t: int) -> float:
        return float(beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay)))

    def update(t: int, g: Array) -> Any:
        nonlocal m, v, product
        product *= momentum(t)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        ahead = momentum(t + 1) * m / (1 - product * momentum(t + 1))
        change = (1 - momentum(t)) * g / (1 - product) + ahead
        return lr * change / (np.sqrt(v / (1 - beta2**t)) + eps)

    return update


def nadam_constant(
    *, lr: float, betas: tuple[float, float], eps: float, eps_root: float = 0.0
) -> Update:
    """Dozat (2016) with a constant momentum."""
    beta1, beta2 = betas
    m: Any = 0.0
    v: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        ahead = beta1 * m / (1 - beta1 ** (t + 1)) + (1 - beta1) * g / (1 - beta1**t)
        return lr * ahead / (np.sqrt(v / (1 - beta2**t) + eps_root) + eps)

    return update


def radam(
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    eps_uncorrected: bool = True,
) -> Update:
    """Liu et al. (2020), Algorithm 2, rectified where ρ is above `threshold`."""
    beta1, beta2 = betas
    m: Any = 0.0
    v: Any = 0.0
    most = 2 / (1 - beta2) - 1

    def update(t: int, g: Array) -> Any:
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        c2 = 1 - beta2**t
        rho = most - 2 * t * beta2**t / c2
        change = m / (1 - beta1**t)
        if rho > threshold:
            r = sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
            if eps_uncorrected:
                change = change * r * sqrt(c2) / (np.sqrt(v) + eps)
            else:
                change = change * r / (np.sqrt(v / c2 + eps_root) + eps)
        return lr * change

    return update


def adadelta(*, lr: float, rho: float, eps: float) -> Update:
    """Zeiler (2012), Algorithm 1, with a learning rate before its step."""
    v: Any = 0.0
    a: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal v, a
        v = rho * v + (1 - rho) * g * g
        change = np.sqrt(a + eps) / np.sqrt(v + eps) * g
        a = rho * a + (1 - rho) * change * change
        return lr * change

    return update


def lion(*, lr: float, betas: tuple[float, float]) -> Update:
    """Chen et al. (2023), Algorithm 2."""
    beta1, beta2 = betas
    m: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal m
        sign = np.sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        return lr * sign

    return update


def yogi(
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    initial_m: float = 0.0,
    initial_v: float = 1e-6,
    corrected: bool = True,
) -> Update:
    """Zaheer et al. (2018), Algorithm 2, corrected for bias as Adam."""
    beta1, beta2 = betas
    m: Any = initial_m
    v: Any = initial_v

    def update(t: int, g: Array) -> Any:
        nonlocal m, v
        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * np.sign(v - g * g) * g * g
        c1, c2 = (1 - beta1**t, 1 - beta2**t) if corrected else (1.0, 1.0)
        return lr * (m / c1) / (np.sqrt(v / c2) + eps)

    return update


def adan(
    *,
    lr: float,
    betas: tuple[float, float, float],
    eps: float,
    eps_root: float = 0.0,
    ahead: float,
) -> Update:
    """Xie et al. (2022), Algorithm 1, with 1 - β for its β, no restart, and corrected averages.

    `ahead` is the share of the gradients' change that is added to them.
    """
    beta1, beta2, beta3 = betas
    m: Any = 0.0
    a: Any = 0.0
    v: Any = 0.0
    last: Any = 0.0

    def update(t: int, g: Array) -> Any:
        nonlocal m, a, v, last
        y = g - (g if t == 1 else last)
        last = g
        m = beta1 * m + (1 - beta1) * g
        a = beta2 * a + (1 - beta2) * y
        v = beta3 * v + (1 - beta3) * (g + ahead * y) ** 2
        change = m / (1 - beta1**t) + ahead * a / (1 - beta2**t)
        return lr * change / (np.sqrt(v / (1 - beta3**t) + eps_root) + eps)

    return update
