"""The containers of an arena's views: a dict and a list that go on holding the same arrays.

What would put another array in a view's place is refused by a message that says what to do
instead. Setting what is there already is not, for that is how Python ends `views["w"] += x`.
Copies of them, also by pickle, are plain containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, SupportsIndex

from fusedstep._arrays.structure import Dict, Leaf, Structure
from fusedstep._checks.wording import quoted


def view_containers(structure: Structure, name: str, leaves: Iterator[Any]) -> Any:
    """The leaves in containers of their structure; errors call the whole `name`."""
    if isinstance(structure, Leaf):
        return next(leaves)
    items = {key: view_containers(child, name, leaves) for key, child in structure.children.items()}
    place = f"{name}{structure.path}"
    return (
        ViewDict(place, items) if isinstance(structure, Dict) else ViewList(place, items.values())
    )


def replacement_error(place: str, item: Any) -> str:
    """The error's text for an assignment to the place where `item` is."""
    return (
        f"{place} = ... would replace the arena's view, and the optimizer would step the old "
        f"memory, without what is assigned; write into it: `{_first(place, item)}[...] = value`"
    )


class ViewDict(dict[Any, Any]):
    """Views, or containers of them, by key."""

    __slots__ = ("_name",)

    def __init__(self, name: str, items: dict[Any, Any]) -> None:
        super().__init__(items)
        self._name = name

    def __setitem__(self, key: Any, value: Any) -> None:
        if key not in self:
            raise KeyError(
                f"{self._name} has no {key!r} to write to, and an arena takes in nothing new; it "
                f"has {quoted([*self])}"
            )
        if self[key] is not value:
            place = f"{self._name}[{key!r}]"
            raise TypeError(replacement_error(place, self[key]))

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> ViewDict:  # type: ignore[misc]
        self.update(other)
        return self

    def __delitem__(self, key: Any) -> None:
        _refuse(f"del {self._name}[{key!r}]", self._name, self)

    def pop(self, *_: Any) -> NoReturn:
        _refuse(f"{self._name}.pop()", self._name, self)

    def popitem(self) -> NoReturn:
        _refuse(f"{self._name}.popitem()", self._name, self)

    def clear(self) -> None:
        _refuse(f"{self._name}.clear()", self._name, self)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class ViewList(list[Any]):
    """Views, or containers of them, by index."""

    __slots__ = ("_name",)

    def __init__(self, name: str, items: Iterable[Any]) -> None:
        super().__init__(items)
        self._name = name

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            places, values = range(len(self))[key], [*value]
            if len(places) != len(values):
                _refuse(f"{self._name}[...] = ... of another length", self._name, self)
            for index, each in zip(places, values, strict=True):
                self[index] = each
        elif self[key] is not value:
            place = f"{self._name}[{key}]"
            raise TypeError(replacement_error(place, self[key]))

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        _refuse(f"{self._name} += ...", self._name, self)

    def __imul__(self, count: Any) -> Any:  # type: ignore[misc]
        _refuse(f"{self._name} *= ...", self._name, self)

    def __delitem__(self, key: Any) -> None:
        _refuse(f"del {self._name}[{key}]", self._name, self)

    def append(self, item: Any) -> None:
        _refuse(f"{self._name}.append()", self._name, self)

    def extend(self, items: Any) -> None:
        _refuse(f"{self._name}.extend()", self._name, self)

    def insert(self, index: SupportsIndex, item: Any) -> None:
        _refuse(f"{self._name}.insert()", self._name, self)

    def pop(self, index: SupportsIndex = -1) -> NoReturn:
        _refuse(f"{self._name}.pop()", self._name, self)

    def remove(self, item: Any) -> None:
        _refuse(f"{self._name}.remove()", self._name, self)

    def clear(self) -> None:
        _refuse(f"{self._name}.clear()", self._name, self)

    def reverse(self) -> None:
        _refuse(f"{self._name}.reverse()", self._name, self)

    def sort(self, **_: Any) -> None:
        _refuse(f"{self._name}.sort()", self._name, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def _refuse(what: str, name: str, container: ViewDict | ViewList) -> NoReturn:
    raise TypeError(
        f"{what} would change which views there are, and the optimizer would step the old memory "
        f"all the same; write into the views: `{_first(name, container)}[...] = value`"
    )


def _first(place: str, item: Any) -> str:
    """The first view at a place, as one writes it."""
    while isinstance(item, (ViewDict, ViewList)) and item:
        key = next(iter(item)) if isinstance(item, ViewDict) else 0
        place, item = f"{place}[{key!r}]", item[key]
    return place
