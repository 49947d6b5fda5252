"""Hyperparameters and step count to the scalars that the kernels read.

Everything that depends on hyperparameters and t alone is computed once per step, in Python's
float64; the backends round each scalar once to the compute dtype. No kernel calls `pow`.

Each optimizer has two pure functions of its hyperparameters h, which stand beside its class in
optimizers.py. `..._constants` and `..._scalars` return, by name, the members of `Scalars` that the
rule reads: those that neither t nor the learning rate changes, and the others, at the step t,
counted from 1. Here is what they share, and what any rule may have before and after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from fusedstep._compiler.formula import Formula

Hyperparameters = Mapping[str, Any]


class Rule(NamedTuple):
    """What to compute: the choices that a kernel is compiled for."""

    name: str
    """Of the function in reference.py, backends/rules.py and csrc/rules.h."""
    letters: tuple[str | None, ...] = ()
    """The state arrays in the order of that function's arguments; None: not there."""
    inside: bool = False
    """Whether ε stands under the root."""
    formula: Formula | None = None
    """What a rule of the user's own computes; the package's are known by name."""
    averaged: bool = False
    """Whether a moving average of the parameter is kept, as the state "ema"."""

    @property
    def states(self) -> tuple[str, ...]:
        """The names of all arrays that a step needs besides p and g."""
        return (*filter(None, self.letters), *(["ema"] if self.averaged else []))


Values: TypeAlias = dict[str, float]

Given: TypeAlias = tuple[Values, Values]
"""All scalars of a step: the constants, the same dict as long as they are the same, and the
others."""


class Scalars(NamedTuple):
    """What a rule needs besides the arrays: the members of csrc/scalars.h, as they are unset."""

    unscale: float = 1.0
    clip: float = 1.0
    most: float = inf
    sign: float = 1.0
    l2: float = 0.0
    l1: float = 0.0
    lr: float = 0.0
    decay: float = 1.0
    momentum: float = 0.0
    gain: float = 1.0
    rho: float = 0.0
    rest: float = 1.0
    beta1: float = 0.0
    rest1: float = 1.0
    beta2: float = 0.0
    rest2: float = 1.0
    r: float = 1.0
    r2: float = 1.0
    eps: float = 0.0
    ema: float = 0.0
    rest_ema: float = 1.0


def gradient_constants(h: Hyperparameters) -> Values:
    """Of what h says is done to the gradient before any rule."""
    return {
        "sign": -1.0 if h["maximize"] else 1.0,
        "l2": h["weight_decay"],
        "l1": h["l1"],
    }


def average_constants(ema: float) -> Values:
    """Of the moving average of the parameter."""
    return {"ema": ema, "rest_ema": 1 - ema}


def no_constants(h: Hyperparameters) -> Values:
    """Of a rule whose scalars may all change."""
    return {}


def step_scalars(scale: float, clip: float, max_value: float) -> Values:
    """Of what one step is asked to do to the gradient first, before what h says."""
    return {"unscale": 1 / scale, "clip": clip, "most": max_value}


NOTHING_ASKED = step_scalars(1.0, 1.0, inf)
"""Those of a step that is asked for nothing."""


def momentum_rates(h: Hyperparameters, d: float = 1.0) -> tuple[float, float]:
    """What enters the momentum buffer is multiplied by, and what leaves it: one of them has α."""
    if h["lr_in_momentum"] and h["momentum"] != 0:
        return h["lr"] * d, 1.0
    return d, h["lr"]
