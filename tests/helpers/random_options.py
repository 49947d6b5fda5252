"""Values of hyperparameters and of a step's arguments, of which some are refused."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import fusedstep as fs
from fusedstep._core.declaration import declaration_of


@dataclass(frozen=True)
class Falling:
    """A learning rate of the user's own."""

    lr: float

    def __call__(self, t: int) -> float:
        return self.lr / t


@dataclass(frozen=True)
class Failing(Falling):
    """One that fails at some steps."""

    def __call__(self, t: int) -> float:
        if t % 3 == 0:
            raise ArithmeticError(f"no rate at t={t}")
        return self.lr if t % 3 == 1 else -self.lr


RATES: list[Any] = [
    *(0.0, 1e-3, 0.1, 3.0),
    *(fs.schedules.cosine(0.1, steps=5), fs.schedules.constant(0.05)),
    *(Falling(0.5), Failing(0.1)),
]

HYPERPARAMETERS: dict[str, list[Any]] = {
    "lr": [*RATES, -1.0, float("nan"), "fast"],
    "momentum": [0.0, 0.5, 0.9, -0.5],
    "dampening": [0.0, 0.3],
    "nesterov": [False, True, None],
    "lr_in_momentum": [False, True],
    "weight_decay": [0.0, 0.1, -0.1],
    "maximize": [False, True, "no"],
    "l1": [0.0, 0.02],
    "ema": [None, 0.9, 0.5, 1.5],
    "betas": [(0.9, 0.999), (0.8, 0.9), (0.0, 0.0), (0.9, 1.0), 0.9],
    "eps": [0.0, 1e-8, 1e-3],
    "amsgrad": [False, True],
    "eps_inside_sqrt": [False, True],
    "eps_uncorrected": [False, True],
    "bias_correction": [False, True],
    "decay_scale": ["lr", "schedule", "time"],
    "initial_lr": [0.1, None, 0.0],
    "alpha": [0.99, 0.5, 0.0],
    "centered": [False, True],
    "lr_decay": [0.0, 0.1],
    "initial_v": [0.0, 1e-6],
    "initial_accumulator_value": [0.0, 0.1],
    "decoupled_weight_decay": [False, True],
    "momentum_decay": [0.0, 0.5],
    "no_prox": [False, True],
    "master": [None, False, "split8", "split"],
    "state_dtype": ["float32", "bfloat16", {"m": "8bit"}, "half"],
    "rounding": ["auto", "stochastic", "up"],
    "seed": [0, 1, -1],
    "untouched": ["frozen", "exact", "lazy"],
    "row_steps": ["own", "shared", None],
    "no_such": [1.0],
}
"""Values of hyperparameters, some of which are refused."""

REQUESTS: dict[str, list[Any]] = {
    "scale": [1.0, 0.3, 3.0, 7.0, 2.0**16, 1e-30, 1e30, 0.0],
    "max_norm": [None, None, 0.0, 1e-3, 0.3, 2.5, float("inf"), -1.0],
    "max_value": [None, 0.0, 0.7, float("inf")],
    "zero_grads": [False, True, True],
}


def random_request(random: Random) -> dict[str, Any]:
    """Arguments of a step besides the gradients: often none."""
    if random.random() < 0.4:
        return {}
    return {
        name: random.choice(values) for name, values in REQUESTS.items() if random.random() < 0.5
    }


def random_keeping(random: Random) -> dict[str, Any]:
    """Options that say how parameters and state are kept: often none, and some refused."""
    if random.random() < 0.7:
        return {}
    names = random.sample(["state_dtype", "rounding", "seed", "master"], random.randint(1, 3))
    return {name: random.choice(HYPERPARAMETERS[name]) for name in names}


def random_assignments(random: Random, optimizer: type) -> dict[str, Any]:
    """One or two hyperparameters of an optimizer's class, with new values."""
    names = random.sample([*declaration_of(optimizer).defaults, "no_such"], random.randint(1, 2))
    return {name: random.choice(HYPERPARAMETERS[name]) for name in names}


def random_differences(random: Random) -> dict[str, Any]:
    """Hyperparameters in which a group differs, none of which is refused."""
    names = random.sample(["lr", "weight_decay", "ema"], random.randint(0, 2))
    return {name: random.choice(HYPERPARAMETERS[name][:2]) for name in names}
