"""Packages that take structures of arrays apart, and how each hears of containers of ours.

jax.tree, optree and torch's pytree go by the exact type of a container, and take one that they
do not know for a single leaf; HIPS autograd refuses it. So each type of guarded containers is
registered with those of them that are loaded, and with the others when they are imported. What
they put together again is plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from fusedstep._checks.warn import warn
from fusedstep._core.imported import when_imported


class Node(NamedTuple):
    """A type of containers, as packages hear of it."""

    container: type
    kind: type
    """The plain type that it is derived from, and put together as."""
    parts: Callable[[Any], tuple[Sequence[Any], Sequence[Any]]]
    """Keys, or indices, and items of a container."""
    put: Callable[[Sequence[Any], Iterable[Any]], Any]
    """A plain container of keys and items."""
    plain: Callable[[Any], Any]
    """A container with all that it holds, as plain ones."""

    def sorted_parts(self, container: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Keys and items in the order in which jax and optree go over a dictionary: sorted."""
        keys, items = self.parts(container)
        if self.kind is dict:
            try:
                order = sorted(range(len(keys)), key=keys.__getitem__)
            except TypeError:  # keys that cannot be compared stay in their order
                order = [*range(len(keys))]
            keys, items = [keys[at] for at in order], [items[at] for at in order]
        return tuple(keys), tuple(items)


def register(node: Node) -> None:
    """Make a type of containers known to the packages that are loaded, and to later ones."""
    for module, tell in PACKAGES.items():
        if module in BY_TYPE or not hasattr(node.kind, "_fields"):
            when_imported(module, partial(_tell, tell, node))


def _tell(tell: Callable[[Any, Node], None], node: Node, module: Any) -> None:
    try:
        tell(module, node)
    except Exception as error:  # whatever it is, the package itself works, and is being imported
        warn(
            f"{module.__name__} takes the containers of a fusedstep.Arena for leaves: {error!r}; "
            "pass it those of `arena.plain`"
        )


def _to_jax(tree_util: Any, node: Node) -> None:
    def with_keys(container: Any) -> Any:
        keys, items = node.sorted_parts(container)
        return [*zip(_entries(node, keys, tree_util), items, strict=True)], keys

    def without(container: Any) -> Any:
        keys, items = node.sorted_parts(container)
        return items, keys

    tree_util.register_pytree_with_keys(node.container, with_keys, node.put, without)


def _entries(node: Node, keys: Sequence[Any], module: Any) -> list[Any]:
    """The steps of paths to the items, as jax and torch name them for a plain container."""
    if not issubclass(node.kind, dict):
        return [module.SequenceKey(key) for key in keys]
    step = getattr(module, "DictKey", None) or module.MappingKey
    return [step(key) for key in keys]


def _to_optree(optree: Any, node: Node) -> None:
    def apart(container: Any) -> Any:
        keys, items = node.sorted_parts(container)
        return items, (keys, (*node.parts(container)[0],)), keys

    def put(both: Any, items: Iterable[Any]) -> Any:
        """The container with the order that it had, as optree gives a dictionary back."""
        keys, given = both
        of = dict(zip(keys, items, strict=True))
        return node.put(given, [of[key] for key in given])

    entry = optree.MappingEntry if issubclass(node.kind, dict) else optree.SequenceEntry
    everywhere = vars(optree.registry)["__GLOBAL_NAMESPACE"]
    optree.register_pytree_node(
        node.container, apart, put, path_entry_type=entry, namespace=everywhere
    )


def _to_torch(pytree: Any, node: Node) -> None:
    def apart(container: Any) -> Any:
        keys, items = node.parts(container)
        return [*items], tuple(keys)

    def with_keys(container: Any) -> Any:
        keys, items = node.parts(container)
        return [*zip(_entries(node, keys, pytree), items, strict=True)], tuple(keys)

    def put(items: Iterable[Any], keys: Sequence[Any]) -> Any:
        return node.put(keys, items)

    pytree.register_pytree_node(node.container, apart, put, flatten_with_keys_fn=with_keys)


def _to_autograd(builtins: Any, node: Node) -> None:
    """Have autograd trace the plain container: what it knows of that, it knows of ours."""
    from autograd.tracer import new_box

    def box(value: Any, trace: Any, start: Any) -> Any:
        return new_box(node.plain(value), trace, start)

    builtins.Box.type_mappings[node.container] = box
    builtins.VSpace.register(node.container, lambda value: builtins.vspace(node.plain(value)))


PACKAGES: Mapping[str, Callable[[Any, Node], None]] = {
    "jax.tree_util": _to_jax,
    "optree": _to_optree,
    "torch.utils._pytree": _to_torch,
    "autograd.builtins": _to_autograd,
}
"""The modules that are awaited, and what tells each of a type of containers."""

BY_TYPE = {"autograd.builtins"}
"""The packages that know named tuples by their exact type alone. The others call the type, which
gives a plain one."""
