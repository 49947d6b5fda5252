"""A rule as a scalar Python function, read and checked: what the engines compile.

A rule is written for one element, in a small part of Python, all of which means the same to
the bit on every engine: `+ - * /`, squares, negation, comparisons, `and or not`, `a if c
else b`, `if` statements, what `KNOWN` lists, numbers, members of h, and calls of other such
functions. There are two types, numbers of the compute dtype, which a literal has too, and
conditions; they do not mix, so nothing can drift to another dtype. Whatever else a function
holds is refused, by its line.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from numbers import Real
from typing import Any

import numpy as np

from fusedstep._checks.wording import quoted
from fusedstep._compiler import functions, source
from fusedstep._compiler.source import Function

PRIMITIVES = ("sqrt", "abs")
"""What the engines bring besides operators."""

KNOWN: list[tuple[Any, str | Function]] = [
    (math.sqrt, "sqrt"),
    (np.sqrt, "sqrt"),
    (builtins.abs, "abs"),
    (math.fabs, "abs"),
    (np.abs, "abs"),
    (np.fabs, "abs"),
    (np.sign, functions.sign),
    (np.maximum, functions.maximum),
    (np.minimum, functions.minimum),
    (builtins.max, functions.larger),
    (builtins.min, functions.smaller),
    (np.clip, functions.clip),
    (np.square, functions.square),
]
"""Functions of Python and NumPy that a rule may call, and `np.where`: each is a primitive,
or written as a rule is."""

POWERS: dict[Any, str | Function] = {2: functions.square, 3: functions.cube, 0.5: "sqrt"}

OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)
COMPARISONS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq)

NUMBER, CONDITION, SCALARS = "number", "condition", "set of scalars"


@dataclass(frozen=True, eq=False)
class Formula:
    """A function of one element in a plainer form, of numbers and conditions only.

    Its statements are assignments, to a name, or to several at once; `if` with two branches;
    and a `return` at the end. Its expressions are names, numbers, `h.member`, operators,
    single comparisons, `and or not`, `a if c else b`, and calls of `PRIMITIVES` and of its
    callees. What constants decide has been decided: `x is not None`, `inside`.
    """

    name: str
    variables: tuple[str, ...]
    """Its arguments, after which comes h, if `scalars` are read."""
    body: tuple[ast.stmt, ...]
    callees: dict[str, Formula]
    scalars: tuple[str, ...]
    """The members of h that it and its callees read."""
    results: int
    """How many values it returns; one is not a tuple."""


def read(
    function: Function,
    members: Mapping[str, type],
    constants: Mapping[str, bool | None] | None = None,
    results: int | None = None,
) -> Formula:
    """The formula of `function`, whose argument `h` holds the scalars.

    `members` has the type of each member of h, float or bool. `constants` has the arguments
    whose values are known: None for a state array that is not there, True or False. It must
    return as many values as `results` says, if that is given.
    """
    return _Reader(function, members, {"h": SCALARS}, constants or {}, (), {}).formula(results)


class _Reader:
    """Reads one function. An expression becomes its plainer form and its type."""

    def __init__(
        self,
        function: Function,
        members: Mapping[str, type],
        types: Mapping[str, str],
        constants: Mapping[str, bool | None],
        callers: tuple[Function, ...],
        known: dict[Any, Formula],
    ) -> None:
        self.function = function
        self.members = members
        self.constants = constants
        self.callers = (*callers, function)
        self.known = known
        self.source = source.source(function)
        self.tree = self.source.tree
        self.outside = source.outside(function)
        self.arguments = self.plain_arguments()
        self.types = {
            name: types.get(name, NUMBER) for name in self.arguments if name not in constants
        }
        self.locals = {*self.arguments, *_assigned(self.tree)}
        self.callees: dict[str, Formula] = {}
        self.scalars: dict[str, None] = {}  # an ordered set

    def error(self, node: ast.stmt | ast.expr, what: str) -> TypeError:
        where = f"line {node.lineno} of {self.source.file}"
        line = self.source.lines[node.lineno - 1].strip()
        return TypeError(f"{self.tree.name}, {where}: `{line}`: {what}")

    def plain_arguments(self) -> list[str]:
        arguments = self.tree.args
        listed = [argument.arg for argument in arguments.args]
        if inspect.getfullargspec(self.function) != inspect.FullArgSpec(
            listed, None, None, None, [], None, self.function.__annotations__
        ):
            raise self.error(self.tree, "has defaults or starred arguments; name each one plainly")
        return listed

    def formula(self, expected: int | None = None) -> Formula:
        variables = tuple(name for name, type_ in self.types.items() if type_ != SCALARS)
        *statements, last = self.tree.body
        if not isinstance(last, ast.Return):
            raise self.error(last, "end the function with a `return`")
        body = self.block(statements)
        returned, results = self.returned(last)
        if expected not in (None, results):
            raise self.error(
                last,
                f"returns {results} value{'s' * (results != 1)} where {expected} are needed: the "
                "new p, and the new state in the order of the arguments",
            )
        if self.scalars and self.types.get("h", SCALARS) != SCALARS:
            raise self.error(self.tree, "`h` holds the scalars; give the number another name")
        return Formula(
            self.tree.name,
            variables,
            (*body, ast.Return(value=returned)),
            self.callees,
            tuple(self.scalars),
            results,
        )

    # ---- statements ----

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        return [plain for statement in statements for plain in self.statement(statement)]

    def statement(self, node: ast.stmt) -> list[ast.stmt]:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant(value=str())):  # or a docstring
                return []
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                return [self.assign(name, *self.expression(value))]
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                return [self.assign(name, *self.expression(value))]
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                left = ast.copy_location(ast.Name(name, ast.Load()), target)
                sum_ = ast.copy_location(ast.BinOp(left, op, value), node)
                return [self.assign(name, *self.expression(sum_))]
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                return [self.assign_several(node, targets, value)]
            case ast.If(test=test, body=body, orelse=orelse):
                return self.choice(test, body, orelse)
            case ast.Return():
                raise self.error(node, "returns early; assign in the branches, return at the end")
            case ast.For() | ast.While():
                raise self.error(node, "is a loop; write out what it does")
        raise self.error(
            node, "is no assignment to names, `if` or `return`; a rule has nothing else"
        )

    def assign(self, name: str, value: ast.expr, type_: str) -> ast.stmt:
        self.types[name] = type_
        return ast.Assign([ast.Name(name, ast.Store())], value)

    def assign_several(self, node: ast.stmt, targets: list[ast.expr], value: ast.expr) -> ast.stmt:
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if len(names) < len(targets):
            raise self.error(node, "assigns to something other than plain names")
        values, number = self.several(value)
        if number != len(names):
            raise self.error(node, f"assigns {number} values to {len(names)} names")
        if number == 1:
            return self.assign(names[0], values, NUMBER)
        self.types.update(dict.fromkeys(names, NUMBER))
        return ast.Assign(
            [ast.Tuple([ast.Name(name, ast.Store()) for name in names], ast.Store())], values
        )

    def choice(
        self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]
    ) -> list[ast.stmt]:
        condition = self.condition(test)
        if isinstance(condition, ast.Constant):
            return self.block(body if condition.value else orelse)
        before = self.types
        branches, ends = [], []
        for statements in (body, orelse):
            self.types = dict(before)
            branches.append(self.block(statements))
            ends.append(self.types)
        self.types = dict(ends[0].items() & ends[1].items())
        if not branches[0] and branches[1]:
            return [ast.If(_negated(condition), branches[1], [])]
        return [ast.If(condition, branches[0] or [ast.Pass()], branches[1])]

    def returned(self, node: ast.Return) -> tuple[ast.expr, int]:
        if node.value is None:
            raise self.error(node, "returns nothing")
        if isinstance(node.value, (ast.Tuple, ast.Call)):
            return self.several(node.value)
        return self.number(node.value), 1

    def several(self, node: ast.expr) -> tuple[ast.expr, int]:
        """Numbers side by side or from one call, and how many; a constant is left out."""
        if isinstance(node, ast.Call):
            return self.call(node)
        if not isinstance(node, ast.Tuple):
            self.number(node)
            raise self.error(node, "is a single value; write as many as there are names")
        values = [self.number(item) for item in node.elts if self.constant(item) is None]
        if len(values) == 1:
            return values[0], 1
        return ast.Tuple(values, ast.Load()), len(values)

    # ---- expressions ----

    def number(self, node: ast.expr) -> ast.expr:
        plain, type_ = self.expression(node)
        if type_ != NUMBER:
            remedy = (
                "name one of them, as `h.lr`"
                if type_ == SCALARS
                else "of a condition make one with `1 if ... else 0`"
            )
            raise self.error(
                node, f"`{ast.unparse(node)}` is a {type_} where a number is needed; {remedy}"
            )
        return plain

    def condition(self, node: ast.expr) -> ast.expr:
        plain, type_ = self.expression(node)
        if type_ != CONDITION:
            raise self.error(
                node,
                f"`{ast.unparse(node)}` is a {type_} where a condition is needed; "
                "compare it, for instance `!= 0`",
            )
        return plain

    def constant(self, node: ast.expr) -> str | None:
        """The name that `node` is, if that is an argument whose value is known."""
        return node.id if isinstance(node, ast.Name) and node.id in self.constants else None

    def expression(self, node: ast.expr) -> tuple[ast.expr, str]:
        match node:
            case ast.Constant(value=bool()):
                return node, CONDITION
            case ast.Constant(value=int() | float() as literal):
                return self.literal(node, literal), NUMBER
            case ast.Name(id=name) if name in self.locals:
                return self.local(node, name)
            case ast.Attribute(value=ast.Name(id=name), attr=member) if (
                self.types.get(name) == SCALARS
            ):
                return self.member(node, member)
            case ast.Name() | ast.Attribute():
                return self.literal(node, self.resolve(node)), NUMBER
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return ast.UnaryOp(ast.USub(), self.number(operand)), NUMBER
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand), NUMBER
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return _negated(self.condition(operand)), CONDITION
            case ast.BinOp(left=left, op=ast.Pow(), right=right):
                return self.power(node, left, right), NUMBER
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, OPERATORS):
                return ast.BinOp(self.number(left), op, self.number(right)), NUMBER
            case ast.BoolOp(op=op, values=values):
                return _joined(op, [self.condition(value) for value in values]), CONDITION
            case ast.Compare():
                return self.comparison(node), CONDITION
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.selection(test, body, orelse), NUMBER
            case ast.Call():
                result, number = self.call(node)
                if number != 1:
                    raise self.error(node, f"the call returns {number} values where one is needed")
                return result, NUMBER
            case ast.Subscript(value=value):
                self.number(value)
                raise self.error(
                    node, f"`{ast.unparse(value)}` is one number here, a single element"
                )
            case ast.BinOp(op=ast.BitAnd() | ast.BitOr()) | ast.UnaryOp(op=ast.Invert()):
                raise self.error(node, "joins bits; conditions have `and`, `or` and `not`")
        raise self.error(node, f"`{ast.unparse(node)}` has no place in a rule; see fusedstep.rule")

    def literal(self, node: ast.expr, value: Any) -> ast.expr:
        if not isinstance(value, Real) or isinstance(value, bool) or value != value:
            raise self.error(
                node,
                f"`{ast.unparse(node)}` is {value!r}, not a number; make it an argument, a "
                "hyperparameter or a state array",
            )
        try:
            return ast.Constant(float(value))
        except OverflowError:
            raise self.error(node, f"`{ast.unparse(node)}` is too large for a float") from None

    def local(self, node: ast.expr, name: str) -> tuple[ast.expr, str]:
        if name in self.constants:
            value = self.constants[name]
            if value is None:
                raise self.error(node, f"{name} is None here; ask `if {name} is not None` before")
            return ast.Constant(value), CONDITION
        if name not in self.types:
            raise self.error(node, f"{name} is not assigned on every way to this line")
        return ast.Name(name, ast.Load()), self.types[name]

    def member(self, node: ast.expr, member: str) -> tuple[ast.expr, str]:
        if member not in self.members:
            raise self.error(
                node,
                f"h has no {member!r}; it has {quoted(list(self.members))}. Hyperparameters are "
                "arguments of `rule`, and what `prepare` returns is there, too",
            )
        if self.members[member] not in (float, bool):
            kind = self.members[member].__name__
            raise self.error(node, f"h.{member} is a {kind}; let `prepare` make numbers of it")
        self.scalars[member] = None
        value = ast.Attribute(ast.Name("h", ast.Load()), member, ast.Load())
        if self.members[member] is bool:
            return ast.Compare(value, [ast.NotEq()], [ast.Constant(0.0)]), CONDITION
        return value, NUMBER

    def power(self, node: ast.expr, left: ast.expr, right: ast.expr) -> ast.expr:
        exponent = self.number(right)
        if not isinstance(exponent, ast.Constant) or exponent.value not in POWERS:
            raise self.error(
                node,
                f"`{ast.unparse(node)}` is a power that machines round differently; 2, 3 and "
                "0.5 are the exponents there are, so write it with `*`, `/` and `sqrt`, or compute "
                "it in `prepare` if it has no p, g or state in it",
            )
        return self.apply(node, POWERS[exponent.value], [self.number(left)])

    def comparison(self, node: ast.Compare) -> ast.expr:
        if isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            return self.presence(node)
        for op in node.ops:
            if not isinstance(op, COMPARISONS):
                raise self.error(node, "compares with something other than < <= > >= == !=")
        sides = [self.number(side) for side in (node.left, *node.comparators)]
        # Each in a tree of its own: whoever rewrites one must not meet it twice.
        pairs = zip(sides, node.ops, map(deepcopy, sides[1:]), strict=False)
        return _joined(ast.And(), [ast.Compare(left, [op], [right]) for left, op, right in pairs])

    def presence(self, node: ast.Compare) -> ast.expr:
        """Of `x is None` and `x is not None`."""
        match node:
            case ast.Compare(
                left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=None)]
            ) if name in self.arguments:
                absent = name in self.constants and self.constants[name] is None
                return ast.Constant(absent == isinstance(op, ast.Is))
        raise self.error(node, "`is` asks for nothing but whether an argument is None")

    def selection(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> ast.expr:
        condition = self.condition(test)
        if isinstance(condition, ast.Constant):
            return self.number(body if condition.value else orelse)
        return ast.IfExp(condition, self.number(body), self.number(orelse))

    # ---- calls ----

    def resolve(self, node: ast.expr) -> Any:
        """What a name of the world outside stands for, as it is now."""
        if isinstance(node, ast.Name) and node.id in self.locals:
            raise self.error(
                node,
                f"`{node.id}` is one number here, a single element: it has no members, cannot be "
                "called, and knows nothing of the whole array",
            )
        if isinstance(node, ast.Attribute):
            owner = self.resolve(node.value)
            if hasattr(owner, node.attr):
                return getattr(owner, node.attr)
        elif isinstance(node, ast.Name) and node.id in self.outside:
            return self.outside[node.id]
        remedy = ""
        if isinstance(node, ast.Name) and node.id in self.members:
            remedy = f"; here it is `h.{node.id}`"
        elif isinstance(node, ast.Name) and node.id == "t":
            remedy = "; what depends on the step count is computed in `prepare`"
        raise self.error(node, f"`{ast.unparse(node)}` is not defined{remedy}")

    def call(self, node: ast.Call) -> tuple[ast.expr, int]:
        """A plainer call, and how many values it returns."""
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            raise self.error(node, "calls with keywords or stars; pass plain positional arguments")
        if not isinstance(node.func, (ast.Name, ast.Attribute)):
            raise self.error(node, "calls something without a name")
        called = self.resolve(node.func)
        called = getattr(called, "py_func", called)  # of a function that Numba has compiled
        if called is np.where:
            if len(node.args) != 3:
                raise self.error(node, "where takes a condition and two numbers")
            return self.selection(*node.args), 1
        known = _known(called)
        if known in (functions.larger, functions.smaller) and len(node.args) > 2:
            numbers = [self.number(argument) for argument in node.args]
            return reduce(lambda x, y: self.apply(node, known, [x, y]), numbers), 1
        if known is not None:
            return self.apply(node, known, [self.number(argument) for argument in node.args]), 1
        if inspect.isfunction(called):
            return self.call_function(node, called)
        shown = ast.unparse(node.func)
        if isinstance(called, type):
            raise self.error(
                node, f"{shown} would leave the compute dtype, which all numbers have; leave it out"
            )
        raise self.error(
            node,
            f"{shown} cannot be called in a rule: only functions of one element that every machine "
            "rounds alike can be, which fusedstep.rule lists, and Python functions made of those. "
            "What has no p, g or state in it can be computed in `prepare`",
        )

    def apply(self, node: ast.expr, known: str | Function | None, arguments: Any) -> ast.expr:
        """A call of a primitive or a function of numbers."""
        if isinstance(known, str):
            self.count(node, len(arguments), 1)
            return ast.Call(ast.Name(known, ast.Load()), arguments, [])
        assert known is not None
        self.count(node, len(arguments), known.__code__.co_argcount)
        callee = self.read(known, {}, {})
        return ast.Call(ast.Name(self.admit(callee), ast.Load()), arguments, [])

    def count(self, node: ast.expr, passed: int, taken: int) -> None:
        if passed != taken:
            arguments = f"{passed} argument{'s' * (passed != 1)}"
            raise self.error(node, f"the call passes {arguments} where {taken} are taken")

    def call_function(self, node: ast.Call, called: Function) -> tuple[ast.expr, int]:
        if called in self.callers:
            raise self.error(node, "calls itself; a rule has no recursion")
        names = list(inspect.signature(called).parameters)
        self.count(node, len(node.args), len(names))
        arguments, types, constants = [], {}, {}
        for name, argument in zip(names, node.args, strict=True):
            known = self.constant(argument)
            if known is not None:
                constants[name] = self.constants[known]
                continue
            plain, types[name] = self.expression(argument)
            if types[name] != SCALARS:
                arguments.append(plain)
        callee = self.read(called, types, constants)
        return ast.Call(ast.Name(self.admit(callee), ast.Load()), arguments, []), callee.results

    def read(
        self, called: Function, types: dict[str, str], constants: dict[str, bool | None]
    ) -> Formula:
        """The formula of a callee, the same one for all its calls that are alike."""
        key = (called, *types.items(), *constants.items())
        if key not in self.known:
            reader = _Reader(called, self.members, types, constants, self.callers, self.known)
            self.known[key] = reader.formula()
        return self.known[key]

    def admit(self, callee: Formula) -> str:
        """A name for a callee that no other has."""
        name = callee.name
        while (
            self.callees.get(name, callee) is not callee
            or name in self.locals
            or name in PRIMITIVES
        ):
            name += "_"
        self.callees[name] = callee
        self.scalars.update(dict.fromkeys(callee.scalars))
        return name


def _assigned(tree: ast.AST) -> set[str]:
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _known(called: Any) -> str | Function | None:
    return next((known for function, known in KNOWN if function is called), None)


def _negated(condition: ast.expr) -> ast.expr:
    if isinstance(condition, ast.Constant):
        return ast.Constant(not condition.value)
    return ast.UnaryOp(ast.Not(), condition)


def _joined(op: ast.boolop, conditions: list[ast.expr]) -> ast.expr:
    """Conditions joined by `and` or `or`, without those that are known."""
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
