"""Checks on single values: each takes a name and a value, and returns the value or raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import signature
from math import inf, isfinite
from numbers import Real
from operator import index
from typing import Any, TypeAlias

import numpy as np

from fusedstep._checks.hints import nearest
from fusedstep._checks.rates import Rates
from fusedstep._checks.wording import describe, quoted, shown

Check: TypeAlias = Callable[[str, Any], Any]
"""A function of a hyperparameter's name and value, which returns the Python value, or raises."""

Rate: TypeAlias = float | np.ndarray[Any, Any] | Callable[[int], Any]
"""A learning rate: a number, an array that broadcasts over a parameter's rows, or a function of t
that gives one of these at each step."""


MOST_BITS = 1023
"""Bits of a count of steps at most: a float64 holds no number of more than one more."""


def number(name: str, value: Any) -> float:
    if type(value) is float and isfinite(value):  # as most are, and the rest takes its time
        return value + 0.0
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}={describe(value)}; pass a number{as_number(name, value)}")
    try:
        checked = float(value)
    except OverflowError:
        checked = inf
    if not isfinite(checked):
        raise ValueError(f"{name}={describe(value)}; pass a finite number")
    return checked + 0.0  # -0.0 is 0.0


def as_number(name: str, value: Any) -> str:
    """How to write a value that holds a number as one; empty if it holds none."""
    if name == "lr" and holds_arrays(value):
        return "; gradients are passed to each step, `opt.step(grads)`"
    if name == "lr" and isinstance(value, Mapping) and "params" in value:
        return "; pass all groups in one list"
    if name == "lr" and is_several(value):
        return ", or a NumPy array of rates by column: `lr=np.asarray(lr)`"
    try:
        found = float(value.item() if isinstance(value, np.ndarray) else value)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return ""
    return f": `{name}={found!r}`" if isfinite(found) and name.isidentifier() else ""


