"""The scalars of the custom rules that come with the package, from their papers' formulas.

They are computed here once more in long double, and may be off by a few roundings of float64.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest

from fusedstep import rules

Values: TypeAlias = dict[str, Any]

TIMES = (1, 2, 3, 7, 40)


def wide(x: float) -> Any:
    return np.longdouble(x)


def averages(h: Any) -> Values:
    beta1, beta2 = map(wide, h.betas)
    return {"beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2}


def decay(h: Any) -> Values:
    if h.decoupled_weight_decay:
        return {"decay": 1 - wide(h.lr) * h.weight_decay, "l2": 0}
    return {"decay": 1, "l2": h.weight_decay}


def lion(h: Any, t: int) -> Values:
    return {**averages(h), "decay": 1 - wide(h.lr) * h.weight_decay}


def nadam(h: Any, t: int) -> Values:
    beta1, beta2 = map(wide, h.betas)
    psi = wide(h.momentum_decay)
    mu = [beta1 * (1 - wide(0.5) * wide(0.96) ** (k * psi)) for k in range(1, t + 2)]
    product = np.prod(mu[:-1])
    return {
        **averages(h),
        **decay(h),
        "now": (1 - mu[-2]) / (1 - product),
        "ahead": mu[-1] / (1 - product * mu[-1]),
        "r": 1 / np.sqrt(1 - beta2**t),
    }


def radam(h: Any, t: int) -> Values:
    beta1, beta2 = map(wide, h.betas)
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    lr = h.lr / (1 - beta1**t)
    if length > 5:
        above, below = (length - 4) * (length - 2) * longest, (longest - 4) * (longest - 2) * length
        lr = lr * np.sqrt(1 - beta2**t) * np.sqrt(above / below)
    return {**averages(h), **decay(h), "lr": lr, "rectified": length > 5}


def adamax(h: Any, t: int) -> Values:
    return {**averages(h), "lr": h.lr / (1 - wide(h.betas[0]) ** t), "l2": h.weight_decay}


def adan(h: Any, t: int) -> Values:
    beta1, beta2, beta3 = map(wide, h.betas)
    strength = wide(h.lr) * h.weight_decay
    return {
        **{"first": t == 1, "beta1": beta1, "rest1": 1 - beta1, "beta2": beta2},
        **{"rest2": 1 - beta2, "beta3": beta3, "rest3": 1 - beta3},
        "lr1": h.lr / (1 - beta1**t),
        "lr2": h.lr * beta2 / (1 - beta2**t),
        "r": 1 / np.sqrt(1 - beta3**t),
        "decay": 1 - strength if h.no_prox else 1,
        "shrink": 1 if h.no_prox else 1 / (1 + strength),
    }


def yogi(h: Any, t: int) -> Values:
    beta1, beta2 = map(wide, h.betas)
    left1, left2 = (1 - beta1**t, 1 - beta2**t) if h.bias_correction else (wide(1), wide(1))
    start = h.initial_v if t == 1 else 0
    fixed = {"start": start, "l2": h.weight_decay}
    return {**averages(h), "lr": h.lr / left1, "r": 1 / np.sqrt(left2), **fixed}


FORMULAS: list[Callable[[Any, int], Values]] = [lion, nadam, radam, adamax, adan, yogi]


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: formula.__name__)
def test_scalars_are_those_of_the_formulas(formula: Callable[[Any, int], Values]) -> None:
    scalars, random = getattr(rules, f"{formula.__name__}_scalars"), Random(5)
    kinds = set()
    for _ in range(60):
        h = SimpleNamespace(
            lr=random.uniform(0.1, 0.9),
            betas=[random.uniform(0.3, 0.95) for _ in range(3 if formula is adan else 2)],
            weight_decay=random.uniform(0.1, 0.9),
            momentum_decay=random.choice([0.0, 4e-3, 0.5]),
            initial_v=random.uniform(0.1, 0.9),
            decoupled_weight_decay=random.random() < 0.5,
            bias_correction=random.random() < 0.5,
            no_prox=random.random() < 0.5,
        )
        for t in TIMES:
            found, expected = scalars(h, t), formula(h, t)
            kinds.add(found.get("rectified"))
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                # 1 - αλ and the like cancel, and RAdam's length comes from a difference.
                within = 2e-13 * max(1, abs(wide(value)))
                assert abs(wide(found[name]) - wide(value)) <= within, (name, t, h)
    assert formula is not radam or kinds == {False, True}
