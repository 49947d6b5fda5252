"""One step without an optimizer, on arrays that the caller owns: what `functional` is made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import cache
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple

from fusedstep._checks.values import count_of_steps
from fusedstep._checks.wording import describe
from fusedstep._core.aimed import step_aimed
from fusedstep._core.declaration import Argument, Declaration, declaration_of
from fusedstep._core.groups import with_initial_lr
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics.coefficients import Rule, Values
from fusedstep._numerics.rounding import check_rounding

MANY = 2**53
"""A count of steps below which every whole number is a float64."""


class Call(NamedTuple):
    """The hyperparameters of an optimizer where the caller passes the state arrays."""

    passed: dict[str, Argument]
    """Hyperparameters that are arguments, by name."""
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """The function that takes the values of all but the learning rate out of the arguments."""
    optional: list[str]
    """Letters of state arrays that may be None."""
    implied: dict[str, str]
    """Hyperparameters that are True where a state array is passed, with the array's letter."""
    needed: dict[str, str]
    """Hyperparameters that need a state array unless they are 0, with the array's letter."""


@cache
def call_of(declaration: Declaration) -> Call:
    """The arguments of a function for one step, besides arrays, t and backend."""
    letter_of = {option: letter for letter, option in declaration.letters.items() if option}
    of_a_step = {
        each.name: each for each in declaration.arguments if each.check and not each.of_a_run
    }
    implied = {name for name in letter_of if of_a_step[name].type is bool}
    passed = {name: each for name, each in of_a_step.items() if name not in implied}
    return Call(
        passed,
        itemgetter(*[name for name in passed if name != "lr"]),
        [*letter_of.values()],
        {name: letter for name, letter in letter_of.items() if name in implied},
        {name: letter for name, letter in letter_of.items() if name not in implied},
    )


class Setting(NamedTuple):
    """Hyperparameters but for the learning rate, checked, and what follows from them."""

    hyper: dict[str, Any]
    rule: Rule
    constants: Values
    rate_bound: bool
    """Whether the learning rate has to go together with them."""
    types: tuple[type, ...]
    """Their types as they were passed: True is equal to 1, and may not stand for it."""


MOST = 64
"""Settings that are kept."""

_settings: dict[Hashable, Setting] = {}


def one_step(optimizer: type[Optimizer], arguments: Mapping[str, Any]) -> None:
    """Step p by g with the rule of `optimizer`; `arguments` are those of its function, by name."""
    declaration = declaration_of(optimizer)
    setting = _setting_of(declaration, arguments)
    lr, t = arguments["lr"], arguments["t"]
    if type(lr) is not float or not 0 <= lr < inf:
        lr = _checked_rate(declaration, lr)
    if type(t) is not int or not 1 <= t < MANY:
        t = count_of_steps("t", t, least=1)
    hyper = {**setting.hyper, "lr": lr}
    if setting.rate_bound:
        hyper = with_initial_lr(hyper)
        declaration.together(hyper)
    given = setting.constants, declaration.scalars(hyper, t)
    step_aimed(arguments["backend"], setting.rule, given, arguments["p"], arguments["g"], arguments)


def _checked_rate(declaration: Declaration, lr: Any) -> float:
    if callable(lr):
        raise TypeError(
            f"lr={describe(lr)}; pass a number, what it gives for this t, as `schedule(t)`"
        )
    checked: float = declaration.checks["lr"]("lr", lr)
    return checked


def _setting_of(declaration: Declaration, arguments: Mapping[str, Any]) -> Setting:
    """The setting that arguments call for, known from an earlier call as a rule."""
    call = call_of(declaration)
    values = call.pick(arguments)
    key = (declaration, *values, *[arguments[letter] is None for letter in call.optional])
    with suppress(TypeError):  # from a value that has no hash: it is checked at each call
        known = _settings.get(key)
        if known is not None and known.types == tuple(map(type, values)):
            return known
    setting = _new_setting(declaration, call, arguments, tuple(map(type, values)))
    with suppress(TypeError):
        _settings[key] = setting
        for oldest in [*_settings][:-MOST]:
            _settings.pop(oldest, None)
    return setting


def _new_setting(
    declaration: Declaration, call: Call, arguments: Mapping[str, Any], types: tuple[type, ...]
) -> Setting:
    values = {name: arguments[name] for name in call.passed if name != "lr"}
    for name, letter in call.implied.items():
        values[name] = arguments[letter] is not None
    checks = declaration.checks
    hyper = {name: checks[name](name, value) for name, value in values.items()}
    for name, letter in call.needed.items():
        _check_needed(name, hyper[name], letter, arguments[letter])
    check_rounding()  # the constants outlive this step
    bound = declaration.rate_bound(hyper)
    if not bound:
        declaration.together(hyper)
    return Setting(hyper, declaration.rule(hyper), declaration.constants(hyper), bound, types)


def _check_needed(name: str, value: Any, letter: str, state: Any) -> None:
    if value != 0 and state is None:
        raise TypeError(f"{name}={value!r} needs {letter}; pass `np.zeros_like(p)` at t = 1")
    if value == 0 and state is not None:
        raise ValueError(f"{letter} is passed with {name}=0; leave it out, or pass {name}=0.9")
