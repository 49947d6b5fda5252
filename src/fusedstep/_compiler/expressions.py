"""Expressions of a rule, each checked and put in its plainer form."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from copy import deepcopy
from functools import reduce
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from fusedstep._compiler import vocabulary
from fusedstep._compiler.callees import Callees
from fusedstep._compiler.logic import joined, negated
from fusedstep._compiler.scope import CONDITION, NUMBER, SCALARS, Scope
from fusedstep._compiler.source import Function

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)

Values: TypeAlias = tuple[ast.expr, int]
"""An expression, and the count of the numbers that it makes."""


class Expressions:
    """The expressions of one function. Each becomes its plainer form and its type."""

    def __init__(self, scope: Scope, callees: Callees) -> None:
        self.scope = scope
        self.callees = callees

    def number(self, node: ast.expr) -> ast.expr:
        plain, type_ = self.expression(node)
        if type_ != NUMBER:
            remedy = (
                "name one of them, as `h.lr`"
                if type_ == SCALARS
                else "of a condition make one with `1 if ... else 0`"
            )
            raise self.scope.error(
                node, f"`{ast.unparse(node)}` is a {type_} where a number is needed; {remedy}"
            )
        return plain

    def condition(self, node: ast.expr) -> ast.expr:
        plain, type_ = self.expression(node)
        if type_ != CONDITION:
            raise self.scope.error(
                node,
                f"`{ast.unparse(node)}` is a {type_} where a condition is needed; "
                "compare it, for instance `!= 0`",
            )
        return plain

    def numbers(self, node: ast.expr) -> Values:
        """Numbers side by side or from one call; an argument that is a constant is left out."""
        if isinstance(node, ast.Call):
            return self.call(node)
        if not isinstance(node, ast.Tuple):
            self.number(node)
            raise self.scope.error(node, "is a single value; write as many as there are names")
        values = [self.number(item) for item in node.elts if self.scope.constant(item) is None]
        if len(values) == 1:
            return values[0], 1
        return ast.Tuple(values, ast.Load()), len(values)

    def expression(self, node: ast.expr) -> tuple[ast.expr, str]:
        match node:
            case ast.Constant(value=bool()):
                return node, CONDITION
            case ast.Constant(value=int() | float() as value):
                return self.literal(node, value), NUMBER
            case ast.Name(id=name) if name in self.scope.locals:
                return self.scope.variable(node, name)
            case ast.Attribute(value=ast.Name(id=name), attr=member) if (
                self.scope.types.get(name) == SCALARS
            ):
                return self.scope.member(node, member)
            case ast.Name() | ast.Attribute():
                return self.literal(node, self.scope.resolve(node)), NUMBER
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return ast.UnaryOp(ast.USub(), self.number(operand)), NUMBER
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand), NUMBER
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return negated(self.condition(operand)), CONDITION
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self.power(node, left, right), NUMBER
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, OPERATORS):
                return ast.BinOp(self.number(left), op, self.number(right)), NUMBER
            case ast.BoolOp(op=op, values=values):
                return joined(op, [self.condition(value) for value in values]), CONDITION
            case ast.Compare(ops=[ast.Is() | ast.IsNot(), *_]):
                return self.scope.presence(node), CONDITION
            case ast.Compare():
                return self.comparison(node), CONDITION
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.selection(test, body, orelse), NUMBER
            case ast.Call():
                result, count = self.call(node)
                if count != 1:
                    raise self.scope.error(
                        node, f"the call returns {count} values where one is needed"
                    )
                return result, NUMBER
        raise self.misplaced(node)

    def misplaced(self, node: ast.expr) -> TypeError:
        """The error about an expression that no rule has."""
        match node:
            case ast.Subscript(value=value):
                self.number(value)
                what = f"`{ast.unparse(value)}` is one number here, a single element"
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
                what = "joins bits; conditions have `and`, `or` and `not`"
            case _:
                what = f"`{ast.unparse(node)}` has no place in a rule; see fusedstep.rule"
        return self.scope.error(node, what)

    def literal(self, node: ast.expr, value: Any) -> ast.expr:
        if not isinstance(value, Real) or isinstance(value, bool) or value != value:
            raise self.scope.error(
                node,
                f"`{ast.unparse(node)}` is {value!r}, not a number; make it an argument, a "
                "hyperparameter or a state array",
            )
        try:
            return ast.Constant(float(value))
        except OverflowError:
            raise self.scope.error(
                node, f"`{ast.unparse(node)}` is too large for a float"
            ) from None

    def power(self, node: ast.expr, left: ast.expr, right: ast.expr) -> ast.expr:
        exponent = self.number(right)
        if not isinstance(exponent, ast.Constant) or exponent.value not in vocabulary.POWERS:
            raise self.scope.error(
                node,
                f"`{ast.unparse(node)}` is a power that machines round differently; 2, 3 and "
                "0.5 are the exponents there are, so write it with `*`, `/` and `sqrt`, or compute "
                "it in `prepare` if it has no p, g or state in it",
            )
        return self.apply(node, vocabulary.POWERS[exponent.value], [self.number(left)])

    def comparison(self, node: ast.Compare) -> ast.expr:
        for op in node.ops:
            if not isinstance(op, COMPARISONS):
                raise self.scope.error(node, "compares with something other than < <= > >= == !=")
        sides = [self.number(side) for side in (node.left, *node.comparators)]
        # Each in a tree of its own: a transformer that rewrites one must not meet it twice.
        pairs = zip(sides, node.ops, map(deepcopy, sides[1:]), strict=False)
        return joined(ast.And(), [ast.Compare(left, [op], [right]) for left, op, right in pairs])

    def selection(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> ast.expr:
        condition = self.condition(test)
        if isinstance(condition, ast.Constant):
            return self.number(body if condition.value else orelse)
        return ast.IfExp(condition, self.number(body), self.number(orelse))

    # ---- calls ----

    def call(self, node: ast.Call) -> Values:
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self.scope.error(
                node, "calls with keywords or stars; pass plain positional arguments"
            )
        if not isinstance(node.func, (ast.Name, ast.Attribute)):
            raise self.scope.error(node, "calls something without a name")
        called = self.scope.resolve(node.func)
        called = getattr(called, "py_func", called)  # what Numba compiled a function from
        if called is np.where:
            if len(node.args) != 3:
                raise self.scope.error(node, "where takes a condition and two numbers")
            return self.selection(*node.args), 1
        meaning = vocabulary.meaning(called)
        if meaning is not None:
            return self.call_known(node, meaning), 1
        if inspect.isfunction(called):
            return self.call_function(node, called)
        shown = ast.unparse(node.func)
        if isinstance(called, type):
            raise self.scope.error(
                node, f"{shown} would leave the compute dtype, which all numbers have; leave it out"
            )
        raise self.scope.error(
            node,
            f"{shown} cannot be called in a rule: only functions of one element that every machine "
            "rounds alike can be, which fusedstep.rule lists, and Python functions made of those. "
            "What has no p, g or state in it can be computed in `prepare`",
        )

    def call_known(self, node: ast.Call, meaning: vocabulary.Meaning) -> ast.expr:
        """A call of a function of the vocabulary."""
        numbers = [self.number(argument) for argument in node.args]
        if meaning in vocabulary.CHAINED and len(numbers) > 2:
            return reduce(lambda x, y: self.apply(node, meaning, [x, y]), numbers)
        return self.apply(node, meaning, numbers)

    def apply(
        self, node: ast.expr, meaning: vocabulary.Meaning, numbers: list[ast.expr]
    ) -> ast.expr:
        taken = 1 if isinstance(meaning, str) else meaning.__code__.co_argcount
        self.count(node, numbers, taken)
        name = meaning if isinstance(meaning, str) else self.callees.add(meaning, {}, {})[0]
        return ast.Call(ast.Name(name, ast.Load()), numbers, [])

    def call_function(self, node: ast.Call, function: Function) -> Values:
        """A call of a function that is written as a rule is."""
        if function in self.callees.callers:
            raise self.scope.error(node, "calls itself; a rule has no recursion")
        names = list(inspect.signature(function).parameters)
        self.count(node, node.args, len(names))
        arguments, types, constants = [], {}, {}
        for name, argument in zip(names, node.args, strict=True):
            constant = self.scope.constant(argument)
            if constant is not None:
                constants[name] = self.scope.constants[constant]
                continue
            plain, types[name] = self.expression(argument)
            if types[name] != SCALARS:
                arguments.append(plain)
        name, results = self.callees.add(function, types, constants)
        return ast.Call(ast.Name(name, ast.Load()), arguments, []), results

    def count(self, node: ast.expr, arguments: Sequence[ast.expr], taken: int) -> None:
        passed = len(arguments)
        if passed != taken:
            shown = f"{passed} argument{'s' * (passed != 1)}"
            raise self.scope.error(node, f"the call passes {shown} where {taken} are taken")
