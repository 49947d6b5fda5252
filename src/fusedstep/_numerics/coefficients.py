"""The scalars that the kernels read, and how they come from hyperparameters and the step count t.

Everything that depends on hyperparameters and t alone is computed once per step, in Python's
float64; the backends round each scalar once to the compute dtype. No kernel calls `pow`.

Each optimizer has two pure functions of its hyperparameters, which stand beside its class in
optimizers.py. `..._constants` and `..._scalars` return, by name, the members of `Scalars` that the
rule reads: the first those that neither t nor the learning rate changes, the second all others,
at the step t, counted from 1. This file has what the optimizers share: the scalars of the prologue
and of the moving average, and those that momentum needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from fusedstep._compiler.formula import Formula

Hyperparameters = Mapping[str, Any]
"""Hyperparameters of one group by name, with their checked values."""


class Rule(NamedTuple):
    """An update rule in one variant: the choices that a kernel is compiled for."""

    name: str
    """The name of its function in reference.py, scalar.py and csrc/rules.h."""
    letters: tuple[str | None, ...] = ()
    """Letters of the state arrays in the order of that function's arguments; None: not there."""
    inside: bool = False
    """Whether ε stands under the root."""
    formula: Formula | None = None
    """The formula of a custom rule; None: the rule is the package's, which its name finds."""
    averaged: bool = False
    """Whether the step keeps a moving average of the parameter, as the state "ema"."""

    @property
    def states(self) -> tuple[str, ...]:
        """The names of all arrays that a step needs besides p and g."""
        return (*filter(None, self.letters), *(["ema"] if self.averaged else []))


Values: TypeAlias = dict[str, float]
"""Some of the scalars, by name, in float64."""

JobScalars: TypeAlias = tuple[Values, Values]
"""All scalars of one job in one step: the constants, the same dict until one of them changes, and
the others."""


class Scalars(NamedTuple):
    """The members of h, as rules call them, and of csrc/scalars.h, with their neutral values."""

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


def gradient_constants(hyper: Hyperparameters) -> Values:
    """Scalars of the prologue: sign, L2, L1."""
    return {
        "sign": -1.0 if hyper["maximize"] else 1.0,
        "l2": hyper["weight_decay"],
        "l1": hyper["l1"],
    }


def average_constants(ema: float) -> Values:
    """Scalars of the moving average of the parameter."""
    return {"ema": ema, "rest_ema": 1 - ema}


def no_constants(hyper: Hyperparameters) -> Values:
    """No constants: every scalar may change at each step."""
    return {}


def step_scalars(scale: float, clip: float, max_value: float) -> Values:
    """Scalars of what a single step is asked to do to the gradient, before all else."""
    return {"unscale": 1 / scale, "clip": clip, "most": max_value}


NOTHING_ASKED = step_scalars(1.0, 1.0, inf)
"""Scalars of a step that leaves the gradient as it is."""


def momentum_rates(hyper: Hyperparameters, d: float = 1.0) -> tuple[float, float]:
    """Factors of what enters the momentum buffer and of what leaves it: one of them has α."""
    if hyper["lr_in_momentum"] and hyper["momentum"] != 0:
        return hyper["lr"] * d, 1.0
    return d, hyper["lr"]
