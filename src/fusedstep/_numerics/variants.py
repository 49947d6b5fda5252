"""The formulas that a job's kernel is compiled from: a rule, its prologue and its epilogue."""

from __future__ import annotations

import ast
import inspect
from dataclasses import replace
from functools import cache

from fusedstep._compiler.formula import Formula
from fusedstep._compiler.parse import parse
from fusedstep._numerics import scalar
from fusedstep._numerics.coefficients import Rule, Scalars

MEMBERS = dict.fromkeys(Scalars._fields, float)
"""The type of each member of h in scalar.py."""


DECAYS = ("l2", "l1")
"""Scalars of what joins the gradient, by an `if`, where they are not 0."""


@cache
def gradient(decays: bool = True) -> Formula:
    """The prologue of every rule, which computes the gradient that it takes.

    Without decays it is what it comes to where their scalars are 0.
    """
    whole = parse(scalar.gradient, MEMBERS)
    if decays:
        return whole
    body = tuple(line for line in whole.body if not (isinstance(line, ast.If) and _decays(line)))
    left = tuple(name for name in whole.scalars if name not in DECAYS)
    return replace(whole, body=body, scalars=left)


def _decays(line: ast.If) -> bool:
    """Whether it is the scalar of a decay that an `if` asks for."""
    read = [node.attr for node in ast.walk(line.test) if isinstance(node, ast.Attribute)]
    return bool(read) and all(name in DECAYS for name in read)


@cache
def average() -> Formula:
    """The epilogue of a rule with a moving average of the parameter."""
    return parse(scalar.average, MEMBERS)


@cache
def formula(rule: Rule) -> Formula:
    """The formula of a custom rule, or of a rule of scalar.py in the variant that is asked for."""
    if rule.formula is not None:
        return rule.formula
    function = getattr(scalar, rule.name)
    _, _, *states, _, _ = inspect.signature(function).parameters
    absent = [name for name, letter in zip(states, rule.letters, strict=True) if letter is None]
    return parse(function, MEMBERS, {**dict.fromkeys(absent), "inside": rule.inside})


@cache
def step(rule: Rule, decays: bool = True) -> Formula:
    """All that a step does to one element: its gradient, the rule, and the average if kept.

    Its variables are p, g, the state arrays that are there, and ema; it returns them anew,
    but for g. Without decays it is for steps in which the scalars of these are 0.
    """
    before, update, after = gradient(decays), formula(rule), average()
    p, g, *states = update.variables
    written = [p, *states]
    lines = [
        f"{g} = gradient({p}, {g})",
        f"{', '.join(written)} = rule({', '.join(update.variables)})",
    ]
    callees = {"gradient": before, "rule": update}
    if rule.averaged:
        written.append("ema")
        lines.append("ema = average(p, ema)")
        callees["average"] = after
    lines.append(f"return {', '.join(written)}")
    scalars = dict.fromkeys(name for callee in callees.values() for name in callee.scalars)
    return Formula(
        "step",
        (p, g, *written[1:]),
        tuple(ast.parse("\n".join(lines)).body),
        callees,
        tuple(scalars),
        len(written),
    )


def title(rule: Rule) -> str:
    """A rule's name with its variant, for people and files: `rmsprop_va_inside`, say."""
    present = "".join(letter for letter in rule.letters if letter)
    options = ["inside" if rule.inside else "", "ema" if rule.averaged else ""]
    return "_".join(filter(None, [rule.name, present, *options]))