def is_several(value: Any) -> bool:
    """Whether a value is a list of numbers, or an array that is not NumPy's."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(isinstance(each, Real) for each in value)
    return bool(getattr(value, "ndim", 0)) and not isinstance(value, np.ndarray)


def holds_arrays(value: Any) -> bool:
    """Whether a value is an array of several numbers, or a container of arrays."""
    if isinstance(value, Mapping):
        return any(isinstance(each, np.ndarray) for each in value.values())
    if isinstance(value, (list, tuple)):
        return any(isinstance(each, np.ndarray) for each in value)
    return isinstance(value, np.ndarray) and value.size != 1


def non_negative(name: str, value: Any) -> float:
    checked = number(name, value)
    if checked < 0:
        raise ValueError(f"{name}={shown(value)} is negative; pass 0 or more")
    return checked


def rate(name: str, value: Any) -> Any:
    """A learning rate, or a function of t that gives one."""
    if not callable(value):
        return rate_of_step(name, value)
    try:
        signature(value).bind(1)
    except ValueError:  # it does not say what it takes
        pass
    except TypeError as error:
        example = getattr(value, "example", None)
        remedy = (
            f"pass what it makes, as `{name}={example}`"
            if isinstance(example, str)
            else "pass a function of the step count alone, as `lambda t: 0.1 / t`"
        )
        raise TypeError(
            f"{name}={describe(value)} cannot be called with t: {error}; {remedy}"
        ) from None
    return value


def rate_of_step(name: str, value: Any) -> Any:
    """A learning rate of one step, in which `Rates` stand for an array."""
    if isinstance(value, Rates):
        return value
    if isinstance(value, np.ndarray) and value.ndim:
        return rates(name, value)
    return non_negative(name, value)


def rates(name: str, value: np.ndarray[Any, Any]) -> Rates:
    """An array of learning rates, each at least 0."""
    if value.dtype.kind not in "iuf":
        raise TypeError(f"{name}={describe(value)}; pass an array of float64")
    if not value.size:
        raise ValueError(f"{name}={describe(value)} has no element; pass a number")
    made = Rates(value)
    for wrong, remedy in (
        (~np.isfinite(made.values), "pass finite numbers"),
        (made.values < 0, "pass 0 or more; gradients are passed to each step"),
    ):
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), value.shape)
            where = ", ".join(map(str, at))
            raise ValueError(f"{name}[{where}] is {float(made.values[at])!r}; {remedy}")
    return made


def non_negative_or_none(name: str, value: Any) -> float | None:
    return None if value is None else non_negative(name, value)


def fraction(name: str, value: Any) -> float:
    checked = number(name, value)
    if not 0 <= checked < 1:
        raise ValueError(f"{name}={shown(value)} is outside [0, 1); pass for instance 0.9")
    return checked


def optional_fraction(name: str, value: Any) -> float | None:
    return None if value is None else fraction(name, value)


def several(name: str, value: Any, like: tuple[float, ...], each: Check) -> tuple[float, ...]:
    """A tuple of as many numbers as `like` has, which errors show as an example."""
    try:
        values = tuple(value)
    except TypeError:
        values = ()
    if len(values) != len(like):
        raise TypeError(f"{name}={describe(value)}; pass {len(like)} numbers, for instance {like}")
    return tuple(each(f"{name}[{k}]", item) for k, item in enumerate(values))


def betas(name: str, value: Any) -> tuple[float, ...]:
    if type(value) is tuple and len(value) == 2:  # as most are, see `number`
        first, second = value
        if type(first) is type(second) is float and 0 <= first < 1 and 0 <= second < 1:
            return first + 0.0, second + 0.0
    return several(name, value, (0.9, 0.999), fraction)


def whole(name: str, value: Any, least: int) -> int:
    """A whole number, of Python or NumPy, as a Python int."""
    if not isinstance(value, (bool, np.bool_)):
        with suppress(TypeError):
            checked = index(value)
            if checked >= least:
                return checked
    raise ValueError(f"{name}={shown(value)}; pass a whole number from {least}")


def count_of_steps(name: str, value: Any, least: int) -> int:
    """A whole number that float64 can hold, as bias correction and schedules ask for."""
    steps = whole(name, value, least)
    if steps.bit_length() > MOST_BITS:
        raise ValueError(
            f"{name} has {steps.bit_length()} bits; pass a whole number from {least} below "
            f"2**{MOST_BITS}"
        )
    return steps


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        meant = f": `{name}={bool(value)}`" if isinstance(value, (int, float)) else ""
        raise TypeError(f"{name}={describe(value)}; pass True or False{meant}")
    return bool(value)


MOST_SEED = 2**64 - 1


def seed(name: str, value: Any) -> int:
    checked = whole(name, value, 0)
    if checked > MOST_SEED:
        raise ValueError(f"{name}={shown(value)}; pass a whole number from 0 below 2**64")
    return checked


MASTERS = ("split16", "split8", "float32")
STATE_DTYPES = ("float32", "bfloat16", "8bit")
ROUNDINGS = ("auto", "nearest", "stochastic")


def master(name: str, value: Any) -> Any:
    """None for what suits the dtype, False for no master, or the name of a kind of master."""
    if value is None or value is False:
        return value
    if not isinstance(value, str) or value not in MASTERS:
        near = nearest(value, MASTERS)
        meant = "" if near is None else f"; did you mean `{name}={near!r}`?"
        raise ValueError(
            f"{name}={shown(value)}; pass None, False or one of {quoted(MASTERS)}{meant}"
        )
    return value


def state_dtype(name: str, value: Any) -> Any:
    """The dtype of all state arrays, or a dict of those of some by letter."""
    if isinstance(value, Mapping):
        return {
            letter: one_of(f"{name}[{letter!r}]", each, STATE_DTYPES)
            for letter, each in value.items()
        }
    return one_of(name, value, STATE_DTYPES)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        near = nearest(value, choices)
        meant = "" if near is None else f"; did you mean `{name}={near!r}`?"
        raise ValueError(f"{name}={shown(value)}; pass one of {quoted(choices)}{meant}")
    return value
