"""The scalars of a step, from hyperparameters and t alone: what each formula of the papers says.

They are computed here once more in long double, and may be off by a few roundings of float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from random import Random
from typing import Any, TypeAlias

import numpy as np
import pytest

import fusedstep as fs
from fusedstep._core.declaration import declaration_of
from fusedstep._numerics import coefficients

Values: TypeAlias = dict[str, Any]
Hyper: TypeAlias = Mapping[str, Any]

TIMES = (1, 2, 3, 10, 1000)


def wide(x: float) -> Any:
    return np.longdouble(x)


def prologue(h: Hyper, l2: float) -> Values:
    return {
        **{"sign": -1 if h["maximize"] else 1, "l2": l2, "l1": h["l1"]},
        **{"unscale": 1, "clip": 1, "most": inf},
    }


def rates(h: Hyper, d: Any) -> Values:
    """α where the gradient enters the buffer, or where the buffer leaves it."""
    if h["lr_in_momentum"] and h["momentum"]:
        return {"gain": wide(h["lr"]) * d, "lr": 1}
    return {"gain": d, "lr": h["lr"]}


def sgd(h: Hyper, t: int) -> Values:
    d = 1 - wide(h["dampening"]) if t > 1 else wide(1)
    return {**prologue(h, h["weight_decay"]), "momentum": h["momentum"], **rates(h, d)}


def adagrad(h: Hyper, t: int) -> Values:
    lr = wide(h["lr"]) / (1 + (t - 1) * wide(h["lr_decay"]))
    return {**prologue(h, h["weight_decay"]), "eps": h["eps"], "lr": lr}


def rmsprop(h: Hyper, t: int) -> Values:
    rho = {"rho": h["alpha"], "rest": 1 - wide(h["alpha"])}
    fixed = {"momentum": h["momentum"], "eps": h["eps"]}
    return {**prologue(h, h["weight_decay"]), **rho, **fixed, **rates(h, wide(1))}


def adam(h: Hyper, t: int) -> Values:
    beta1, beta2 = map(wide, h["betas"])
    corrected = h["bias_correction"]
    left1, left2 = (1 - beta1**t, 1 - beta2**t) if corrected else (wide(1), wide(1))
    eps = wide(h["eps"])
    if h["eps_uncorrected"]:
        eps = eps / left2 if h["eps_inside_sqrt"] else eps / np.sqrt(left2)
    return {
        **prologue(h, h["weight_decay"]),
        **{"beta1": beta1, "rest1": 1 - beta1, "beta2": beta2, "rest2": 1 - beta2},
        **{"lr": h["lr"] / left1, "r": 1 / np.sqrt(left2), "r2": 1 / left2, "eps": eps},
    }


def adamw(h: Hyper, t: int) -> Values:
    by_schedule = h["decay_scale"] == "schedule"
    rate = wide(h["lr"]) / h["initial_lr"] if by_schedule else wide(h["lr"])
    return {**adam(h, t), "l2": 0, "decay": 1 - rate * h["weight_decay"]}


FORMULAS = {fs.SGD: sgd, fs.Adagrad: adagrad, fs.RMSprop: rmsprop, fs.Adam: adam, fs.AdamW: adamw}


def drawn(optimizer: Any, random: Random) -> Values:
    """Hyperparameters of which no two are equal."""
    numbers = {
        name: random.uniform(0.1, 0.9)
        for name, default in declaration_of(optimizer).defaults.items()
        if isinstance(default, float)
    }
    flags = {
        name: random.random() < 0.5
        for name, default in declaration_of(optimizer).defaults.items()
        if isinstance(default, bool)
    }
    more = {
        "betas": (random.uniform(0.1, 0.9), random.uniform(0.1, 0.9)),
        "decay_scale": random.choice(["lr", "schedule"]),
        "initial_lr": random.uniform(0.1, 0.9),
    }
    momentum = {"momentum": random.choice([0.0, 0.9])} if "momentum" in numbers else {}
    return {**declaration_of(optimizer).defaults, **numbers, **flags, **more, **momentum}


@pytest.mark.parametrize("optimizer", FORMULAS, ids=lambda optimizer: optimizer.__name__)
def test_scalars_are_those_of_the_formulas(optimizer: Any) -> None:
    declaration, random = declaration_of(optimizer), Random(11)
    for _ in range(100):
        h = drawn(optimizer, random)
        for t in TIMES:
            found = {**declaration.constants(h), **declaration.scalars(h, t)}
            expected = FORMULAS[optimizer](h, t)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                # 1 - αλ may cancel, down to what its terms are rounded by.
                within = 8 * np.finfo(float).eps * max(abs(value), 1 if name == "decay" else 0)
                assert found[name] == value or abs(found[name] - value) <= within, (name, t, h)


def test_what_a_step_is_asked_for() -> None:
    assert coefficients.step_scalars(8.0, 0.5, 3.0) == {"unscale": 1 / 8, "clip": 0.5, "most": 3.0}
    assert {"unscale": 1.0, "clip": 1.0, "most": inf} == coefficients.NOTHING_ASKED
    assert coefficients.average_constants(0.75) == {"ema": 0.75, "rest_ema": 0.25}
    assert coefficients.no_constants({}) == {}


def test_factors_of_momentum_have_no_dampening_unless_it_is_given() -> None:
    h = {"lr": 0.25, "momentum": 0.5, "lr_in_momentum": True}
    assert coefficients.momentum_rates(h) == (0.25, 1.0)
    assert coefficients.momentum_rates(h, 0.5) == (0.125, 1.0)
    assert coefficients.momentum_rates({**h, "momentum": 0}, 0.5) == (0.5, 0.25)
    assert coefficients.momentum_rates({**h, "lr_in_momentum": False}) == (1.0, 0.25)
