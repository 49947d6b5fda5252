"""Checks on hyperparameters, and the groups that hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from inspect import signature
from math import inf, isfinite
from numbers import Real
from operator import index
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep.structure import describe, quoted

Check: TypeAlias = Callable[[str, Any], Any]
"""Of a hyperparameter's name and value: returns the value as a Python object, or raises."""

Rate: TypeAlias = float | Callable[[int], float]
"""What a learning rate may be: a number, or a function of t that gives one at each step."""

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


def rate(name: str, value: Any) -> Any:
    if not callable(value):
        return non_negative(name, value)
    try:
        signature(value).bind(1)
    except ValueError:  # it does not say what it takes
        pass
    except TypeError as error:
        raise TypeError(
            f"{name}={describe(value)} cannot be called with t: {error}; pass a function of the "
            "step count alone, as `lambda t: 0.1 / t`"
        ) from None
    return value


def base_rate(lr: Any) -> Any:
    """What a learning rate's multiplier is taken over, None where a function does not tell."""
    if not callable(lr):
        return lr
    from fusedstep.schedule import Schedule  # which few need

    return lr.lr if isinstance(lr, Schedule) else None


def non_negative_or_none(name: str, value: Any) -> float | None:
    return None if value is None else non_negative(name, value)


def fraction(name: str, value: Any) -> float:
    checked = number(name, value)
    if not 0 <= checked < 1:
        raise ValueError(f"{name}={value!r} is outside [0, 1); pass for instance 0.9")
    return checked


def optional_fraction(name: str, value: Any) -> float | None:
    return None if value is None else fraction(name, value)


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
    "lr": rate,
    "initial_lr": non_negative_or_none,
    "momentum": non_negative,
    "dampening": non_negative,
    "weight_decay": non_negative,
    "l1": non_negative,
    "lr_decay": non_negative,
    "initial_accumulator_value": non_negative,
    "eps": non_negative,
    "alpha": fraction,
    "betas": betas,
    "ema": optional_fraction,
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
        if initial_lr is None:
            raise ValueError(
                f"decay_scale='schedule' with lr={describe(lr)} and initial_lr=None; the "
                "schedule's multiplier is lr / initial_lr, so pass as initial_lr the rate where "
                "it is 1"
            )
        if initial_lr == 0 or not (callable(lr) or isfinite(lr / initial_lr)):
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


class Assignments:
    """How many there were to the hyperparameters of an optimizer's groups."""

    count = 0


class Group(MutableMapping[str, Any]):
    """Parameters with hyperparameters of their own, as torch's dicts.

    Assigning a hyperparameter takes effect at the next step; a value that will not do is
    refused at once and changes nothing.
    """

    hyperparameters: dict[str, Any]
    scheduled: bool
    """Whether the learning rate is a function of t, so that a step needs them `at` its t."""

    def __init__(
        self,
        params: Sequence[Any],
        hyperparameters: dict[str, Any],
        where: str,
        checks: Checks,
        assignments: Assignments,
    ) -> None:
        self._params = params
        self.where = where
        self.checks = checks
        if "initial_lr" in hyperparameters and hyperparameters["initial_lr"] is None:
            hyperparameters = {**hyperparameters, "initial_lr": base_rate(hyperparameters["lr"])}
        self.take(check(hyperparameters, where, checks))
        self.assignments = assignments

    def take(self, checked: dict[str, Any]) -> None:
        """Hold these from now on."""
        self.hyperparameters = checked
        self.scheduled = callable(checked["lr"])

    def at(self, t: int) -> dict[str, Any]:
        """The hyperparameters of step t, with the learning rate as the number that it then is."""
        schedule = self.hyperparameters["lr"]
        lr = schedule(t)
        if type(lr) is not float or not 0 <= lr < inf:  # it is, as a rule, and that at every step
            lr = self._converted(lr, t)
        values = {**self.hyperparameters, "lr": lr + 0.0}
        try:
            self.checks.together(values)
        except ValueError as error:
            raise ValueError(f"{self.where}at t={t}: {error}") from None
        return values

    def _converted(self, lr: Any, t: int) -> float:
        """What a function returned as the learning rate of step t."""
        try:
            return non_negative("lr", lr)
        except (TypeError, ValueError) as error:
            schedule = self.hyperparameters["lr"]
            raise type(error)(
                f"{self.where}lr={describe(schedule)} returned {describe(lr)} at t={t}; return a "
                "finite number, 0 or more"
            ) from None

    def __getitem__(self, name: str) -> Any:
        return tuple(self._params) if name == "params" else self.hyperparameters[name]

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
        self.take(check({**self.hyperparameters, **values}, checks=self.checks))
        self.assignments.count += 1

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
