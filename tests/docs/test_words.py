"""Docstrings begin with a noun or a verb, and one word stands for one thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDERS = ("src", "bench", "examples", "docs", "tests")

FRAGMENT = re.compile(r"(Of|That|Those|Whose|Who|Which|What|As|With|Its)\b")
"""First words of a docstring that has no head of its own."""

SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Every string that stands by itself in a file: of modules, classes, functions, attributes."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text.strip()


def test_no_docstring_begins_with_a_fragment() -> None:
    assert len(SOURCES) > 200
    assert [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in SOURCES
        for line, text in docstrings(path)
        if FRAGMENT.match(text)
    ] == []
