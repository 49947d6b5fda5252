"""The shape of a collection of parameters: arrays in sequences and mappings, nested at will.

A structure is read off the parameters once. It then takes gradients of the same structure
apart into a flat list, in the parameters' order, and puts per-parameter results together
in the structure again.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    Sized,
)
from contextlib import suppress
from numbers import Number
from typing import Any

import numpy as np

from fusedstep._arrays.cuda_array import on_device
from fusedstep._arrays.libraries import glance, library
from fusedstep._arrays.plain import where
from fusedstep._arrays.remedies import BUFFERS, as_read, over_buffer
from fusedstep._checks.hints import renamed
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
                f"{name}{self.path} is {describe(value)}; pass a sequence of {len(self.keys)}, in "
                f"the order of the parameters{as_list(value, name + self.path, len(self.keys))}"
            )
        items = list(value)  # a copy: the caller's may change while a step reads it
        if len(items) != len(self.keys):
            spare = len(self.keys) - len(items)
            example = f", as `[*{name}{self.path}, {', '.join(['None'] * spare)}]`"
            raise ValueError(
                f"{name}{self.path} has {len(items)} items for {len(self.keys)} parameters; "
                f"pass one for each, None for a parameter to skip{example if 0 < spare < 4 else ''}"
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
                f"{quoted(self.keys)}{as_dict(value, name, self.path, self.keys)}"
            )
        if value.keys() != self.children.keys():
            raise KeyError(
                f"{name}{self.path} {differences(value, self.children)}; pass one item for each "
                f"parameter, None for one to skip{with_keys(value, name + self.path, self.keys)}"
            )
        return [value[key] for key in self.keys]

    def rebuild(self, leaves: Iterable[Any]) -> Any:
        leaves = iter(leaves)
        return {key: child.rebuild(leaves) for key, child in self.children.items()}


def as_list(value: Any, name: str, count: int) -> str:
    """How to have gradients that came in something else as a list; the end of an error."""
    if isinstance(value, Mapping) and len(value) == count:
        return f", `[*{name}.values()]`"
    if is_array(value) and count == 1:
        return f", `[{name}]`"
    if isinstance(value, np.ndarray) and value.dtype == object and len(value) == count:
        return f", `[*{name}]`"
    return "" if is_array(value) else not_gradients(value)


def as_dict(value: Any, name: str, path: str, keys: Sequence[Any]) -> str:
    """How to have gradients that came in something else by key; the end of an error."""
    if is_array(value):
        return f", `{{{keys[0]!r}: {name}{path}}}`" if len(keys) == 1 else ""
    if isinstance(value, ItemsView):
        return f", `dict({name}{path})`"
    if isinstance(value, zip):
        apart = f"dict(zip(params{path}, [g for g, _ in {name}{path}]))"
        return f", `{apart}` of pairs of gradients and parameters"
    if isinstance(value, Sized) and is_collection(value) and len(value) == len(keys):
        return f", `dict(zip(params{path}, {name}{path}))` if they are in that order"
    return not_gradients(value)


def not_gradients(value: Any) -> str:
    """A remedy for what is passed in the place of gradients by those who come from elsewhere."""
    if value is None:
        return ""
    if isinstance(value, Number):
        return "; a step takes the gradients, and not the loss: `opt.step(grads)`"
    if callable(value):
        return "; a step takes the gradients, and calls no closure: `opt.step(grads)`"
    return ""


def with_keys(value: Mapping[Any, Any], name: str, keys: Sequence[Any]) -> str:
    """How to have a mapping with just the expected keys; the end of an error."""
    surplus = [key for key in value if key not in keys]
    missing = [key for key in keys if key not in value]
    pairs = renamed(surplus, missing)
    if surplus and len(pairs) == len(surplus) <= 4:
        return f". Did you mean {', '.join(f'{new!r} for {old!r}' for old, new in pairs.items())}?"
    if not surplus and len(missing) <= 4:
        skipped = ", ".join(f"{key!r}: None" for key in missing)
        return f", as `{{**{name}, {skipped}}}`"
    if not missing:
        return f", as `{{key: {name}[key] for key in params}}`"
    return ""


Structure = Leaf | Branch


def flatten(value: Any) -> tuple[Structure, list[Any]]:
    """The structure of the parameters `value`, and its leaves in order."""
    if is_array(value) and not isinstance(value, np.generic):
        return Only(""), [value]
    try:
        return _flatten(value, "")
    except RecursionError:
        raise ValueError(
            "params holds itself, or is nested too deep to be read; pass a sequence or mapping of "
            "arrays"
        ) from None


def _flatten(value: Any, path: str) -> tuple[Structure, list[Any]]:
    if is_array(value) and not isinstance(value, np.generic):
        return Leaf(path), [value]
    if not is_collection(value) or not is_ordered(value):
        raise TypeError(f"params{path} is {describe(value)}; {made_of(value, f'params{path}')}")
    mapping = isinstance(value, Mapping)
    kind = kept_kind(value)
    children: dict[Any, Structure] = {}
    leaves: list[Any] = []
    for key, item in value.items() if mapping else enumerate(value):
        if isinstance(item, Number | str):
            refuse_numbers(value, item, key, path)
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


PASS = "pass a NumPy array, or a sequence or mapping of arrays"


def is_ordered(value: Any) -> bool:
    """Whether a collection is one of arrays, in an order that stays."""
    kind = type(value)
    if hasattr(kind, "named_parameters"):  # of torch's modules one is a list of arrays
        return all(map(is_array, value))
    unordered = set, frozenset, KeysView, *BUFFERS
    return not isinstance(value, unordered) and not hasattr(kind, "toarray")


def made_of(value: Any, name: str) -> str:
    """How to have parameters of something that is none; the end of an error."""
    kind = type(value)
    if isinstance(value, Number) and not isinstance(value, complex):
        dtype = value.dtype if isinstance(value, np.floating) else np.dtype(np.float64)
        return f"{PASS}: a number cannot change in place, `np.asarray({name}, np.{dtype.name})` can"
    if isinstance(value, BUFFERS):
        over = over_buffer(value, name)
        return f"{PASS}: `{over}`{as_read(value)}" if over else PASS
    if isinstance(value, KeysView):
        return f"{PASS}: the mapping itself, and not its keys"
    if isinstance(value, (set, frozenset)):
        return f"{PASS}, in an order that stays: `list({name})`"
    if hasattr(kind, "toarray"):
        return f"{PASS}; a dense one is `{name}.toarray()`"
    if hasattr(kind, "get_weights") and hasattr(kind, "set_weights"):
        return (
            f"{PASS}, as `{name}.get_weights()`, copies that `{name}.set_weights` takes back after "
            "the steps"
        )
    if hasattr(kind, "named_parameters"):
        return f"a module of torch is trained by `fusedstep.torch.AdamW({name}.parameters())`"
    if callable(getattr(kind, "parameters", None)):
        return f"{PASS}: its own may be `{name}.parameters()`"
    if any(is_array(each) for each in getattr(value, "__dict__", {}).values()):
        return f"{PASS}: those among its attributes are `{attributes_of(value, name)}`"
    return PASS


def attributes_of(value: Any, name: str) -> str:
    """The expression that has the arrays among an object's attributes."""
    attributes = vars(value)
    if all(is_array(each) for each in attributes.values()):
        return f"vars({name})"
    kept = ", ".join(f"{key!r}: {name}.{key}" for key, each in attributes.items() if is_array(each))
    return f"{{{kept}}}"


