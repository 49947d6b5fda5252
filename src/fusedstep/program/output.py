"""Output of the command, wherever it goes: to few letters, to a full disk, to nowhere."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LETTERS = {"µ": "u", "×": "x", "→": "->", "…": ".", "ε": "eps", "α": "alpha", "β": "beta"}
"""Texts in the place of letters that an encoding lacks; all others are escaped."""

HANDLER = "fusedstep.letters"
"""Name of the error handler of encodings."""

WIDEST = 1000
"""Letters of a table's line, beyond all terminals."""


def replacement(error: UnicodeError) -> tuple[str, int]:
    """The text in place of letters that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (letter.encode("ascii", "backslashreplace").decode() for letter in lacking)
    replaced = (LETTERS.get(letter, text) for letter, text in zip(lacking, escaped, strict=True))
    return "".join(replaced), error.end


@contextmanager
def printing() -> Iterator[None]:
    """Let anything be printed: on a terminal of ASCII, and where there is no stdout at all."""
    codecs.register_error(HANDLER, replacement)
    if sys.stdout is None:  # as `fusedstep info >&-` closes it
        with open(os.devnull, "w") as nowhere:
            sys.stdout = nowhere
            try:
                yield
            finally:
                sys.stdout = None
        return
    before = [
        (stream, stream.errors)
        for stream in (sys.stdout, sys.stderr)
        if isinstance(stream, TextIOWrapper)
    ]
    for stream, _ in before:
        stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for stream, errors in before:
            stream.reconfigure(errors=errors)


def console(width: int) -> Console:
    """Where tables are printed: in a terminal as wide as that is, elsewhere `width`."""
    from rich.console import Console

    made = Console()
    if not made.is_terminal:
        made.width = width
    return made


def show(table: Table, terminal: Console) -> None:
    """Print a table; where it is too wide, each of its rows as lines of their own."""
    from rich.measure import Measurement

    room = terminal.options.update(max_width=WIDEST)
    if Measurement.get(terminal, room, table).minimum <= terminal.width:
        terminal.print(table)
        return
    headings = [" ".join(str(column.header).split()) for column in table.columns]
    margin = max(map(len, headings[1:]))
    lines = [str(table.title)]
    for first, *cells in zip(*(column.cells for column in table.columns), strict=True):
        lines += ["", str(first)]
        for heading, cell in zip(headings[1:], map(str, cells), strict=True):
            lines += [f"  {heading:<{margin}}  {cell}"] if cell else []
    lines += ["", str(table.caption)] if table.caption else []
    lines += [""]
    for line in lines:
        terminal.print(line, markup=False, highlight=False)


def print_the_rest() -> None:
    """Write what stdout still holds, or let it go nowhere if that fails."""
    try:
        sys.stdout.flush()
    except OSError:
        drop_the_rest()


def drop_the_rest() -> None:
    """Let what stdout still holds go nowhere, or Python would fail to write it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
