"""The source of a function: found, held against its code, and what it sees of the world."""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import re
from collections.abc import Callable
from copy import deepcopy
from types import CodeType
from typing import Any, TypeAlias

Function: TypeAlias = Callable[..., Any]


def definition(function: Function) -> tuple[ast.FunctionDef, list[str], int]:
    """A function's tree, its lines, and the number of the first in its file."""
    name = function.__name__
    try:
        lines, first = inspect.getsourcelines(function)
    except (OSError, TypeError):
        raise TypeError(
            f"{name}: its source cannot be found; define it with `def` in a file or a notebook"
        ) from None
    indented = lines[0].startswith((" ", "\t"))
    text = "".join(lines)
    try:
        module = ast.parse(f"if True:\n{text}" if indented else text)
    except SyntaxError:  # part of a larger expression, as a lambda is
        module = ast.parse("pass")
    tree = module.body[0]
    if indented and isinstance(tree, ast.If):
        tree = ast.increment_lineno(tree.body[0], -1)
    if not isinstance(tree, ast.FunctionDef):
        raise TypeError(f"{name}: it was not made by `def`; write it as a plain function")
    if not _is_source(tree, function.__code__):
        raise TypeError(
            f"{name}: it is not what stands at line {first} of {inspect.getsourcefile(function)}; "
            "run that anew if it has changed since, and put no decorator on it that returns "
            "another function"
        )
    return tree, lines, first


def _is_source(tree: ast.FunctionDef, code: CodeType) -> bool:
    """Whether `code` was compiled from that."""
    bare = deepcopy(tree)
    bare.name, bare.decorator_list = "<rule>", []  # no name that it could call
    around = ast.parse(f"def around({', '.join(code.co_freevars)}): pass")
    assert isinstance(around.body[0], ast.FunctionDef)
    around.body[0].body = [bare]
    compiled = _nested(_nested(compile(around, "", "exec", dont_inherit=True)))
    return _gist(compiled) == _gist(code)


def _nested(code: CodeType) -> CodeType:
    """The last function in `code`; those before it stand in its defaults."""
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)][-1]


def _gist(code: CodeType) -> tuple[Any, ...]:
    """What a function does, but for functions in it, of which a rule has none.

    How a member is called depends on what else its module imports, and with that how far a
    jump goes.
    """
    instructions = [
        (each.opname.replace("METHOD", "ATTR"), None if "JUMP" in each.opname else each.argval)
        for each in dis.get_instructions(code)
        if not re.search("CALL|NULL|EXTENDED_ARG", each.opname)
        and not (each.opname == "LOAD_CONST" and isinstance(each.argval, (CodeType, str)))
    ]
    return code.co_varnames, code.co_names, instructions


def outside(function: Function) -> dict[str, Any]:
    """The names that a function sees besides its own."""
    code = function.__code__
    enclosed = {}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            enclosed[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return {**vars(builtins), **function.__globals__, **enclosed}
