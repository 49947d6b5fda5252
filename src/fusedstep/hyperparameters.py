"""Checks on hyperparameters, and the groups that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from math import isfinite
from numbers import Real
from typing import Any

import numpy as np

from fusedstep.structure import describe, quoted

DECAY_SCALES = ("lr", "schedule")


def number(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}={describe(value)}; pass a number")
    if not isfinite(value):
        raise ValueError(f"{name}={value!r}; pass a finite number")
    return float(value)


def non_negative(name: str, value: Any) -> float:
    checked = number(name, value)
    if checked < 0:
        raise ValueError(f"{name}={value!r} is negative; pass 0 or more")
    return checked


def fraction(name: str, value: Any) -> float:
    checked = number(name, value)
    if not 0 <= checked < 1:
        raise ValueError(f"{name}={value!r} is outside [0, 1); pass for instance 0.9")
    return checked


def pair_of_fractions(name: str, value: Any) -> tuple[float, float]:
    try:
        first, second = value
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}={describe(value)}; pass a pair (β₁, β₂), for instance (0.9, 0.999)"
        ) from None
    return fraction(f"{name}[0]", first), fraction(f"{name}[1]", second)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={describe(value)}; pass True or False")
    return bool(value)


def decay_scale(name: str, value: Any) -> str:
    if value not in DECAY_SCALES:
        raise ValueError(f"{name}={value!r}; pass one of {quoted(DECAY_SCALES)}")
    return str(value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "lr": non_negative,
    "initial_lr": non_negative,
    "momentum": non_negative,
    "dampening": non_negative,
    "weight_decay": non_negative,
    "l1": non_negative,
    "lr_decay": non_negative,
    "initial_accumulator_value": non_negative,
    "eps": non_negative,
    "alpha": fraction,
    "betas": pair_of_fractions,
    "nesterov": flag,
    "centered": flag,
    "amsgrad": flag,
    "maximize": flag,
    "eps_inside_sqrt": flag,
    "bias_correction": flag,
    "decay_scale": decay_scale,
}


def check(values: dict[str, Any]) -> dict[str, Any]:
    """`values` as Python numbers, each checked, and together."""
    checked = {name: CHECKS[name](name, value) for name, value in values.items()}
    if checked.get("nesterov") and (checked["momentum"] == 0 or checked["dampening"] != 0):
        raise ValueError(
            f"nesterov=True with momentum={checked['momentum']!r} and "
            f"dampening={checked['dampening']!r}; Nesterov's step needs momentum above 0 and "
            "dampening=0"
        )
    if checked.get("decay_scale") == "schedule" and checked["initial_lr"] == 0:
        raise ValueError(
            "decay_scale='schedule' with initial_lr=0.0; the schedule's multiplier is "
            "lr / initial_lr, so start from an lr above 0"
        )
    return checked


class Group(MutableMapping[str, Any]):
    """Parameters with hyperparameters of their own, as torch's dicts.

    Assigning a hyperparameter takes effect at the next step; a value that will not do is
    refused at once and changes nothing. `version` counts the assignments.
    """

    def __init__(self, params: list[Any], hyperparameters: dict[str, Any]) -> None:
        self._params = params
        if "decay_scale" in hyperparameters:
            hyperparameters = {"initial_lr": hyperparameters["lr"], **hyperparameters}
        self.hyperparameters = check(hyperparameters)
        self.version = 0

    def __getitem__(self, name: str) -> Any:
        return self._params if name == "params" else self.hyperparameters[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self.hyperparameters:
            raise KeyError(
                f"a group has no hyperparameter {name!r} to set; it has "
                f"{quoted(list(self.hyperparameters))}"
            )
        self.hyperparameters = check({**self.hyperparameters, name: value})
        self.version += 1

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"a group cannot lose {name!r}; assign another value instead")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self.hyperparameters

    def __len__(self) -> int:
        return 1 + len(self.hyperparameters)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters.items())
        return f"<group of {len(self._params)} parameters: {values}>"