def refuse_numbers(value: Any, item: Any, key: Any, path: str) -> None:
    """Refuse a collection with a number or a text in an array's place, if it tells what it is."""
    whole, name = f"params{path}", f"params{path}[{key!r}]"
    if isinstance(value, tuple) and len(value) == 2 and key == 0 and isinstance(item, str):
        raise TypeError(
            f"{name} is {describe(item)}; {PASS}: pairs of names and arrays make one, "
            f"{as_mapping(value[1])}"
        )
    if isinstance(value, (list, tuple)) and all(isinstance(each, Number) for each in value):
        raise TypeError(
            f"{name} is {describe(item)}; {PASS}: of the numbers in {whole} that is "
            f"`np.array({whole}, np.float32)` or of float64"
        )


def as_mapping(item: Any) -> str:
    """How to have a mapping of pairs of names and arrays, such as `item`.

    Torch's come from a generator, which has been read by then.
    """
    if library(item).package == "torch":
        return "`dict(model.named_parameters())` of a model of torch"
    return "`dict(params)`, unless they have been read already"


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


# ---- containers that hold their arrays ----


def refuse_fleeting(value: Any, path: str = "") -> None:
    """Refuse a container that returns other arrays at each look: nobody would hold what is stepped.

    What has been read once for all, a generator, is not looked at again.
    """
    if is_array(value) or not is_collection(value) or iter(value) is value:
        return
    mapping = isinstance(value, Mapping)
    pairs = list(value.items() if mapping else enumerate(value))
    if type(value) not in BUILTIN:
        again = [value[key] for key, _ in pairs] if mapping else list(value)
        for (key, item), other in zip(pairs, again, strict=True):
            if not same(item, other):
                raise TypeError(
                    f"params{path} ({type(value).__name__}) returns another array at each look at "
                    f"{key!r}, so that what is stepped would be nobody's; read it once, "
                    f"`params = {read_once(value, path)}`, and pass that"
                )
    for key, item in pairs:
        if type(item) is not np.ndarray:
            refuse_fleeting(item, f"{path}[{key!r}]")


def read_once(value: Any, path: str) -> str:
    """The expression that reads a container into one that holds its arrays."""
    return f"dict(params{path})" if isinstance(value, Mapping) else f"list(params{path})"


BUILTIN = (dict, list, tuple)


def same(item: Any, other: Any) -> bool:
    """Whether two looks at a container's item gave the same memory, or containers of the same."""
    if item is other:
        return True
    if not is_array(item) or not is_array(other):
        return same_leaves(item, other)
    try:
        look = glance if on_device(item) else where
        return look(item) == look(other) or np.size(item) == 0
    except TypeError:  # it is refused by itself
        return True


def same_leaves(item: Any, other: Any) -> bool:
    """Whether two containers hold the same arrays."""
    if is_array(item) or is_array(other):
        return False
    if not is_collection(item) or iter(item) is item:
        return True
    pairs = zip(_flatten(item, "")[1], _flatten(other, "")[1], strict=False)
    return all(same(one, another) for one, another in pairs)
