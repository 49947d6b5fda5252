"""The parser of Python functions to formulas: their statements, and the functions they call."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import partial
from typing import Any

from fusedstep._compiler.callees import Callees
from fusedstep._compiler.expressions import Expressions, Values
from fusedstep._compiler.formula import Formula
from fusedstep._compiler.logic import negated
from fusedstep._compiler.scope import NUMBER, SCALARS, Constants, Members, Scope, Types
from fusedstep._compiler.source import Function


def parse(
    function: Function,
    members: Members,
    constants: Constants | None = None,
    results: int | None = None,
) -> Formula:
    """The formula of `function`, whose argument `h` holds the scalars.

    `members` has the type of each member of h, float or bool. `constants` has the arguments
    whose values are known: None for a state array that is not there, True or False. It must
    return as many values as `results` says, if that is given.
    """
    return Parser(members).formula((function,), {"h": SCALARS}, constants or {}, results)


class Parser:
    """A parser of one function and all that it calls: calls that are alike share one formula."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.known: dict[Any, Formula] = {}
        """The formulas of callees, by the function and what is known of its arguments."""

    def formula(
        self,
        callers: tuple[Function, ...],
        types: Types,
        constants: Constants,
        results: int | None = None,
    ) -> Formula:
        """The formula of the last of `callers`, each of which calls the next."""
        scope = Scope(callers[-1], self.members, types, constants)
        callees = Callees(scope, callers, partial(self.callee, callers))
        return Statements(scope, callees).formula(results)

    def callee(
        self,
        callers: tuple[Function, ...],
        function: Function,
        types: Types,
        constants: Constants,
    ) -> Formula:
        key = (function, *types.items(), *constants.items())
        if key not in self.known:
            self.known[key] = self.formula((*callers, function), types, constants)
        return self.known[key]


class Statements:
    """The statements of one function. Each becomes plainer ones, or none."""

    def __init__(self, scope: Scope, callees: Callees) -> None:
        self.scope = scope
        self.callees = callees
        self.expressions = Expressions(scope, callees)

    def formula(self, expected: int | None = None) -> Formula:
        """The whole function, which returns `expected` values, if that is given."""
        scope, tree = self.scope, self.scope.tree
        variables = tuple(name for name, type_ in scope.types.items() if type_ != SCALARS)
        *statements, last = tree.body
        if not isinstance(last, ast.Return):
            raise scope.error(last, "end the function with a `return`")
        body = self.block(statements)
        returned, results = self.returned(last)
        if expected not in (None, results):
            raise scope.error(
                last,
                f"returns {results} value{'s' * (results != 1)} where {expected} are needed: the "
                "new p, and the new state in the order of the arguments",
            )
        if scope.scalars and scope.types.get("h", SCALARS) != SCALARS:
            raise scope.error(tree, "`h` holds the scalars; give the number another name")
        return Formula(
            tree.name,
            variables,
            (*body, ast.Return(value=returned)),
            self.callees.formulas,
            tuple(scope.scalars),
            results,
        )

    def returned(self, node: ast.Return) -> Values:
        if node.value is None:
            raise self.scope.error(node, "returns nothing")
        if isinstance(node.value, (ast.Tuple, ast.Call)):
            return self.expressions.numbers(node.value)
        return self.expressions.number(node.value), 1

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        return [plain for statement in statements for plain in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):  # or a docstring
                return []
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                return [self.assign(name, value)]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                return [self.assign(name, value)]
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                left = ast.copy_location(ast.Name(name, ast.Load()), target)
                value = ast.copy_location(ast.BinOp(left, op, value), node)
                return [self.assign(name, value)]
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                return [self.assign_several(node, targets, value)]
            case ast.If(test=test, body=body, orelse=orelse):
                return self.choice(test, body, orelse)
            case ast.Return():
                what = "returns early; assign in the branches, return at the end"
            case ast.For() | ast.While():
                what = "is a loop; write out what it does"
            case _:
                what = "is no assignment to names, `if` or `return`; a rule has nothing else"
        raise self.scope.error(node, what)

    def assign(self, name: str, value: ast.expr) -> ast.stmt:
        plain, self.scope.types[name] = self.expressions.expression(value)
        return ast.Assign([ast.Name(name, ast.Store())], plain)

    def assign_several(self, node: ast.stmt, targets: list[ast.expr], value: ast.expr) -> ast.stmt:
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if len(names) < len(targets):
            raise self.scope.error(node, "assigns to something other than plain names")
        values, count = self.expressions.numbers(value)
        if count != len(names):
            raise self.scope.error(node, f"assigns {count} values to {len(names)} names")
        self.scope.types.update(dict.fromkeys(names, NUMBER))
        stored: list[ast.expr] = [ast.Name(name, ast.Store()) for name in names]
        return ast.Assign(stored if count == 1 else [ast.Tuple(stored, ast.Store())], values)

    def choice(
        self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]
    ) -> list[ast.stmt]:
        condition = self.expressions.condition(test)
        if isinstance(condition, ast.Constant):
            return self.block(body if condition.value else orelse)
        before = self.scope.types
        branches, ends = [], []
        for statements in (body, orelse):
            self.scope.types = dict(before)
            branches.append(self.block(statements))
            ends.append(self.scope.types)
        self.scope.types = dict(ends[0].items() & ends[1].items())
        if not branches[0] and branches[1]:
            return [ast.If(negated(condition), branches[1], [])]
        return [ast.If(condition, branches[0] or [ast.Pass()], branches[1])]
