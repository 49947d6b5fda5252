"""Formulas evaluated over whole arrays: how the "numpy" backend runs a custom rule.

Every operation is NumPy's on arrays of the compute dtype, so the results here define what
every other backend must compute. Where a condition differs from element to element, both
branches are computed and each element takes its own.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedstep._compiler.formula import Formula

OPERATIONS: dict[type[ast.AST], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.USub: np.negative,
    ast.Not: np.logical_not,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
}

PRIMITIVES = {"sqrt": np.sqrt, "abs": np.abs}


def evaluate(
    formula: Formula, arguments: Sequence[Any], h: Any, dtype: np.dtype[Any]
) -> tuple[Any, ...]:
    """The results of `formula`, always a tuple."""
    values = dict(zip(formula.variables, arguments, strict=True))
    results = _Evaluation(formula, values, h, dtype).run()
    return results if isinstance(results, tuple) else (results,)


class _Evaluation:
    """One run of a formula: `values` holds its arguments and variables as they are now."""

    def __init__(
        self, formula: Formula, values: dict[str, Any], h: Any, dtype: np.dtype[Any]
    ) -> None:
        self.formula = formula
        self.values = values
        self.h = h
        self.dtype = dtype

    def run(self) -> Any:
        *statements, last = self.formula.body
        assert isinstance(last, ast.Return)
        assert last.value is not None
        self.execute(statements)
        return self.value(last.value)

    def execute(self, statements: Sequence[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.values[name] = self.value(value)
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                    names = [target.id for target in targets if isinstance(target, ast.Name)]
                    self.values.update(zip(names, self.value(value), strict=True))
                case ast.If(test=test, body=body, orelse=orelse):
                    self.choose(self.value(test), body, orelse)

    def choose(self, condition: Any, body: list[ast.stmt], orelse: list[ast.stmt]) -> None:
        if np.ndim(condition) == 0:
            self.execute(body if condition else orelse)
            return
        before, ends = self.values, []
        for statements in (body, orelse):
            self.values = dict(before)
            self.execute(statements)
            ends.append(self.values)
        self.values = {
            name: ends[0][name]
            if ends[0][name] is ends[1][name]
            else np.where(condition, ends[0][name], ends[1][name])
            for name in ends[0].keys() & ends[1].keys()
        }

    def value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value if isinstance(value, bool) else self.dtype.type(value)
            case ast.Name(id=name):
                return self.values[name]
            case ast.Attribute(attr=member):
                return getattr(self.h, member)
            case ast.BinOp(left=left, op=op, right=right):
                return OPERATIONS[type(op)](self.value(left), self.value(right))
            case ast.UnaryOp(op=op, operand=operand):
                return OPERATIONS[type(op)](self.value(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return OPERATIONS[type(op)](self.value(left), self.value(right))
            case ast.BoolOp(op=op, values=values):
                first, *others = map(self.value, values)
                for other in others:
                    first = OPERATIONS[type(op)](first, other)
                return first
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return np.where(self.value(test), self.value(body), self.value(orelse))[()]
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.call(name, [self.value(argument) for argument in args])
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
        raise AssertionError(ast.dump(node))

    def call(self, name: str, arguments: list[Any]) -> Any:
        if name in PRIMITIVES:
            return PRIMITIVES[name](*arguments)
        results = evaluate(self.formula.callees[name], arguments, self.h, self.dtype)
        return results if len(results) > 1 else results[0]
