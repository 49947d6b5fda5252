"""The containers of an arena's views: they go on holding the same arrays.

What would put another array in a view's place is refused by a message that says what to do
instead. Setting what is there already is not, for that is how Python ends `views["w"] += x`.
Copies of them, also by pickle, are plain containers, and so is whatever is made by calling their
types, as libraries do that rebuild a structure.

Each is of a subclass of the container that the parameters came in, see `kept_kind`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from threading import RLock
from typing import Any, ClassVar, NoReturn, SupportsIndex

from fusedstep._arrays.structure import Branch, Leaf, Structure
from fusedstep._checks.wording import quoted
from fusedstep._core.trees import Node, register


def view_containers(structure: Structure, name: str, leaves: Iterator[Any]) -> Any:
    """The leaves in guarded containers of their structure; errors call the whole `name`."""

    def guard(branch: Branch, items: Sequence[Any]) -> Any:
        return guarding(guarded(branch.kind), f"{name}{branch.path}", branch.keys, items)

    return contained(structure, leaves, guard)


def plain_containers(structure: Structure, leaves: Iterator[Any]) -> Any:
    """The leaves in plain containers of their structure."""
    return contained(structure, leaves, lambda branch, items: put(branch.kind, branch.keys, items))


def contained(
    structure: Structure, leaves: Iterator[Any], make: Callable[[Branch, Sequence[Any]], Any]
) -> Any:
    """The leaves in containers that `make` makes of a branch and its items."""
    if isinstance(structure, Leaf):
        return next(leaves)
    items = [contained(child, leaves, make) for child in structure.children.values()]
    return make(structure, items)


def put(kind: type, keys: Sequence[Any], items: Iterable[Any]) -> Any:
    """A plain container of that type."""
    if issubclass(kind, dict):
        return kind(zip(keys, items, strict=True))
    make: Callable[[Iterable[Any]], Any] = getattr(kind, "_make", kind)
    return make(items)


def plain_of(value: Any) -> Any:
    """A structure with plain containers in the place of an arena's, at any depth."""
    if not isinstance(value, Guarded):
        return value
    keys, items = take_apart(value)
    return put(value.__plain_kind__, keys, map(plain_of, items))


def replacement_error(place: str, item: Any) -> str:
    """The error's text for an assignment to the place where `item` is."""
    return (
        f"{place} = ... would replace the arena's view, and the optimizer would step the old "
        f"memory, without what is assigned; write into it: `{_first(place, item)}[...] = value`"
    )


class Guarded:
    """Base of the containers of an arena's views."""

    __slots__ = ()

    __plain_kind__: ClassVar[type]
    """The type of its copies."""

    _name: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return cls.__plain_kind__(*args, **kwargs)

    def __copy__(self) -> Any:
        return put(self.__plain_kind__, *take_apart(self))


