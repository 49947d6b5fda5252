"""Mutants of expressions: what a slip of the pen makes of a formula.

An expression of Python or C is a tree of Python's `ast`; each of its mutants is another tree.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

Other: TypeAlias = tuple[ast.expr, str]
"""An expression in the place of another, and what has been done to it."""

ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
}
ORDERINGS: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
EQUALITIES: dict[type[ast.cmpop], str] = {ast.Eq: "==", ast.NotEq: "!="}
IDENTITIES: dict[type[ast.cmpop], str] = {ast.Is: "is", ast.IsNot: "is not"}
BOTH: dict[type[ast.operator], str] = {ast.BitAnd: "&", ast.BitOr: "|"}

IN_ORDER = (ast.Sub, ast.Div, ast.Pow)
"""Operations whose operands cannot be exchanged."""


class Letters(NamedTuple):
    """The letters that a rule reads: its variables, members of h, and keys of hyperparameters."""

    names: Sequence[str]
    members: Sequence[str]
    keys: Sequence[str]

    @classmethod
    def of(cls, function: ast.AST, names: Sequence[str]) -> Letters:
        """All letters of a function, whose numbers have these names."""
        nodes = [*ast.walk(function)]
        members = {x.attr for x in nodes if isinstance(x, ast.Attribute) and is_h(x.value)}
        keys = {
            x.slice.value
            for x in nodes
            if isinstance(x, ast.Subscript)
            and isinstance(x.slice, ast.Constant)
            and isinstance(x.slice.value, str)
        }
        return cls(sorted(names), sorted(members), sorted(keys))


def is_h(node: ast.expr) -> bool:
    """Whether an expression is what rules call h: scalars, or hyperparameters."""
    return isinstance(node, ast.Name) and node.id in ("h", "hyper")


def next_of(letter: str, letters: Sequence[str]) -> list[str]:
    """The letter that follows one in the alphabet of a rule; none if it is the only one."""
    if letter not in letters or len(letters) < 2:
        return []
    return [letters[(letters.index(letter) + 1) % len(letters)]]


def mutants(node: ast.expr, letters: Letters) -> Iterator[Other]:
    """Every expression that one slip makes of this one."""
    yield from slips(node, letters)
    for field, value in ast.iter_fields(node):
        inner = value if isinstance(value, list) else [value]
        for at, each in enumerate(inner):
            if not isinstance(each, ast.expr) or (isinstance(node, ast.Call) and field == "func"):
                continue
            for other, told in mutants(each, letters):
                changed = copy.copy(node)
                replaced = [*inner[:at], other, *inner[at + 1 :]]
                setattr(changed, field, replaced if isinstance(value, list) else other)
                yield changed, told


def slips(node: ast.expr, letters: Letters) -> Iterator[Other]:
    """The same at the root of the expression alone."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            for kinds in (ARITHMETIC, BOTH):
                if type(op) in kinds:
                    for kind in kinds.keys() - {type(op), ast.Pow}:
                        told = f"{kinds[type(op)]} becomes {kinds[kind]}"
                        yield ast.BinOp(left, kind(), right), told
            if isinstance(op, IN_ORDER):
                yield ast.BinOp(right, op, left), "operands exchanged"
            yield left, f"without {ast.unparse(right)}"
            yield right, f"without {ast.unparse(left)}"
        case ast.UnaryOp(operand=operand):
            yield operand, "sign or not dropped"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            for comparisons in (ORDERINGS, EQUALITIES, IDENTITIES):
                if type(op) in comparisons:
                    for comparison in comparisons.keys() - {type(op)}:
                        told = f"{comparisons[type(op)]} becomes {comparisons[comparison]}"
                        yield ast.Compare(left, [comparison()], [right]), told
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield ast.BoolOp(other, values), "and, or exchanged"
            for at, value in enumerate(values):
                rest = values[:at] + values[at + 1 :]
                kept = rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
                yield kept, f"without {ast.unparse(value)}"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield ast.IfExp(test, orelse, body), "branches exchanged"
            yield body, f"always {ast.unparse(body)}"
            yield orelse, f"always {ast.unparse(orelse)}"
        case ast.Call(func=ast.Attribute(attr="where"), args=[test, body, orelse]):
            yield ast.Call(node.func, [test, orelse, body], []), "branches exchanged"
            yield body, f"always {ast.unparse(body)}"
            yield orelse, f"always {ast.unparse(orelse)}"
        case ast.Call(func=func, args=[only]):
            yield only, f"without {ast.unparse(func)}"
        case ast.Call(func=func, args=[one, other]):
            yield ast.Call(func, [other, one], []), "arguments exchanged"
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value), f"{value} becomes {not value}"
        case ast.Constant(value=int() | float() as value):
            known: dict[float, tuple[float, ...]] = {1: (0, -1), 0: (1, -1), -1: (1, 0)}
            for number in known.get(value, (value + 1, 1)):
                if number != value:
                    yield ast.Constant(type(value)(number)), f"{value} becomes {number}"
        case ast.Name(id=name):
            for letter in next_of(name, letters.names):
                yield ast.Name(letter, ast.Load()), f"{name} becomes {letter}"
        case ast.Attribute(value=value, attr=name) if is_h(value):
            for letter in next_of(name, letters.members):
                yield ast.Attribute(value, letter, ast.Load()), f"{name} becomes {letter}"
        case ast.Subscript(value=value, slice=ast.Constant(value=str() as key)):
            for letter in next_of(key, letters.keys):
                yield (
                    ast.Subscript(value, ast.Constant(letter), ast.Load()),
                    f"{key} becomes {letter}",
                )


