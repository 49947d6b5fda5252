"""The shape of a collection of parameters: arrays in sequences and mappings, nested at will.

A structure is read off the parameters once. It then takes gradients of the same structure
apart into a flat list, in the parameters' order, and puts per-parameter results together
in the structure again.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from fusedstep._checks.wording import describe, differences, quoted


class Leaf:
    """One parameter."""

    __slots__ = ("paths",)

    def __init__(self, path: str) -> None:
        self.paths = (path,)

    def flatten(self, value: Any, name: str) -> list[Any]:
        return [value]

    def rebuild(self, leaves: Iterable[Any]) -> Any:
        return next(iter(leaves))

    def entries(self, value: Any) -> Iterator[tuple[str, Any]]:
        yield self.paths[0], value

    def is_of(self, value: Any, kinds: tuple[type, ...]) -> bool:
        return True


class Only(Leaf):
    """One parameter that is in no collection."""

    def flatten(self, value: Any, name: str) -> list[Any]:
        if value is None:
            raise TypeError(
                f"{name} is None, and so this step would do nothing; pass the array's gradient, or "
                "leave the call out"
            )
        return [value]


class Branch:
    """A sequence or a mapping of structures; `keys` are its indices or its keys."""

    kind: type
    """The type of plain container that the parameters came in, see `kept_kind`."""

    def __init__(self, path: str, children: dict[Any, Leaf | Branch], kind: type) -> None:
        self.path = path
        self.kind = kind
        self.children = children
        self.keys = list(children)
        self.paths: list[str] = [path for child in children.values() for path in child.paths]
        self.shallow = all(isinstance(child, Leaf) for child in children.values())

    def flatten(self, value: Any, name: str) -> list[Any]:
        """One item for each parameter out of `value`, which errors call `name`."""
        items = self.items(value, name)
        if self.shallow:
            return items
        return [
            leaf
            for child, item in zip(self.children.values(), items, strict=True)
            for leaf in child.flatten(item, name)
        ]

    def items(self, value: Any, name: str) -> list[Any]:
        """The children's items in `value`, which is refused if it has others."""
        raise NotImplementedError

    def rebuild(self, leaves: Iterable[Any]) -> Any:
        """A collection of this structure, with one of `leaves` for each parameter."""
        raise NotImplementedError

    def entries(self, value: Any) -> Iterator[tuple[str, Any]]:
        """The entries of a collection that are where the parameters' are, by their paths.

        It may have lost some, or have become anything else: what cannot be read is left out.
        """
        for key, child in self.children.items():
            with suppress(Exception):
                item = value[key]
                yield from child.entries(item)

    def is_of(self, value: Any, kinds: tuple[type, ...]) -> bool:
        """Whether a collection, and all in it, is of one of the types and has no other entries."""
        return (
            type(value) in kinds
            and len(value) == len(self.keys)
            and all(child.is_of(value[key], kinds) for key, child in self.children.items())
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Branch:
        return self  # it never changes

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        if not is_findable(self.kind):  # of a function's own: a pickle could not refer to it
            state["kind"] = tuple
        return state


class List(Branch):
    kind = list

    def items(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list) and (
            isinstance(value, Mapping) or is_array(value) or not is_collection(value)
        ):
            raise TypeError(
                f"{name}{self.path} is {describe(value)}; pass a sequence of "
                f"{len(self.keys)}, in the order of the parameters"
            )
        items = list(value)  # a copy: the caller's may change while a step reads it
        if len(items) != len(self.keys):
            raise ValueError(
                f"{name}{self.path} has {len(items)} items for {len(self.keys)} parameters; "
                "pass one for each, None for a parameter to skip"
            )
        return items

    def rebuild(self, leaves: Iterable[Any]) -> Any:
        leaves = iter(leaves)
        return [child.rebuild(leaves) for child in self.children.values()]


class Dict(Branch):
    kind = dict

    def items(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, Mapping):
            raise TypeError(
                f"{name}{self.path} is {describe(value)}; pass a mapping with the keys "
                f"{quoted(self.keys)}"
            )
        if value.keys() != self.children.keys():
            raise KeyError(
                f"{name}{self.path} {differences(value, self.children)}; pass one item for each "
                "parameter, None for one to skip"
            )
        return [value[key] for key in self.keys]

    def rebuild(self, leaves: Iterable[Any]) -> Any:
        leaves = iter(leaves)
        return {key: child.rebuild(leaves) for key, child in self.children.items()}


Structure = Leaf | Branch


def flatten(value: Any) -> tuple[Structure, list[Any]]:
    """The structure of the parameters `value`, and its leaves in order."""
    if is_array(value):
        return Only(""), [value]
    try:
        return _flatten(value, "")
    except RecursionError:
        raise ValueError(
            "params holds itself, or is nested too deep to be read; pass a sequence or mapping of "
            "arrays"
        ) from None


def _flatten(value: Any, path: str) -> tuple[Structure, list[Any]]:
    if is_array(value):
        return Leaf(path), [value]
    if not is_collection(value):
        raise TypeError(
            f"params{path} is {describe(value)}; pass a NumPy array, or a sequence or mapping "
            "of arrays"
        )
    mapping = isinstance(value, Mapping)
    kind = kept_kind(value)
    children: dict[Any, Structure] = {}
    leaves: list[Any] = []
    for key, item in value.items() if mapping else enumerate(value):
        children[key], below = _flatten(item, f"{path}[{key!r}]")
        leaves += below
    return (Dict if mapping else List)(path, children, kind), leaves


def kept_kind(value: Any) -> type:
    """The type of plain container that stands for a collection of parameters.

    Tuples, named ones with their type, and ordered dictionaries are kept; all other mappings
    count as dictionaries, and all other collections as lists.
    """
    kind = type(value)
    if isinstance(value, tuple):
        return plain_kind(kind) if hasattr(kind, "_fields") else tuple
    if isinstance(value, Mapping):
        return OrderedDict if isinstance(value, OrderedDict) else dict
    return list


def plain_kind(kind: type) -> type:
    """The type of the copies of containers of a type; an arena's name another, see `Guarded`."""
    found: type = getattr(kind, "__plain_kind__", kind)
    return found


def is_findable(kind: type) -> bool:
    """Whether a type stands in its module under its own name."""
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def named(structure: Structure, leaves: Iterable[Any]) -> list[tuple[str, Any]]:
    """The parameters in order, each after the name that errors have for it."""
    return [(f"params{path}", leaf) for path, leaf in zip(structure.paths, leaves, strict=True)]


def is_array(value: Any) -> bool:
    """Whether `value` stands for one parameter; checks.py says which arrays will do."""
    if isinstance(value, np.ndarray):
        return True
    names = ("__array_interface__", "__array__", "__dlpack__", "__cuda_array_interface__")
    return any(hasattr(value, name) for name in names)


def is_collection(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (str, bytes))
