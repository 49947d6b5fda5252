"""Expressions that make an optimizer, such as `torch.optim.AdamW(fused=True)`.

Dotted names, calls of them, literals, and arithmetic of numbers are all that may stand in one, so
that it can be read without being run, changed, and written out again.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, TypeAlias

EXAMPLE = 'fusedstep audit "torch.optim.AdamW(lr=0.01, fused=True)"'

DEEPEST = 20
"""Calls and containers inside of one another."""

Value: TypeAlias = Any
"""A literal, or a `Name`, or a `Call`; or a list, a tuple or a dict of them."""


class ExpressionError(ValueError):
    """An expression that is not one of these; the message has the remedy."""


@dataclass(frozen=True)
class Name:
    """A dotted name: `torch.float32`."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Call:
    """A call of a dotted name."""

    path: str
    arguments: tuple[Value, ...] = ()
    keywords: dict[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of the dotted name: "AdamW"."""
        return self.path.rpartition(".")[2]

    def with_keywords(self, **keywords: Value) -> Call:
        return replace(self, keywords={**self.keywords, **keywords})

    def source(self, *first: str) -> str:
        """The call as Python, with the texts `first` as its first arguments."""
        given = [*first, *map(written, self.arguments)]
        given += [f"{name}={written(value)}" for name, value in self.keywords.items()]
        return f"{self.path}({', '.join(given)})"

    def __str__(self) -> str:
        return self.source()

    def paths(self) -> list[str]:
        """Every dotted name in the expression, the one that is called first."""
        found = [self.path]
        for value in (*self.arguments, *self.keywords.values()):
            found += paths(value)
        return list(dict.fromkeys(found))


def written(value: Value) -> str:
    """A value as Python."""
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{written(k)}: {written(v)}' for k, v in value.items())}}}"
    if isinstance(value, float) and value != value:
        return "float('nan')"
    if isinstance(value, float) and abs(value) == float("inf"):
        return f"float('{value}')"
    return str(value) if isinstance(value, Name | Call) else repr(value)


def paths(value: Value) -> list[str]:
    """The dotted names in a value."""
    if isinstance(value, Call):
        return value.paths()
    if isinstance(value, Name):
        return [value.path]
    if isinstance(value, dict):
        return [path for pair in value.items() for item in pair for path in paths(item)]
    if isinstance(value, list | tuple):
        return [path for item in value for path in paths(item)]
    return []


def parse(text: str) -> Call:
    """Read an expression. A bare name is a call without arguments."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        problem = f"{text[:60]!r} is no Python expression ({said}); write {EXAMPLE}"
        raise ExpressionError(problem) from None
    value = read(tree, DEEPEST)
    if isinstance(value, Name):
        value = Call(value.path)
    if not isinstance(value, Call) or "." not in value.path:
        raise ExpressionError(
            f"{text!r} does not name an optimizer by the path that it is imported from; "
            f"write {EXAMPLE}"
        )
    return value


def read(node: ast.expr, deepest: int) -> Value:
    """The value of a node, of at most `deepest` levels."""
    if deepest == 0:
        raise ExpressionError(f"the expression is more than {DEEPEST} levels deep; flatten it")
    below = deepest - 1
    match node:
        case ast.Constant(value=value) if value is not ...:
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = number(operand, below)
            return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(op=op) if type(op) in OPERATIONS:
            return arithmetic(node, below)
        case ast.List(elts=items):
            return [read(item, below) for item in items]
        case ast.Tuple(elts=items):
            return tuple(read(item, below) for item in items)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {read(key, below): read(value, below) for key, value in pairs if key}
        case ast.Name() | ast.Attribute():
            return Name(dotted(node))
        case ast.Call(func=func, args=arguments, keywords=keywords):
            return call(func, arguments, keywords, below)
    raise ExpressionError(
        f"{ast.unparse(node)!r} is neither a literal nor a call of a dotted name; write its value"
    )


OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}

MOST_BITS = 1024
"""Bits that an integer may have: floats have no more."""


def number(node: ast.expr, deepest: int) -> int | float:
    """The value of a node that is a number."""
    value = read(node, deepest)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ExpressionError(f"{ast.unparse(node)!r} is no number; calculate with numbers alone")
    return value


def arithmetic(node: ast.BinOp, deepest: int) -> int | float:
    left, right = number(node.left, deepest), number(node.right, deepest)
    text = ast.unparse(node)
    if isinstance(node.op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 0)
    else:
        bits = 0
    if bits <= MOST_BITS:
        try:
            value = OPERATIONS[type(node.op)](left, right)
        except ArithmeticError as error:
            raise ExpressionError(f"{text!r} has no value: {error}; write another") from None
        if isinstance(value, int) and value.bit_length() <= MOST_BITS:
            return value
        if isinstance(value, float) and isfinite(value):
            return value
    raise ExpressionError(f"{text[:60]!r} is no number of a float's range; write another")


def call(
    func: ast.expr, arguments: list[ast.expr], keywords: list[ast.keyword], deepest: int
) -> Call:
    unpacked = [each for each in arguments if isinstance(each, ast.Starred)]
    if unpacked or any(keyword.arg is None for keyword in keywords):
        raise ExpressionError("arguments are unpacked by a star; write each of them out")
    values = tuple(read(argument, deepest) for argument in arguments)
    named = {keyword.arg: read(keyword.value, deepest) for keyword in keywords if keyword.arg}
    if len(named) < len(keywords):
        raise ExpressionError("a keyword is given twice; leave one of them out")
    return Call(dotted(func), values, named)


def dotted(node: ast.expr) -> str:
    """The dotted name that a node is."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    raise ExpressionError(
        f"{ast.unparse(node)!r} is no dotted name; call an importable name, as in {EXAMPLE}"
    )
