"""Jobs: what a program takes the steps of an optimizer by.

It has the count of steps, and the hyperparameters that are arrays there; all else is known when it
is traced. The scalars of step t are computed as for every other step, in Python's
float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fusedstep._checks.values import non_negative
from fusedstep._core.declaration import Declaration
from fusedstep._core.groups import with_initial_lr
from fusedstep._core.parameters import refuse_unfit, rule_of
from fusedstep._core.schedule import Schedule
from fusedstep._numerics.coefficients import JobScalars, Rule, Values, average_constants
from fusedstep._numerics.range import LARGE


class Place(NamedTuple):
    """A number among the hyperparameters: one by itself, or an item of a tuple."""

    name: str
    item: int | None = None

    def __str__(self) -> str:
        return self.name if self.item is None else f"{self.name}[{self.item}]"

    def put(self, hyper: dict[str, Any], value: Any) -> None:
        """Put a value there; `hyper` may share its tuples with others."""
        if self.item is not None:
            items = [*hyper[self.name]]
            items[self.item] = value
            value = tuple(items)
        hyper[self.name] = value


class Traced:
    """The rate of a program that computes it: a function of t whose values nobody knows yet."""

    def __call__(self, t: int) -> float:
        raise TypeError(f"{self!r} has no value outside of its program")

    def __repr__(self) -> str:
        return "an array of the program's"


TRACED = Traced()
ANY = 0.9
"""The stand-in for a number of the program's that switches something on."""


def stand_in(declaration: Declaration, place: Place) -> Any:
    """The stand-in for a number of the program's until it is known."""
    name, index = place
    if name == "lr":
        return TRACED
    default = declaration.defaults[name]
    if isinstance(default, (bool, str)):
        raise TypeError(
            f"{name} is an array; pass a value that is known before the program is traced, as "
            f"{name}={default!r}"
        )
    if default is None or name in declaration.letters.values():
        return ANY
    return default if index is None else default[index]


@dataclass(frozen=True)
class Job:
    """The kernels and scalars of an optimizer's steps."""

    declaration: Declaration
    hyper: Mapping[str, Any]
    """The hyperparameters, with stand-ins where the program has the values."""
    traced: tuple[Place, ...]
    """Where they are, in the order of those values."""
    dtypes: tuple[np.dtype[Any], ...]
    """The dtypes of the arrays."""
    backend: str
    """The backend whose kernels step them: "c", or "numba"."""

    @classmethod
    def read(
        cls,
        declaration: Declaration,
        given: Mapping[str, Any],
        traced: Sequence[Place],
        dtypes: Sequence[np.dtype[Any]],
        backend: str,
    ) -> Job:
        """The job of hyperparameters; those at the places `traced` are not looked at."""
        values = {**given}
        for place in traced:
            place.put(values, stand_in(declaration, place))
        hyper = declaration.check(with_initial_lr(values))
        return cls(declaration, hyper, tuple(traced), tuple(dtypes), backend)

    @cached_property
    def rule(self) -> Rule:
        """The rule that the hyperparameters call for."""
        return rule_of(self.declaration, self.hyper)

    @cached_property
    def constants(self) -> Values:
        """The scalars that the step does not change, unless the program has them."""
        return self._constants(self.hyper)

    @cached_property
    def steady(self) -> bool:
        """Whether t alone makes a step's scalars differ from those of another."""
        return not self.traced and not isinstance(self.hyper["lr"], Schedule)

    @cached_property
    def title(self) -> str:
        """The optimizer as programs name it."""
        shown = {name: repr(value) for name, value in self.hyper.items()}
        for place in self.traced:
            shown[place.name] = "*"
        kind = self.declaration.optimizer
        arguments = ", ".join(f"{name}={text}" for name, text in shown.items())
        traced = " ".join(map(str, self.traced))
        dtypes = " ".join(dtype.name for dtype in self.dtypes)
        return (
            f"{kind.__module__}.{kind.__qualname__}({arguments}) {traced} {dtypes} {self.backend}"
        )

    def scalars(self, count: int, values: Sequence[float]) -> Values:
        """The scalars of the step after `count` others, with those values of the program's."""
        if count < 0:
            raise ValueError(f"count={count} in the state; it counts the steps done, from 0")
        t = count + 1
        if self.steady:
            return {**self.constants, **self.declaration.scalars(self.hyper, t)}
        hyper = {**self.hyper}
        for place, value in zip(self.traced, values, strict=True):
            place.put(hyper, value)
        for name in {place.name for place in self.traced}:
            hyper[name] = self.declaration.checks[name](name, hyper[name])
        if isinstance(hyper["lr"], Schedule):
            hyper["lr"] = non_negative("lr", hyper["lr"](t))
        self.declaration.together(hyper)
        rates_alone = all(place.name == "lr" for place in self.traced)
        constants = self.constants if rates_alone else self._constants(hyper)
        given = constants, self.declaration.scalars(hyper, t)
        if not rates_alone or hyper["lr"] > LARGE:
            self._check_range(hyper, given, t)
        return {**constants, **given[1]}

    def check_range(self) -> None:
        """Refuse what the dtypes do not hold, as far as that is known without the program."""
        lr = self.hyper["lr"]
        known = lr(1) if isinstance(lr, Schedule) else self.declaration.defaults["lr"]
        hyper = {**self.hyper, "lr": known if callable(lr) else lr}
        self._check_range(hyper, (self.constants, self.declaration.scalars(hyper, 1)), 1)

    def _check_range(self, hyper: Mapping[str, Any], given: JobScalars, t: int) -> None:
        fading = callable(self.hyper["lr"])
        for dtype in self.dtypes:
            refuse_unfit(self.declaration, hyper, given, dtype, "", t, fading)

    def _constants(self, hyper: Mapping[str, Any]) -> Values:
        average = average_constants(hyper["ema"]) if self.rule.averaged else {}
        return {**self.declaration.constants(hyper), **average}
