"""The formulas that a job's kernel is compiled from."""

from __future__ import annotations

import ast
import inspect
from functools import cache

from fusedstep._compiler.formula import Formula, read
from fusedstep._numerics import scalar
from fusedstep._numerics.coefficients import Rule, Scalars

MEMBERS = dict.fromkeys(Scalars._fields, float)


@cache
def gradient() -> Formula:
    """What is done to the gradient before any rule."""
    return read(scalar.gradient, MEMBERS)


@cache
def average() -> Formula:
    """What becomes of the moving average after any rule."""
    return read(scalar.average, MEMBERS)


@cache
def formula(rule: Rule) -> Formula:
    """The rule alone: a custom one's formula, or that of scalar.py in the variant asked for."""
    if rule.formula is not None:
        return rule.formula
    function = getattr(scalar, rule.name)
    _, _, *states, _, _ = inspect.signature(function).parameters
    absent = [name for name, letter in zip(states, rule.letters, strict=True) if letter is None]
    return read(function, MEMBERS, {**dict.fromkeys(absent), "inside": rule.inside})


@cache
def step(rule: Rule) -> Formula:
    """All that a step does to one element: its gradient, the rule, and the average if kept.

    Its variables are p, g, the state arrays that are there, and ema; it returns them anew,
    but for g.
    """
    before, update, after = gradient(), formula(rule), average()
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
    """A name of the variant for people and files: `rmsprop_centered_inside`, say."""
    present = "".join(letter for letter in rule.letters if letter)
    options = ["inside" if rule.inside else "", "ema" if rule.averaged else ""]
    return "_".join(filter(None, [rule.name, present, *options]))
