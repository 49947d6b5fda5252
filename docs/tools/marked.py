"""Marked regions of Markdown pages, which a script writes, and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

REGION = re.compile(
    r"(<!-- docs/tools/regions\.py: ([\w -]+) -->\n).*?(<!-- end of \2 -->)", re.DOTALL
)
"""The comment that begins a region, its name, and the comment that ends it."""


def regions(text: str) -> list[str]:
    """The names of the regions in a page."""
    return [found[2] for found in REGION.finditer(text)]


def filled(text: str, texts: Mapping[str, str]) -> str:
    """The page with the text of each of its regions."""
    return REGION.sub(lambda found: f"{found[1]}{texts[found[2]]}\n{found[3]}", text)


def table(
    heading: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int | None = None
) -> str:
    """A table, whose columns from the one of index `numbers` on are aligned to the right."""
    words = len(heading) if numbers is None else numbers
    lines = ["---" if k < words else "---:" for k in range(len(heading))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heading, lines, *rows))
