"""Integers of 32 bits for what Numba compiles, whose own have 64 whatever the operands.

A function is compiled with calls in the place of its operators. They cut their operands to 32 bits
and give int32 for a difference, and for what is made of one; else uint32, and so does a choice. A
shift to the right keeps the sign of a difference, then, and other integers have none.
"""

# mypy: allow-untyped-defs, allow-untyped-calls

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.BitAnd: "and_",
    ast.BitOr: "or_",
    ast.BitXor: "xor",
    ast.LShift: "shl",
    ast.RShift: "shr",
}
"""The methods of an IR builder by operator; that of `>>` depends on the operand."""

PREFIX = "narrow_"
"""The beginning of the names by which functions call them."""


CUT = "cut"
"""The name of what is called on either part of a choice, so that both become uint32."""


class _Calls(ast.NodeTransformer):
    """Calls in the place of operators."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        return _call(OPERATORS[type(node.op)], node, node.left, node.right)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        node.body, node.orelse = (_call(CUT, each, each) for each in (node.body, node.orelse))
        return node


def _call(name: str, node: ast.AST, *arguments: ast.expr) -> ast.expr:
    function = ast.Name(PREFIX + name, ast.Load())
    return ast.copy_location(ast.Call(function, [*arguments], []), node)


def narrow(function: FunctionType) -> CodeType:
    """The code of a function of integers, with calls in the place of its operators."""
    path = inspect.getsourcefile(function) or "<narrow>"
    module = ast.parse(textwrap.dedent(inspect.getsource(function)))
    module = ast.fix_missing_locations(_Calls().visit(module))
    ast.increment_lineno(module, function.__code__.co_firstlineno - 1)
    space: dict[str, Any] = {}
    exec(compile(module, path, "exec"), space)
    code: CodeType = space[function.__name__].__code__
    return code


def operators(intrinsic: Callable[[Any], Any], types: Any) -> dict[str, Any]:
    """The operators by the names that functions call them by, as intrinsics of a kind of Numba."""
    made = {PREFIX + name: _operator(name, intrinsic, types) for name in OPERATORS.values()}

    @intrinsic
    def cut(typing_context, x):
        def generate(context, builder, signature, arguments):
            return _cut(builder, arguments[0])

        return types.uint32(x), generate

    return {**made, PREFIX + CUT: cut}


def _cut(builder, value):
    from llvmlite import ir

    return builder.trunc(value, ir.IntType(32)) if value.type.width > 32 else value


def _operator(name: str, intrinsic: Callable[[Any], Any], types: Any) -> Any:
    @intrinsic
    def apply(typing_context, x, y):
        signed = name == "sub" or types.int32 in (x, y)
        method = name if name != "shr" else "ashr" if signed else "lshr"

        def generate(context, builder, signature, arguments):
            operands = (_cut(builder, value) for value in arguments)
            return getattr(builder, method)(*operands)

        return (types.int32 if signed else types.uint32)(x, y), generate

    return apply