class GuardedMapping(Guarded):
    """The methods of dictionaries, ordered or not, that hold views, or containers of them."""

    __slots__ = ()

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return self.__plain_kind__, ([*self.items()],)

    def __setitem__(self: Any, key: Any, value: Any) -> None:
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

    def __ior__(self, other: Any) -> Any:
        self.update(other)
        return self

    def copy(self) -> Any:
        return self.__copy__()

    def __delitem__(self, key: Any) -> None:
        _refuse(f"del {self._name}[{key!r}]", self)

    def pop(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(f"{self._name}.pop()", self)

    def popitem(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(f"{self._name}.popitem()", self)

    def clear(self) -> None:
        _refuse(f"{self._name}.clear()", self)

    def setdefault(self: Any, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]


class ViewDict(GuardedMapping, dict[Any, Any]):
    """Views, or containers of them, by key."""

    __slots__ = ("_name",)
    __plain_kind__ = dict


class ViewOrderedDict(GuardedMapping, OrderedDict[Any, Any]):
    """Views, or containers of them, by key, in an order of the user's."""

    __slots__ = ("_name",)
    __plain_kind__ = OrderedDict

    def __repr__(self) -> str:
        return repr(self.__copy__())

    def move_to_end(self, key: Any, last: bool = True) -> None:
        _refuse(f"{self._name}.move_to_end()", self)


class GuardedSequence(Guarded):
    """The methods of lists and tuples that hold views, or containers of them."""

    __slots__ = ()

    def __reduce__(self: Any) -> tuple[Any, ...]:
        return self.__plain_kind__, ([*self],)

    def __setitem__(self: Any, key: Any, value: Any) -> None:
        if isinstance(key, slice):
            places, values = range(len(self))[key], [*value]
            if len(places) != len(values):
                _refuse(f"{self._name}[...] = ... of another length", self)
            for index, each in zip(places, values, strict=True):
                self[index] = each
        elif self[key] is not value:
            place = f"{self._name}[{key}]"
            raise TypeError(replacement_error(place, self[key]))


class ViewList(GuardedSequence, list[Any]):
    """Views, or containers of them, by index."""

    __slots__ = ("_name",)
    __plain_kind__ = list

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        _refuse(f"{self._name} += ...", self)

    def __imul__(self, count: Any) -> Any:  # type: ignore[misc]
        _refuse(f"{self._name} *= ...", self)

    def __delitem__(self, key: Any) -> None:
        _refuse(f"del {self._name}[{key}]", self)

    def append(self, item: Any) -> None:
        _refuse(f"{self._name}.append()", self)

    def extend(self, items: Any) -> None:
        _refuse(f"{self._name}.extend()", self)

    def insert(self, index: SupportsIndex, item: Any) -> None:
        _refuse(f"{self._name}.insert()", self)

    def pop(self, index: SupportsIndex = -1) -> NoReturn:
        _refuse(f"{self._name}.pop()", self)

    def remove(self, item: Any) -> None:
        _refuse(f"{self._name}.remove()", self)

    def clear(self) -> None:
        _refuse(f"{self._name}.clear()", self)

    def reverse(self) -> None:
        _refuse(f"{self._name}.reverse()", self)

    def sort(self, **_: Any) -> None:
        _refuse(f"{self._name}.sort()", self)


class ViewTuple(GuardedSequence, tuple[Any, ...]):
    """Views, or containers of them, in a tuple: `views[0] += x` is fine here, too."""

    __plain_kind__ = tuple


class ViewFields(ViewTuple):
    """The methods of named tuples of views, besides: `views.w += x` is fine."""

    _fields: ClassVar[tuple[str, ...]]

    @classmethod
    def _make(cls, items: Iterable[Any]) -> Any:
        return put(cls.__plain_kind__, (), items)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__plain_kind__, tuple(self)

    def _replace(self, /, **changed: Any) -> Any:
        return self.__copy__()._replace(**changed)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            raise AttributeError(f"{self._name} has no {name!r}; it has {quoted(self._fields)}")
        known = getattr(self, name)
        if known is not value:
            raise AttributeError(replacement_error(f"{self._name}.{name}", known))


_guarded: dict[type, Any] = {
    each.__plain_kind__: each for each in (ViewDict, ViewOrderedDict, ViewList, ViewTuple)
}
_registered: set[type] = set()
_lock = RLock()


def guarded(kind: type) -> type[Guarded]:
    """The type of guarded containers in the place of plain ones of a type.

    Packages that take structures apart hear of it when it is first asked for.
    """
    with _lock:
        if kind not in _guarded:
            body = {"__module__": kind.__module__, "__doc__": kind.__doc__, "__plain_kind__": kind}
            _guarded[kind] = type(kind.__name__, (ViewFields, kind), body)
        made: type[Guarded] = _guarded[kind]
        if kind not in _registered:
            register(Node(made, kind, take_apart, partial(put, kind), plain_of))
            _registered.add(kind)
    return made


def guarding(kind: type[Guarded], name: str, keys: Sequence[Any], items: Sequence[Any]) -> Any:
    """A guarded container of that type, of these items, which errors call `name`."""
    plain: Any = kind.__plain_kind__
    if issubclass(kind, tuple):
        made = tuple.__new__(kind, items)
        vars(made)["_name"] = name
        return made
    made = plain.__new__(kind)
    made._name = name  # noqa: SLF001  this module's own
    if issubclass(kind, list):
        list.extend(made, items)
    else:
        for key, item in zip(keys, items, strict=True):
            plain.__setitem__(made, key, item)
    return made


def take_apart(container: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    """The keys, or indices, of a guarded container and its items.

    It is no method, as a field of a named tuple may have any name.
    """
    if isinstance(container, dict):
        return [*container], [*container.values()]
    return range(len(container)), [*container]


def _refuse(what: str, container: Guarded) -> NoReturn:
    name = container._name  # noqa: SLF001  this module's own
    raise TypeError(
        f"{what} would change which views there are, and the optimizer would step the old memory "
        f"all the same; write into the views: `{_first(name, container)}[...] = value`"
    )


def _first(place: str, item: Any) -> str:
    """The first view at a place, as one writes it."""
    while isinstance(item, Guarded):
        keys, items = take_apart(item)
        if not items:
            break
        place, item = f"{place}[{keys[0]!r}]", items[0]
    return place