# ---- expressions of C ----

TOKEN = re.compile(r"\s*(\d[\w.]*|[A-Za-z_]\w*|<=|>=|==|!=|&&|\|\||[-+*/<>?:()\[\].,&|!])")

LEVELS: list[dict[str, type[ast.AST]]] = [
    {"||": ast.Or},
    {"&&": ast.And},
    {"|": ast.BitOr},
    {"&": ast.BitAnd},
    {"==": ast.Eq, "!=": ast.NotEq},
    {"<": ast.Lt, "<=": ast.LtE, ">": ast.Gt, ">=": ast.GtE},
    {"+": ast.Add, "-": ast.Sub},
    {"*": ast.Mult, "/": ast.Div},
]
"""The operators of C, from those that bind least on."""

CAST = "cast_to_real"
"""The name under which the tree has `(real)`."""


class _Parser:
    """A reader of one expression of C."""

    def __init__(self, text: str) -> None:
        text = text.replace("(real)", CAST)
        self.tokens = [*TOKEN.findall(text), ""]
        assert "".join(self.tokens) == re.sub(r"\s", "", text), text

    def take(self, *expected: str) -> str:
        token: str = self.tokens.pop(0)
        assert not expected or token in expected, (token, self.tokens)
        return token

    def whole(self) -> ast.expr:
        found = self.ternary()
        self.take("")
        return found

    def ternary(self) -> ast.expr:
        test = self.level(0)
        if self.tokens[0] != "?":
            return test
        self.take("?")
        body = self.ternary()
        self.take(":")
        return ast.IfExp(test, body, self.ternary())

    def level(self, at: int) -> ast.expr:
        if at == len(LEVELS):
            return self.unary()
        left = self.level(at + 1)
        while self.tokens[0] in LEVELS[at]:
            op = LEVELS[at][self.take()]()
            right = self.level(at + 1)
            if isinstance(op, ast.boolop):
                left = ast.BoolOp(op, [left, right])
            elif isinstance(op, ast.cmpop):
                left = ast.Compare(left, [op], [right])
            else:
                assert isinstance(op, ast.operator)
                left = ast.BinOp(left, op, right)
        return left

    def unary(self) -> ast.expr:
        if self.tokens[0] in ("-", "!"):
            op = ast.USub() if self.take() == "-" else ast.Not()
            return ast.UnaryOp(op, self.unary())
        return self.postfix()

    def postfix(self) -> ast.expr:
        token = self.take()
        if token == "(":
            found = self.ternary()
            self.take(")")
        elif token[0].isdigit():
            found = ast.Constant(float(token) if "." in token else int(token))
        else:
            found = ast.Name(token, ast.Load())
            if token == CAST:
                return ast.Call(found, [self.postfix()], [])
        while self.tokens[0] in (".", "[", "("):
            match self.take():
                case ".":
                    found = ast.Attribute(found, self.take(), ast.Load())
                case "[":
                    found = ast.Subscript(found, self.ternary(), ast.Load())
                    self.take("]")
                case _:
                    found = ast.Call(found, self.arguments(), [])
        return found

    def arguments(self) -> list[ast.expr]:
        found = []
        while self.tokens[0] != ")":
            found.append(self.ternary())
            if self.tokens[0] == ",":
                self.take()
        self.take(")")
        return found


def parse_c(text: str) -> ast.expr:
    return _Parser(text).whole()


WORDS_OF_C = {kind: sign for level in LEVELS for sign, kind in level.items()}


def in_c(node: ast.expr) -> str:
    """The text of an expression in C, with brackets around all that has parts."""
    match node:
        case ast.BinOp(left=left, op=op, right=right):
            return f"({in_c(left)} {WORDS_OF_C[type(op)]} {in_c(right)})"
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return f"({in_c(left)} {WORDS_OF_C[type(op)]} {in_c(right)})"
        case ast.BoolOp(op=op, values=values):
            return "(" + f" {WORDS_OF_C[type(op)]} ".join(map(in_c, values)) + ")"
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return f"(-{in_c(operand)})"
        case ast.UnaryOp(operand=operand):
            return f"(!{in_c(operand)})"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"({in_c(test)} ? {in_c(body)} : {in_c(orelse)})"
        case ast.Call(func=ast.Name(id=name), args=[only]) if name == CAST:
            return f"(real){in_c(only)}"
        case ast.Call(func=func, args=args):
            return f"{in_c(func)}({', '.join(map(in_c, args))})"
        case ast.Subscript(value=value, slice=index):
            return f"{in_c(value)}[{in_c(index)}]"
        case ast.Attribute(value=value, attr=name):
            return f"{in_c(value)}.{name}"
        case ast.Constant(value=value):
            return f"({value})" if isinstance(value, (int, float)) and value < 0 else str(value)
        case ast.Name(id=name):
            return name
    raise AssertionError(ast.dump(node))
