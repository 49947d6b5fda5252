"""The overview of the public names."""

from __future__ import annotations

import symbols
from marked import table


def overview() -> str:
    """A heading and a table for each group of names."""
    return "\n\n".join(
        f"## {symbols.GROUPS[group]}\n\n{table(['name', 'what'], symbols.rows(found))}"
        for group, found in symbols.public().items()
    )
