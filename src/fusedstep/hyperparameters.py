"""Checks on hyperparameters, and the groups that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from math import inf, isfinite
from numbers import Real
from operator import index
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep.structure import describe, quoted

Check: TypeAlias = Callable[[str, Any], Any]
"""Of a hyperparameter's name and value: returns the value as a Python object, or raises."""

DECAY_SCALES = ("lr", "schedule")


def number(name: str, value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}={describe(value)}; pass a number")
    try:
        checked = float(value)
    except OverflowError:
        checked = inf
    if not isfinite(checked):
        raise ValueError(f"{name}={describe(value)}; pass a finite number")
    return checked + 0.0  # -0.0 is 0.0


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


def several(name: str, value: Any, like: tuple[float, ...], each: Check) -> tuple[float, ...]:
    """As many numbers as `like` has, which stands as the example in an error."""
    try:
        values = tuple(value)
    except TypeError:
        values = ()
    if len(values) != len(like):
        raise TypeError(f"{name}={describe(value)}; pass {len(like)} numbers, for instance {like}")
    return tuple(each(f"{name}[{k}]", item) for k, item in enumerate(values))


def betas(name: str, value: Any) -> tuple[float, ...]:
    return several(name, value, (0.9, 0.999), fraction)


def whole(name: str, value: Any, least: int) -> int:
    """`value` as a Python int; NumPy's will do."""
    if not isinstance(value, (bool, np.bool_)):
        with suppress(TypeError):
            checked = index(value)
            if checked >= least:
                return checked
    raise ValueError(f"{name}={value!r}; pass a whole number from {least}")


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}={describe(value)}; pass True or False")
    return bool(value)


def decay_scale(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in DECAY_SCALES:
        raise ValueError(f"{name}={value!r}; pass one of {quoted(DECAY_SCALES)}")
    return value


EACH: dict[str, Check] = {
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
    "betas": betas,
    "nesterov": flag,
    "centered": flag,
    "amsgrad": flag,
    "maximize": flag,
    "lr_in_momentum": flag,
    "eps_inside_sqrt": flag,
    "eps_uncorrected": flag,
    "bias_correction": flag,
    "decay_scale": decay_scale,
}


def check_together(values: dict[str, Any]) -> None:
    if values.get("nesterov") and (values["momentum"] == 0 or values["dampening"] != 0):
        raise ValueError(
            f"nesterov=True with momentum={values['momentum']!r} and "
            f"dampening={values['dampening']!r}; Nesterov's step needs momentum above 0 and "
            "dampening=0"
        )
    if values.get("decay_scale") == "schedule":
        lr, initial_lr = values["lr"], values["initial_lr"]
        if initial_lr == 0 or not isfinite(lr / initial_lr):
            raise ValueError(
                f"decay_scale='schedule' with lr={lr!r} and initial_lr={initial_lr!r}; the "
                "schedule's multiplier is lr / initial_lr, so start from an lr above 0"
            )


class Checks(NamedTuple):
    """What an optimizer's hyperparameters must be, each and together."""

    each: Mapping[str, Check] = EACH
    together: Callable[[dict[str, Any]], None] = check_together


CHECKS = Checks()
"""Of the package's own optimizers."""


def check(values: dict[str, Any], where: str = "", checks: Checks = CHECKS) -> dict[str, Any]:
    """`values` as Python numbers, each checked, and together; `where` begins an error."""
    try:
        checked = {name: checks.each[name](name, value) for name, value in values.items()}
        checks.together(checked)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}{error}") from None
    return checked


class Group(MutableMapping[str, Any]):
    """Parameters with hyperparameters of their own, as torch's dicts.

    Assigning a hyperparameter takes effect at the next step; a value that will not do is
    refused at once and changes nothing. `version` counts the assignments.
    """

    def __init__(
        self, params: list[Any], hyperparameters: dict[str, Any], where: str, checks: Checks
    ) -> None:
        self._params = tuple(params)
        self.checks = checks
        if "decay_scale" in hyperparameters:
            hyperparameters = {"initial_lr": hyperparameters["lr"], **hyperparameters}
        self.hyperparameters = check(hyperparameters, where, checks)
        self.version = 0

    def __getitem__(self, name: str) -> Any:
        return self._params if name == "params" else self.hyperparameters[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several at once: all of them, or none if one will not do."""
        values = dict(*args, **kwargs)
        for name in values:
            if name not in self.hyperparameters:
                raise KeyError(
                    f"a group has no hyperparameter {name!r} to set; it has "
                    f"{quoted(list(self.hyperparameters))}"
                )
        self.hyperparameters = check({**self.hyperparameters, **values}, checks=self.checks)
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
