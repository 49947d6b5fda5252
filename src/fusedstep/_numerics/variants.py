"""The formulas that a job's kernel is compiled from."""

from __future__ import annotations

import inspect
from functools import cache

from fusedstep._compiler.formula import Formula
from fusedstep._compiler.parse import parse
from fusedstep._numerics import scalar
from fusedstep._numerics.coefficients import Rule, Scalars

MEMBERS = dict.fromkeys(Scalars._fields, float)


@cache
def gradient() -> Formula:
    """What is done to the gradient before any rule."""
    return parse(scalar.gradient, MEMBERS)


@cache
def average() -> Formula:
    """What becomes of the moving average after any rule."""
    return parse(scalar.average, MEMBERS)


@cache
def formula(rule: Rule) -> Formula:
    """Of a rule of the user's own, or of rules.py in the variant asked for."""
    if rule.formula is not None:
        return rule.formula
    function = getattr(scalar, rule.name)
    _, _, *states, _, _ = inspect.signature(function).parameters
    absent = [name for name, letter in zip(states, rule.letters, strict=True) if letter is None]
    return parse(function, MEMBERS, {**dict.fromkeys(absent), "inside": rule.inside})


@cache
def scalars(rule: Rule) -> tuple[str, ...]:
    """The names of the scalars that its kernel reads, in its order."""
    after = average().scalars if rule.averaged else ()
    return tuple(dict.fromkeys((*gradient().scalars, *formula(rule).scalars, *after)))


def roots(rule: Rule) -> list[Formula]:
    """All formulas of its kernel, in the order in which they are applied."""
    return [gradient(), formula(rule), *([average()] if rule.averaged else [])]


def title(rule: Rule) -> str:
    """A name of the variant for people and files: `rmsprop_centered_inside`, say."""
    present = "".join(letter for letter in rule.letters if letter)
    options = ["inside" if rule.inside else "", "ema" if rule.averaged else ""]
    return "_".join(filter(None, [rule.name, present, *options]))
