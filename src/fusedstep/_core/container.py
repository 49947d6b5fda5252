"""The user's own container of the parameters, looked at now and then.

An optimizer steps the arrays that it was given. Where an entry of the container has been set to
another array since, steps go on in memory that nobody reads any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusedstep._arrays.place import Place
from fusedstep._arrays.structure import Structure
from fusedstep._checks.warn import warn
from fusedstep._core.parameters import Parameter

PLAIN = (dict, list, tuple)
"""Types of containers that are pickled with their optimizer."""


class Container:
    """The collection that was given as `params`, or of each group the one under `"params"`."""

    def __init__(self, given: Any, structure: Structure, divided: bool) -> None:
        """`divided` says that it is a sequence of groups."""
        self.given = given
        self.structure = structure
        self.divided = divided

    @classmethod
    def of(cls, given: Any, structure: Structure, divided: bool) -> Container | None:
        """The container of parameters; None for one that cannot be read a second time."""
        return cls(given, structure, divided) if isinstance(given, (Mapping, Sequence)) else None

    def _entries(self) -> Iterator[tuple[str, Any]]:
        given = self.given
        if self.divided:
            given = [item.get("params") for item in given if isinstance(item, Mapping)]
        return self.structure.entries(given)

    def replaced(self, parameters: Sequence[Parameter], place: Place) -> list[str]:
        """The paths of entries that are not the parameters any more, but something else.

        None, or nothing at all, is there where the user lets go of an array.
        """
        known = {parameter.path: parameter.array for parameter in parameters}
        return [
            path
            for path, entry in self._entries()
            if entry is not None
            and entry is not known[path]
            and _is_other(entry, known[path], place)
        ]

    def is_plain(self, parameters: Sequence[Parameter]) -> bool:
        """Whether it holds the parameters and nothing else, in containers of Python's own."""
        known = {parameter.path: parameter.array for parameter in parameters}
        found = dict(self._entries())
        return (
            not self.divided
            and self.structure.is_of(self.given, PLAIN)
            and found.keys() == known.keys()
            and all(found[path] is known[path] for path in known)
        )


def _is_other(entry: Any, array: Any, place: Place) -> bool:
    try:
        return bool(place.where(entry)[0] != place.where(array)[0])
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return True


def warn_of_replaced(paths: Sequence[str]) -> None:
    """Warn of entries with these paths, at the line of the user's program that steps."""
    names = [f"params{path}" for path in paths]
    several = f" and {len(names) - 1} more entries" if paths[1:] else ""
    warn(
        f"{names[0]}{several} now hold something else than the arrays that the optimizer steps, "
        f"as after `{names[0]} = ...`, and these are not trained. Write into the arrays instead, "
        f"as `{names[0]}[...] = values`. To go on with the new ones make a new optimizer of them, "
        "and `new.load_state_dict(opt.state_dict())`"
    )
