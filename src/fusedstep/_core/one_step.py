"""One step without an optimizer, on arrays that the caller owns: what `functional` is made of."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import cache
from inspect import Signature
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.remedies import refuse_number
from fusedstep._checks.rates import Rates
from fusedstep._checks.values import count_of_steps
from fusedstep._checks.wording import describe
from fusedstep._core.aimed import step_aimed
from fusedstep._core.declaration import Argument, Declaration, declaration_of
from fusedstep._core.groups import with_initial_lr
from fusedstep._core.hints import renamed_argument, unexpected
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.parameters import refuse_unfit
from fusedstep._numerics.coefficients import JobScalars, Rule, Values
from fusedstep._numerics.range import RANGES, is_usual
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
    usual: bool
    """Whether every dtype holds what the rule makes of them, at usual learning rates."""


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
    if not (setting.usual and is_usual(lr)):
        _check_range(declaration, hyper, given, _dtype_of(arguments["p"]), t)
    backend, rule, p, g = arguments["backend"], setting.rule, arguments["p"], arguments["g"]
    step_aimed(backend, rule, given, p, g, arguments, arguments["out"])


def _check_range(
    declaration: Declaration, hyper: dict[str, Any], given: JobScalars, dtype: Any, t: int
) -> None:
    """Refuse scalars that are infinite or zero in a dtype of NumPy, or another library's."""
    named = NAMED.get(str(dtype).rpartition(".")[2])
    if named is not None:
        refuse_unfit(declaration, hyper, given, named, "", t)


def _dtype_of(p: Any) -> Any:
    """The dtype of an array, or that of another library; a subclass of NumPy's may say anything."""
    if issubclass(type(p), np.ndarray):
        return DTYPE(p)
    return getattr(p, "dtype", None)


DTYPE = np.ndarray.dtype.__get__

NAMED: dict[str, np.dtype[Any]] = {dtype.name: dtype for dtype in RANGES}


def _checked_rate(declaration: Declaration, lr: Any) -> float:
    if callable(lr):
        raise TypeError(
            f"lr={describe(lr)}; pass a number, what it gives for this t, as `schedule(t)`"
        )
    checked: float | Rates = declaration.checks["lr"]("lr", lr)
    if isinstance(checked, Rates):
        raise TypeError(
            f"lr={describe(lr)}; pass a number: rates by column are an optimizer's, as "
            f"`fs.{declaration.optimizer.__name__}(p, lr=lr)`"
        )
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
    usual = not bound and all(map(is_usual, hyper.values()))
    return Setting(
        hyper, declaration.rule(hyper), declaration.constants(hyper), bound, types, usual
    )


def of_one_step(optimizer: type[Optimizer], args: Any, kwargs: Any, error: TypeError) -> TypeError:
    """The error for arguments that the function of an optimizer does not accept."""
    declaration = declaration_of(optimizer)
    call = call_of(declaration)
    title = optimizer.__name__.lower()
    letters = [letter for letter, option in declaration.letters.items() if option is None]
    optional = [letter for letter in declaration.letters if letter not in letters]
    names = ["p", "g", *declaration.letters, "t", *call.passed, "out", "backend"]
    for name in kwargs:
        if name in names:
            continue
        if name in call.implied:
            hint = f"it is on where {call.implied[name]!r} is passed"
        else:
            passed = [each.parameter for each in call.passed.values()]
            expected = Signature([each.replace(kind=each.KEYWORD_ONLY) for each in passed])
            found = renamed_argument(f"fs.functional.{title}", expected, name, kwargs)
            hint = found or f"it has {', '.join(map(repr, names))}"
        return unexpected(title, name, hint)
    arrays = ", ".join(["p", "g", *letters])
    zeros = f"; {', '.join(letters)} start as `np.zeros_like(p)`" if letters else ""
    more = f", and {', '.join(optional)} if they are wanted" if optional else ""
    return TypeError(
        f"{title}(): {str(error).partition('() ')[2]}; call it as "
        f"`fs.functional.{title}({arrays}, t=1)`{more}{zeros}"
    )


def _check_needed(name: str, value: Any, letter: str, state: Any) -> None:
    refuse_number(state, letter)
    if value != 0 and state is None:
        raise TypeError(f"{name}={value!r} needs {letter}; pass `np.zeros_like(p)` at t = 1")
    if value == 0 and state is not None:
        raise ValueError(f"{letter} is passed with {name}=0; leave it out, or pass {name}=0.9")
