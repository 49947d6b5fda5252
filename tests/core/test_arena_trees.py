"""An arena's containers in packages that take structures apart: jax, optree, torch, autograd.

What they see and what they make is what they see and make of the plain containers.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytest
from arenas import kinds, leaves
from cases import ones
from marks import needs

import fusedstep as fs
from fusedstep._core import trees
from fusedstep._core.imported import FINDER, when_imported


class Layer(NamedTuple):
    w: Any
    b: Any


def given() -> Any:
    return {
        "layers": [Layer(ones(2, 3), ones(3)), (ones(2), {"w": ones(4)})],
        "before": OrderedDict(y=ones(2), x=ones(3)),
        "empty": [],
    }


class Jax:
    def __init__(self) -> None:
        self.tree = needs("jax", "others").tree_util

    def leaves(self, tree: Any) -> list[Any]:
        found: list[Any] = self.tree.tree_leaves(tree)
        return found

    def map(self, function: Any, *those: Any) -> Any:
        return self.tree.tree_map(function, *those)

    def paths(self, tree: Any) -> list[str]:
        return [self.tree.keystr(path) for path, _ in self.tree.tree_leaves_with_path(tree)]


class Optree:
    def __init__(self) -> None:
        self.tree = needs("optree", "others")

    def leaves(self, tree: Any) -> list[Any]:
        found: list[Any] = self.tree.tree_leaves(tree)
        return found

    def map(self, function: Any, *those: Any) -> Any:
        return self.tree.tree_map(function, *those)

    def paths(self, tree: Any) -> Any:
        return self.tree.tree_paths(tree)


class Torch:
    def __init__(self) -> None:
        needs("torch", "torch")
        from torch.utils import _pytree

        self.tree: Any = _pytree

    def leaves(self, tree: Any) -> list[Any]:
        found: list[Any] = self.tree.tree_leaves(tree)
        return found

    def map(self, function: Any, *those: Any) -> Any:
        return self.tree.tree_map(function, *those)

    def paths(self, tree: Any) -> list[str]:
        return [self.tree.keystr(path) for path, _ in self.tree.tree_flatten_with_path(tree)[0]]


class TorchInC(Torch):
    def __init__(self) -> None:
        needs("torch", "torch")
        needs("optree", "others")
        from torch.utils import _cxx_pytree

        self.tree = _cxx_pytree

    def paths(self, tree: Any) -> list[str]:
        return []  # torch has none there yet


@pytest.fixture(params=[Jax, Optree, Torch, TorchInC], ids=lambda kind: kind.__name__)
def package(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_the_same_leaves_in_the_same_order(package: Any) -> None:
    arena = fs.Arena(given())
    for views, plain in zip((arena.params, arena.grads), arena.plain, strict=True):
        found = package.leaves(views)
        assert len(found) == 6
        assert all(one is other for one, other in zip(found, package.leaves(plain), strict=True))
        assert package.paths(views) == package.paths(plain)


def test_what_is_mapped_is_plain(package: Any) -> None:
    arena = fs.Arena(given())
    made = package.map(lambda p, g: p + g, arena.params, arena.grads)
    assert repr(kinds(made)) == repr(kinds(package.map(np.copy, given())))
    assert type(made) is dict
    assert type(made["layers"][0]) is Layer
    assert {type(made["layers"]), type(made["empty"])} == {list}
    assert type(made["before"]) is OrderedDict
    made["layers"] = "another"  # it is nobody's view
    assert all((array == 1).all() for array in leaves(arena.params))


def test_plain_containers_go_with_those_of_others(package: Any) -> None:
    """A package wants all trees of one call to have the same types of containers."""
    arena = fs.Arena(given())
    grads = package.map(lambda p: 2 * p, given())
    package.map(np.copyto, arena.plain.grads, grads)
    assert all((g == 2).all() for g in leaves(arena.grads))
    with pytest.raises(ValueError, match=r"[Mm]ismatch|different types|Expected"):
        package.map(np.copyto, arena.grads, grads)


def test_containers_of_copies_and_of_arenas_within_arenas(package: Any) -> None:
    first = fs.Arena(given())
    second = fs.Arena(first.params)
    assert repr(kinds(second.params)) == repr(kinds(first.params))
    assert type(second.plain.params["layers"][0]) is Layer
    assert len(package.leaves(second.params)) == 6


def test_keys_that_cannot_be_sorted_stay_in_their_order(package: Any) -> None:
    arena = fs.Arena({"w": ones(2), 7: ones(3)})
    assert [leaf.size for leaf in package.leaves(arena.params)] == [2, 3]


# ---- HIPS autograd ----

ARGUMENTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "array": (lambda: np.array([1.0, 2.0]), lambda p: p),
    "list of tuples": (
        lambda: [(np.array([1.0, 2.0]), np.ones(2)), (np.ones(2), np.zeros(2))],
        lambda p: p[0][0] + 0 * p[1][1],
    ),
    "dict of lists": (lambda: {"w": [np.array([1.0, 2.0])], "b": np.ones(3)}, lambda p: p["w"][0]),
    "tuple of dicts": (lambda: ({"w": np.array([1.0, 2.0])},), lambda p: p[0]["w"]),
    "looped over": (
        lambda: {"w": [np.array([1.0, 2.0])]},
        lambda p: next(w for layer in p.values() for w in layer),
    ),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_autograd_takes_containers_and_leaves(name: str) -> None:
    autograd = needs("autograd", "autograd")
    anp = autograd.numpy
    make, pick = ARGUMENTS[name]
    arena = fs.Arena(make())

    def loss(p: Any) -> Any:
        return anp.sum(pick(p) ** 3)

    for transform in (autograd.grad, autograd.value_and_grad):
        found, expected = transform(loss)(arena.params), transform(loss)(make())
        if transform is autograd.value_and_grad:
            assert found[0] == expected[0]
            found, expected = found[1], expected[1]
        assert repr(kinds(found)) == repr(kinds(expected)) == repr(kinds(make()))
        for one, other in zip(leaves(found), leaves(expected), strict=True):
            np.testing.assert_array_equal(one, other)
    arena.set_grads(found)
    fs.SGD(arena, lr=0.5).step()
    np.testing.assert_array_equal(pick(arena.params), [1 - 1.5, 2 - 6.0])


def test_autograd_flattens_containers() -> None:
    needs("autograd", "autograd")
    from autograd.misc.flatten import flatten

    arena = fs.Arena([(np.array([1.0, 2.0]), np.array(3.0))])
    vector, unflatten = flatten(arena.params)
    np.testing.assert_array_equal(vector, [1, 2, 3])
    assert repr(unflatten(vector)) == repr(
        flatten([(np.array([1.0, 2.0]), np.array(3.0))])[1](vector)
    )


# ---- whichever is imported first ----

LEAVES = {
    "jax": "jax.tree_util.tree_leaves",
    "optree": "optree.tree_leaves",
    "torch.utils._pytree": "torch.utils._pytree.tree_leaves",
    "torch.utils._cxx_pytree": "torch.utils._cxx_pytree.tree_leaves",
    "autograd.misc": "(lambda p: autograd.misc.flatten(p)[0].tolist())",
}

EXTRA = {"jax": "others", "optree": "others", "torch": "torch", "autograd": "autograd"}


@pytest.mark.parametrize("first", ["fusedstep", "package"])
@pytest.mark.parametrize("module", LEAVES)
def test_it_may_be_imported_first_or_last(module: str, first: str) -> None:
    package = module.partition(".")[0]
    needs(package, EXTRA[package])
    imports = [f"import {module}", "import numpy as np, fusedstep as fs"]
    make = "arena = fs.Arena([(np.ones(1), np.ones(1))]); params = arena.params"
    lines = [*imports, make] if first == "package" else [imports[1], make, imports[0]]
    check = [
        f"assert len({LEAVES[module]}(params)) == 2",
        f"import sys, {package}",
        f"assert type({package}.__loader__).__name__ == 'SourceFileLoader'",
        f"assert {package}.__spec__.loader is {package}.__loader__",
    ]
    code = "\n".join(lines + check)
    subprocess.run([sys.executable, "-W", "error::RuntimeWarning", "-c", code], check=True)


def test_nothing_is_imported_by_an_arena() -> None:
    code = (
        "import sys, numpy as np, fusedstep as fs; before = {*sys.modules}; "
        "from fusedstep._core import imported; assert imported.FINDER not in sys.meta_path; "
        "fs.Arena([np.ones(1)]).params; "
        "assert not {'jax', 'torch', 'optree', 'autograd'} & sys.modules.keys(); "
        "assert imported.FINDER in sys.meta_path"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_call_waits_for_its_module(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "awaited_here.py").write_text("assert __loader__.path == __file__\nvalue = 3\n")
    (tmp_path / "awaited_broken.py").write_text("raise OSError('no value')\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen: list[Any] = []
    for name in ("awaited_here", "awaited_broken"):
        when_imported(name, lambda module: seen.append(module.value))
    assert FINDER in sys.meta_path
    assert find_spec("awaited_here") is not None
    assert seen == []
    with pytest.raises(OSError, match="no value"):
        __import__("awaited_broken")
    __import__("awaited_here")
    assert seen == [3]
    when_imported("awaited_here", lambda module: seen.append(2 * module.value))
    assert seen == [3, 6]
    (tmp_path / "awaited_broken.py").write_text("value = 40\n")
    __import__("awaited_broken")  # it may be mended
    assert seen == [3, 6, 40]
    when_imported("awaited_nowhere", print)
    with pytest.raises(ModuleNotFoundError, match="awaited_nowhere"):
        __import__("awaited_nowhere")


def test_a_package_that_has_changed_is_warned_of_and_imported() -> None:
    def changed(module: Any, node: Any) -> None:
        raise TypeError("another signature")

    node = trees.Node(dict, dict, lambda d: ([], []), lambda keys, items: {}, dict)
    with pytest.warns(RuntimeWarning, match=r"another signature.*`arena\.plain`"):
        trees._tell(changed, node, sys)  # noqa: SLF001


def test_no_package_warns_of_named_tuples() -> None:
    needs("optree", "others")
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Fresh(NamedTuple):
            w: Any

        arena = fs.Arena(Fresh(ones(2)))
    assert type(arena.plain.params) is Fresh
