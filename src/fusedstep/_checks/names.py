"""Names that come as text, read as Python reads them in source.

There one name may be spelled with several letters: the micro sign is Greek mu, and a ligature two
letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusedstep._checks.wording import quoted


def as_identifier(name: Any) -> Any:
    """A name in Python's spelling; whatever is no text stays as it is."""
    if not isinstance(name, str) or name.isascii():
        return name
    from unicodedata import normalize  # few rules need it

    return normalize("NFKC", name)


def by_identifier(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Values by their names in Python's spelling; `where` says in errors whose they are."""
    read = {as_identifier(name): value for name, value in values.items()}
    if len(read) < len(values):
        raise ValueError(f"{where} has {quoted([*values])}, which are not all different names")
    return read
