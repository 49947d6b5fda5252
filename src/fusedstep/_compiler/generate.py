"""Formulas to the text of the functions that Numba compiles, and modules of such text.

The functions are the rule's own, line by line, with their literals in the compute dtype.
A module stands in a file: Numba keeps what it compiled beside the file that it came from,
and a person may read it.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from fusedstep._compiler.formula import PRIMITIVES, Formula

Operators = Mapping[type[ast.AST], str]
"""Functions to call in the place of operators."""

RESERVED = {"real", "h", *PRIMITIVES}
"""Names that functions of a module read and their own variables must not hide."""


class Functions(NamedTuple):
    """Formulas and all that they call, as a module has them."""

    names: dict[Formula, str]
    text: str


def functions(roots: list[Formula], decorator: str, operators: Operators, around: str) -> Functions:
    """The text of formulas and of all that they call, each under a name of its own.

    `around` is the text that they will stand in, whose words are no names for them.
    """
    formulas = list(dict.fromkeys(each for root in roots for each in _with_callees(root)))
    taken = {*RESERVED, *operators.values(), *re.findall(r"\w+", around)}
    taken = taken.union(*map(_locals, formulas))
    names: dict[Formula, str] = {}
    texts = []
    for formula in formulas:
        names[formula] = _free(formula.name, taken)
        taken.add(names[formula])
        texts.append(f"@{decorator}\n{_Spelling(formula, names, operators).definition()}\n")
    return Functions(names, "\n\n".join(texts))


def _with_callees(formula: Formula) -> Iterator[Formula]:
    for callee in formula.callees.values():
        yield from _with_callees(callee)
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
        reserved = {*RESERVED, *operators.values()}
        self.locals = {name: _free(name, reserved | own - {name}) for name in own}

    def definition(self) -> str:
        arguments = [self.locals[variable] for variable in self.formula.variables]
        arguments += ["h"] if self.formula.scalars else []
        body = [self.visit(deepcopy(statement)) for statement in self.formula.body]
        lines = ast.unparse(ast.fix_missing_locations(ast.Module(body, []))).splitlines()
        return "\n".join(
            [f"def {self.name}({', '.join(arguments)}):", *(f"    {x}" for x in lines)]
        )

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


# ---- modules ----


@cache
def load(name: str, text: str) -> ModuleType:
    """The module of that text, with a file that Numba can keep its results beside."""
    key = _hash(text.encode())
    short = re.sub(r"[^A-Za-z0-9_]", "", name)[:60]  # a path may not be long, Numba adds to it
    path = _folder() / f"{short}-{key}.py"
    if not _holds(path, text):
        write(path, text.encode())
    module = ModuleType(f"fusedstep_{short}_{key}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(text, path, "exec"), vars(module))
    return module


def _holds(path: Path, text: str) -> bool:
    """Whether a file is as it was written, and not cut short by a crash, say."""
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


@cache
def digest(path: Path) -> str:
    """Name the content of a file, for the text of a module that is made of it.

    Compiled modules are kept by their text, which must change when their parts do.
    """
    return _hash(path.read_bytes())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def write(path: Path, content: bytes) -> None:
    """In one move, for a process that reads it meanwhile."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


@cache
def _folder() -> Path:
    """Where generated modules are kept: beside Numba's own cache, if that has been moved."""
    places = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA")
    base = next((os.environ[name] for name in places if os.environ.get(name)), "~/.cache")
    with suppress(OSError, RuntimeError):  # there may be no home
        folder = (Path(base).expanduser() / "fusedstep").absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it will be run
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    passing = tempfile.mkdtemp(prefix="fusedstep-")
    atexit.register(shutil.rmtree, passing, ignore_errors=True)
    return Path(passing)
