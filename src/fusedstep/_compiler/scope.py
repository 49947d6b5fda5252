"""The names in one function's text: what each stands for, and errors that show the line."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from fusedstep._checks.wording import quoted
from fusedstep._compiler.source import Function, outside, source_of

NUMBER, CONDITION, SCALARS = "number", "condition", "set of scalars"
"""The types of a name or an expression. Only h, by whatever name, is a set of scalars."""

Members: TypeAlias = Mapping[str, type]
"""The type of each member of h: float, bool, or one that is refused."""

Types: TypeAlias = Mapping[str, str]
"""The types of arguments that are not numbers."""

Constants: TypeAlias = Mapping[str, bool | None]
"""The arguments whose values are known before compiling."""


class Scope:
    """The names of one function, as far as it has been parsed."""

    types: dict[str, str]
    """The type of each argument, and of each variable assigned on every way to here."""
    scalars: dict[str, None]
    """The members of h that have been read, in order."""

    def __init__(
        self, function: Function, members: Members, types: Types, constants: Constants
    ) -> None:
        self.source = source_of(function)
        self.tree = self.source.tree
        self.outside = outside(function)
        self.members = members
        self.constants = constants
        self.arguments = self._plain_arguments(function)
        self.types = {
            name: types.get(name, NUMBER) for name in self.arguments if name not in constants
        }
        self.locals = {*self.arguments, *_assigned(self.tree)}
        self.scalars = {}

    def _plain_arguments(self, function: Function) -> list[str]:
        listed = [argument.arg for argument in self.tree.args.args]
        if inspect.getfullargspec(function) != inspect.FullArgSpec(
            listed, None, None, None, [], None, function.__annotations__
        ):
            raise self.error(self.tree, "has defaults or starred arguments; name each one plainly")
        return listed

    def error(self, node: ast.stmt | ast.expr, what: str) -> TypeError:
        """An error about `node`: the function, the line and what is wrong with it."""
        where = f"line {node.lineno} of {self.source.file}"
        line = self.source.lines[node.lineno - 1].strip()
        return TypeError(f"{self.tree.name}, {where}: `{line}`: {what}")

    def constant(self, node: ast.expr) -> str | None:
        """The name that `node` is, if that is an argument whose value is known."""
        return node.id if isinstance(node, ast.Name) and node.id in self.constants else None

    def variable(self, node: ast.expr, name: str) -> tuple[ast.expr, str]:
        """The value and the type of an argument or a variable."""
        if name in self.constants:
            value = self.constants[name]
            if value is None:
                raise self.error(node, f"{name} is None here; ask `if {name} is not None` before")
            return ast.Constant(value), CONDITION
        if name not in self.types:
            raise self.error(node, f"{name} is not assigned on every way to this line")
        return ast.Name(name, ast.Load()), self.types[name]

    def member(self, node: ast.expr, member: str) -> tuple[ast.expr, str]:
        """The value and the type of a member of h."""
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

    def presence(self, node: ast.Compare) -> ast.expr:
        """The answer to `x is None` or `x is not None`."""
        match node:
            case ast.Compare(
                left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=None)]
            ) if name in self.arguments:
                absent = name in self.constants and self.constants[name] is None
                return ast.Constant(absent == isinstance(op, ast.Is))
        raise self.error(node, "`is` asks for nothing but whether an argument is None")

    def resolve(self, node: ast.expr) -> Any:
        """The object that a name from outside the function stands for, as it is now."""
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


def _assigned(tree: ast.AST) -> set[str]:
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
