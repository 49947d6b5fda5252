"""The source of a function: found, held against its code, and the names that it sees.

A file may have been edited since it was imported, and other text may have been run under its
name. So the text found is compiled anew, by the same interpreter and in the same surroundings,
and Python compares the two code objects: nothing here knows what bytecode looks like.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

Function: TypeAlias = Callable[..., Any]


class Source(NamedTuple):
    """A function's definition in its file."""

    tree: ast.FunctionDef
    """The definition. Its nodes have the line numbers of the file."""
    file: str | None
    lines: list[str]
    """All lines of the file."""


def source_of(function: Function) -> Source:
    """The source of `function`. A TypeError says why there is none."""
    name = function.__name__
    written = inspect.unwrap(function)
    try:
        lines, _ = inspect.findsource(written)
        code: CodeType = written.__code__
    except (AttributeError, OSError, TypeError):
        raise TypeError(
            f"{name}: its source cannot be found; define it with `def` in a file or a notebook"
        ) from None
    file, first = inspect.getsourcefile(written), code.co_firstlineno
    module = _parsed("".join(lines))
    tree = _definition(module, first)
    if code.co_name == "<lambda>" or isinstance(tree, ast.AsyncFunctionDef):
        raise TypeError(f"{name}: it was not made by `def`; write it as a plain function")
    if tree is None or function.__code__ is not code or not _is_compiled(code, module):
        raise TypeError(
            f"{name}: it is not what stands at line {first} of {file}; run that anew if it has "
            "changed since, and put no decorator on it that returns another function"
        )
    return Source(tree, file, lines)


@lru_cache(maxsize=8)
def _parsed(text: str) -> ast.Module:
    """The tree of a file; an empty one if it has been edited to something that is no Python."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.Module([], [])


def _definition(module: ast.Module, first: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """The function whose first line, which may be a decorator's, is `first`."""
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            begin = node.decorator_list[0] if node.decorator_list else node
            if begin.lineno == first:
                return node
    return None


def _is_compiled(code: CodeType, module: ast.Module) -> bool:
    """Whether `code` is what Python makes of the function at its line in `module`.

    Python compiles a file as a whole, and what is typed in one statement at a time. That
    matters: functions of a module whose import it sees are not called by the bytecode of methods.
    """
    line = code.co_firstlineno
    around = [each for each in module.body if (each.end_lineno or line) >= line][:1]
    return any(
        _comparable(code) in map(_comparable, _codes(unit))
        for unit in (ast.Module(around, []), module)
    )


def _codes(module: ast.Module) -> Iterator[CodeType]:
    """The code objects of all functions in a module; none if it does not compile."""
    with suppress(SyntaxError):
        found = [compile(module, "", "exec", dont_inherit=True)]
        for code in found:
            found += [each for each in code.co_consts if isinstance(each, CodeType)]
        yield from found


def _comparable(code: CodeType) -> CodeType:
    """A copy without what does not come from the function's own text.

    Its flags tell of imports from `__future__`, and the lines and columns of its instructions
    may be missing from a .pyc file.
    """
    return code.replace(co_flags=0, co_linetable=b"")


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
