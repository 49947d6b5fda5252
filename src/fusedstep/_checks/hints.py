"""Hints: what was meant by a name that is not there.

A hint is the end of an error's message. What stands in it between backticks is a piece of code
that works as it stands, for a caller who has `fs`, `np`, `opt`, `params` and `grads` as the
documentation does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fusedstep._checks.wording import quoted, shown

LONGEST = 40
"""Letters of a value that a piece of code shows; of a longer one it has the name alone."""


def plain(name: str) -> str:
    """A name without what two packages may write differently: case and underscores."""
    return name.replace("_", "").replace("-", "").lower()


def nearest(name: Any, names: Iterable[str], cutoff: float = 0.7) -> str | None:
    """The name that was probably meant; None if none of them is near.

    `cutoff` is the share of letters that they have to have in common.
    """
    if not isinstance(name, str):
        return None
    known = {plain(each): each for each in reversed([*names])}
    key = plain(name)
    if key in known:
        return known[key]
    from difflib import get_close_matches  # few mistakes are made

    found = get_close_matches(key, known, n=1, cutoff=cutoff)
    return known[found[0]] if found else None


def did_you_mean(name: Any, names: Iterable[str], has: str = "there are") -> str:
    """The nearest of some names as the end of an error, or all of them."""
    names = [*names]
    found = nearest(name, names)
    return f"{has} {quoted(names)}" if found is None else f"did you mean {found!r}?"


def renamed(given: Iterable[Any], expected: Iterable[Any]) -> dict[str, str]:
    """The names that were given, each with the expected one that it stands for, where it shows."""
    left = [name for name in expected if isinstance(name, str)]
    pairs = {}
    for name in given:
        found = nearest(name, left)
        if found is None:
            found = next(
                (each for each in left if isinstance(name, str) and each and begins(name, each)),
                None,
            )
        if found is not None:
            left.remove(found)
            pairs[name] = found
    return pairs


def begins(name: str, other: str) -> bool:
    """Whether one name is the other's beginning, as "w" is of "weight"."""
    short, long = sorted((plain(name), plain(other)), key=len)
    return bool(short) and long.startswith(short)


def written(value: Any) -> str:
    """A value as it is written in a program; a word in the place of one too long to be read."""
    text = shown(value)
    return text if len(text) <= LONGEST and "<" not in text else "value"


def code(name: str, value: Any) -> str:
    """An argument as it is written in a call."""
    return f"{name}={written(value)}"


def filled(hint: str, values: Mapping[str, str]) -> str:
    """A hint with the words that a table leaves open, each a capital word: OPT, VALUE."""
    for word, text in values.items():
        hint = hint.replace(word, text)
    return hint
