"""Formulas as the text of functions: the rule's lines, and names that give way."""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from fusedstep._compiler import generate
from fusedstep._compiler.formula import Formula
from fusedstep._compiler.parse import parse

OPERATORS: generate.Operators = {ast.Add: "add", ast.Mult: "mul"}


def load(x):
    return x * 0.5


def load_(x, y):
    return y, load(x)


def rule(p, g, real, h):
    mul = np.sqrt(g) + h.lr
    if g > 1:
        p, g = load_(p, mul)
    elif g < 0:
        pass
    else:
        real = -load(g) - 2
    return p, (p if not g > 0 or h.fast else real)


TEXT = """\
@device
def load_(x):
    return mul(x, real(0.5))


@device
def load__(x, y):
    return y, load_(x)


@device
def rule(p, g, real_, h):
    mul_ = add(sqrt(g), h.lr)
    if g > real(1.0):
        p, g = load__(p, mul_)
    elif not g < real(0.0):
        real_ = -load_(g) - real(2.0)
    return p, p if not g > real(0.0) or h.fast != real(0.0) else real_
"""


def formula(function: Any) -> Formula:
    return parse(function, {"lr": float, "fast": bool})


def test_lines_and_names() -> None:
    """The head has `load`, so what is called so gets an underscore; the root keeps its name."""
    head = "from parts import add, device, load, mul, rule"
    assert generate.functions(formula(rule), "device", OPERATORS, head) == TEXT


def test_names_that_nobody_has_stay() -> None:
    text = generate.functions(formula(rule), "device", OPERATORS, "")
    assert "def load(x):" in text
    assert "def load_(x, y):\n    return y, load(x)" in text
