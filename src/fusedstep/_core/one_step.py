"""One step without an optimizer, on arrays that the caller owns: what `functional` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache, lru_cache
from inspect import Signature
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.checks import check_like, check_parameter, check_state
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.walk import Operand, Walk
from fusedstep._backends.choose import choose
from fusedstep._backends.plan import Job, Plan, Row
from fusedstep._checks.values import count_of_steps
from fusedstep._checks.wording import describe
from fusedstep._core.declaration import Argument, Declaration, declaration_of
from fusedstep._core.groups import with_initial_lr
from fusedstep._core.hints import renamed_argument, unexpected
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.parameters import refuse_unfit
from fusedstep._numerics.coefficients import JobScalars, Rule


class Call(NamedTuple):
    """The hyperparameters of an optimizer where the caller passes the state arrays."""

    passed: dict[str, Argument]
    """Hyperparameters that are arguments, by name."""
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
    return Call(
        {name: each for name, each in of_a_step.items() if name not in implied},
        {name: letter for name, letter in letter_of.items() if name in implied},
        {name: letter for name, letter in letter_of.items() if name not in implied},
    )


def one_step(optimizer: type[Optimizer], arguments: Mapping[str, Any]) -> None:
    """Step p by g with the rule of `optimizer`; `arguments` are those of its function, by name."""
    declaration = declaration_of(optimizer)
    call = call_of(declaration)
    states = {letter: arguments[letter] for letter in declaration.letters}
    values = {name: arguments[name] for name in call.passed}
    for name, letter in call.implied.items():
        values[name] = states[letter] is not None
    if callable(values["lr"]):
        raise TypeError(
            f"lr={describe(values['lr'])}; pass a number, what it gives for this t, as "
            "`schedule(t)`"
        )
    hyper = _checked(declaration, with_initial_lr(values))
    for name, letter in call.needed.items():
        _check_needed(name, hyper[name], letter, states[letter])
    rule = declaration.rule(hyper)
    t = count_of_steps("t", arguments["t"], least=1)
    given = declaration.constants(hyper), declaration.scalars(hyper, t)

    def fit(dtype: np.dtype[Any]) -> None:
        refuse_unfit(declaration, hyper, given, dtype, "", t)

    _run(arguments["backend"], rule, given, arguments["p"], arguments["g"], states, fit)


def of_one_step(
    optimizer: type[Optimizer], args: Any, kwargs: Any, error: TypeError
) -> TypeError:
    """The error for arguments that the function of an optimizer does not accept."""
    declaration = declaration_of(optimizer)
    call = call_of(declaration)
    title = optimizer.__name__.lower()
    letters = [letter for letter, option in declaration.letters.items() if option is None]
    optional = [letter for letter in declaration.letters if letter not in letters]
    names = ["p", "g", *declaration.letters, "t", *call.passed, "backend"]
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


def _checked(declaration: Declaration, values: dict[str, Any]) -> dict[str, Any]:
    with suppress(TypeError):  # from a value that has no hash, or that is refused below as well
        return _checked_before(declaration, **values)
    return declaration.check(values)


@lru_cache(maxsize=64, typed=True)
def _checked_before(declaration: Declaration, **values: Any) -> dict[str, Any]:
    return declaration.check(values)


def _check_needed(name: str, value: Any, letter: str, state: Any) -> None:
    if value != 0 and state is None:
        raise TypeError(f"{name}={value!r} needs {letter}; pass `np.zeros_like(p)` at t = 1")
    if value == 0 and state is not None:
        raise ValueError(f"{letter} is passed with {name}=0; leave it out, or pass {name}=0.9")


def _run(
    backend: str,
    rule: Rule,
    given: JobScalars,
    p: Any,
    g: Any,
    states: dict[str, Any],
    fit: Callable[[np.dtype[Any]], None],
) -> None:
    table, place = choose(backend, [("p", p)])
    given_p, p = p, place.see_written(p, "p")
    check_parameter(p, "p", given_p)
    fit(p.dtype)
    present = {
        letter: place.see_written(state, letter)
        for letter, state in states.items()
        if letter in rule.letters
    }
    for letter, state in present.items():
        check_state(state, p, letter)
    given_g, g = g, place.see(g, "g")
    check_like(g, p, "g")
    written = WrittenMemory([("p", p), *present.items()])
    written.refuse_overlaps()
    written.refuse(g, "g")
    walk = Walk(p, place)
    row = Row(Operand(p, walk), walk, rule, lambda letter: Operand(present[letter], walk))
    plan = Plan(table, [Job(rule, p.dtype)], [row], written)
    plan.set_gradient(0, g, given_g)
    plan.fetch_gradients()
    plan.run([given])
