"""A formula, written as the text of the functions that Numba compiles.

The functions are the rule's own, line by line, with their literals in the compute dtype.
Names are never looked for twice: a function gets the name of its formula, and an underscore
more for each thing in the module that is called so already.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy

from fusedstep._compiler.formula import PRIMITIVES, Formula

Operators = Mapping[type[ast.AST], str]
"""Functions to call in the place of operators."""

READ = {"real", "h", *PRIMITIVES}
"""Names that functions read: the compute dtype, the scalars, and what is no operator."""

KERNEL = {"run", *dir(builtins)}
"""Names that the kernel below the functions has and reads, besides the words of the head."""


def functions(root: Formula, decorator: str, operators: Operators, head: str) -> str:
    """The text of `root` and of all that it calls, callees first, to stand below `head`.

    Every word of the head is taken, so no function hides what is imported there.
    """
    formulas = list(dict.fromkeys(_callees_first(root)))
    taken = {*READ, *KERNEL, *operators.values(), *re.findall(r"\w+", head), root.name}
    taken.update(*map(_locals, formulas))
    names = {root: root.name}
    for formula in formulas[:-1]:
        names[formula] = _free(formula.name, taken)
        taken.add(names[formula])
    return "\n\n".join(
        f"@{decorator}\n{_Spelling(formula, names, operators).definition()}\n"
        for formula in formulas
    )


def _callees_first(formula: Formula) -> Iterator[Formula]:
    for callee in formula.callees.values():
        yield from _callees_first(callee)
    yield formula


def _locals(formula: Formula) -> set[str]:
    return {
        node.id
        for statement in formula.body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    } | {*formula.variables}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


class _Spelling(ast.NodeTransformer):
    """A formula in the spelling of a module: its names, its literals, its operators."""

    def __init__(
        self, formula: Formula, names: Mapping[Formula, str], operators: Operators
    ) -> None:
        self.formula = formula
        self.name = names[formula]
        self.functions = {name: names[callee] for name, callee in formula.callees.items()}
        self.operators = operators
        own = _locals(formula)
        read = {*READ, *operators.values(), *self.functions.values()}
        self.locals = {name: _free(name, read | own - {name}) for name in own}

    def definition(self) -> str:
        arguments = [self.locals[variable] for variable in self.formula.variables]
        arguments += ["h"] if self.formula.scalars else []
        body = [self.visit(deepcopy(statement)) for statement in self.formula.body]
        return "\n".join([f"def {self.name}({', '.join(arguments)}):", *_block(body)])

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Name(self.locals.get(node.id, node.id), node.ctx)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return node  # of h, which no variable hides

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        return node if isinstance(node.value, bool) else _call("real", node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if type(node.op) in self.operators:
            return _call(self.operators[type(node.op)], node.left, node.right)
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        assert isinstance(node.func, ast.Name)
        arguments = [self.visit(argument) for argument in node.args]
        callee = self.formula.callees.get(node.func.id)
        if callee is None:
            return _call(node.func.id, *arguments)
        if callee.scalars:
            arguments.append(ast.Name("h", ast.Load()))
        return _call(self.functions[node.func.id], *arguments)


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


# ---- statements ----
# Pythons differ in where `ast.unparse` puts brackets around what stands side by side.


def _block(statements: list[ast.stmt]) -> Iterator[str]:
    for statement in statements:
        for line in _lines(statement):
            yield f"    {line}"


def _lines(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.Assign(targets=[target], value=value):
            yield f"{_listed(target)} = {_listed(value)}"
        case ast.Return(value=ast.expr() as value):
            yield f"return {_listed(value)}"
        case ast.Pass():
            yield "pass"
        case ast.If(test=test, body=body, orelse=orelse):
            yield f"if {ast.unparse(test)}:"
            yield from _block(body)
            if len(orelse) == 1 and isinstance(orelse[0], ast.If):
                first, *others = _lines(orelse[0])
                yield f"el{first}"
                yield from others
            elif orelse:
                yield "else:"
                yield from _block(orelse)


def _listed(node: ast.expr) -> str:
    each = node.elts if isinstance(node, ast.Tuple) else [node]
    return ", ".join(map(ast.unparse, each))
