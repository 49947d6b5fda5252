"""Conditions, of which some are known before compiling: those are decided and left out."""

from __future__ import annotations

import ast


def negated(condition: ast.expr) -> ast.expr:
    """The opposite of a condition."""
    if isinstance(condition, ast.Constant):
        return ast.Constant(not condition.value)
    return ast.UnaryOp(ast.Not(), condition)


def joined(op: ast.boolop, conditions: list[ast.expr]) -> ast.expr:
    """Conditions joined by `and` or `or`."""
    decisive = isinstance(op, ast.Or)
    unknown = []
    for condition in conditions:
        if not isinstance(condition, ast.Constant):
            unknown.append(condition)
        elif condition.value == decisive:
            return ast.Constant(decisive)
    if not unknown:
        return ast.Constant(not decisive)
    return unknown[0] if len(unknown) == 1 else ast.BoolOp(op, unknown)
