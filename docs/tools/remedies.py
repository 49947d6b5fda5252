"""The table of mistakes, each with what is written instead: of the rows that the tests run."""

from __future__ import annotations

import re
from pathlib import Path
from runpy import run_path
from typing import Any

from marked import table

ROWS = Path(__file__).parents[2] / "tests" / "helpers" / "mistakes.py"


def mistakes() -> str:
    """A heading and a table for each part: what was typed, what the error says, what works."""
    found = run_path(str(ROWS))
    parts = []
    for title, rows in found["TABLE"].items():
        cells = [
            [
                lines(each.setup, each.code),
                prose(f"{each.error}: {each.message}"),
                lines(found["fitted"](each.remedy, each.message)),
            ]
            for each in rows
        ]
        parts.append(f"## {title}\n\n{table(['If you typed', 'the error says', 'write'], cells)}")
    return "\n\n".join(parts)


def lines(*texts: Any) -> str:
    """Lines of a program in a cell."""
    return "<br>".join(cell(line) for text in texts for line in text.splitlines() if line)


def cell(line: str) -> str:
    """One of them; a column ends at a bar, and code between backticks shows none."""
    mark = "``" if "`" in line else "`"
    return f"{mark}{line}{mark}".replace("|", "\\|")


def prose(text: str) -> str:
    """A message, whose code stays code, and whose other signs mean nothing to the page."""
    pieces = re.split(r"(`[^`]+`)", text)
    return "".join(
        piece.replace("|", "\\|")
        if piece.startswith("`")
        else re.sub(r"([\\*_<>\[\]|])", r"\\\1", piece)
        for piece in pieces
    )
