"""Views of an arena: they stay, and their gradients are its own."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from arenas import kinds, leaves
from cases import ones
from marks import on_each_backend

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]

# ---- views that stay ----


def nested() -> fs.Arena:
    return fs.Arena({"layers": [{"w": ones(2), "b": ones(3)}], "scale": ones(), "none": []})


MUTATIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "set": (lambda g: g.__setitem__("scale", ones()), "grads['scale'] = "),
    "set a container": (lambda g: g.__setitem__("layers", []), "grads['layers'] = "),
    "set within": (lambda g: g["layers"][0].__setitem__("w", ones(2)), "['layers'][0]['w'] = "),
    "set another view": (
        lambda g: g["layers"][0].__setitem__("w", g["layers"][0]["b"]),
        "grads['layers'][0]['w'] = ",
    ),
    "set in a list": (lambda g: g["layers"].__setitem__(0, {}), "grads['layers'][0] = "),
    "set from the end": (lambda g: g["layers"].__setitem__(-1, {}), "grads['layers'][-1] = "),
    "set a slice": (lambda g: g["layers"].__setitem__(slice(None), [1]), "grads['layers'][0] = "),
    "set a longer slice": (
        lambda g: g["layers"].__setitem__(slice(None), []),
        "grads['layers'][...] = ... of another length",
    ),
    "update": (lambda g: g.update(scale=ones()), "grads['scale'] = "),
    "update within": (lambda g: g["layers"][0].update({"b": 1}), "grads['layers'][0]['b'] = "),
    "ior": (lambda g: g.__ior__({"scale": ones()}), "grads['scale'] = "),
    "del": (lambda g: g.__delitem__("scale"), "del grads['scale']"),
    "pop": (lambda g: g.pop("scale"), "grads.pop()"),
    "pop with a default": (lambda g: g.pop("scale", None), "grads.pop()"),
    "popitem": (lambda g: g.popitem(), "grads.popitem()"),
    "clear": (lambda g: g.clear(), "grads.clear()"),
    "del in a list": (lambda g: g["layers"].__delitem__(0), "del grads['layers'][0]"),
    "iadd": (lambda g: g["layers"].__iadd__([1]), "grads['layers'] += "),
    "imul": (lambda g: g["layers"].__imul__(0), "grads['layers'] *= "),
    "append": (lambda g: g["layers"].append(ones()), "grads['layers'].append()"),
    "extend": (lambda g: g["layers"].extend([]), "grads['layers'].extend()"),
    "insert": (lambda g: g["layers"].insert(0, 1), "grads['layers'].insert()"),
    "pop of a list": (lambda g: g["layers"].pop(), "grads['layers'].pop()"),
    "remove": (lambda g: g["layers"].remove(1), "grads['layers'].remove()"),
    "clear a list": (lambda g: g["layers"].clear(), "grads['layers'].clear()"),
    "reverse": (lambda g: g["layers"].reverse(), "grads['layers'].reverse()"),
    "sort": (lambda g: g["layers"].sort(key=id), "grads['layers'].sort()"),
}


@pytest.mark.parametrize("kind", ["grads", "params"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_view_cannot_be_replaced(name: str, kind: str) -> None:
    arena = nested()
    views = getattr(arena, kind)
    before, kept = kinds(views), [*leaves(views)]
    mutate, message = MUTATIONS[name]
    with pytest.raises(TypeError) as caught:
        mutate(views)
    text = str(caught.value)
    assert message.replace("grads", kind) in text
    assert "the optimizer would step the old memory" in text
    remedy = re.search(rf"`({kind}\S*)\[\.\.\.\] = value`", text)
    assert remedy is not None
    assert isinstance(eval(remedy[1], {kind: views}), np.ndarray)  # what it says to write into
    assert kinds(views) == before
    assert all(one is other for one, other in zip(leaves(views), kept, strict=True))


def test_every_mutator_is_refused() -> None:
    """Whatever dict and list have that immutable ones would not."""
    mutable = {*dir(dict)} - {*dir(type(type.__dict__))} | {*dir(list)} - {*dir(tuple)}
    harmless = {"copy", "fromkeys", "__class_getitem__", "__reversed__", "__ror__", "__or__"}
    arena = nested()
    for container in (arena.grads, arena.grads["layers"]):
        for name in mutable - harmless:
            inherited = getattr(dict if isinstance(container, dict) else list, name, None)
            if inherited is not None:
                assert getattr(type(container), name) is not inherited, name


def test_new_keys_are_refused() -> None:
    arena = nested()
    adding: list[Callable[[], Any]] = [
        lambda: arena.grads.__setitem__("b", ones()),
        lambda: arena.grads.setdefault("b", ones()),
        lambda: arena.grads.update(b=ones()),
    ]
    for add in adding:
        with pytest.raises(KeyError, match=r"grads has no 'b' .* it has 'layers', 'scale', 'none'"):
            add()
    assert "b" not in arena.grads
    with pytest.raises(IndexError):
        arena.grads["layers"][5] = ones()


def test_the_first_of_several_that_would_be_replaced_is_named() -> None:
    arena = fs.Arena({"w": ones(2), "b": ones(3)})
    with pytest.raises(TypeError, match=re.escape("grads['b'] = ")):
        arena.grads.update(w=arena.grads["w"], b=ones(3))


def test_what_keeps_the_view_is_allowed() -> None:
    arena = nested()
    arena.grads["scale"] += 2
    arena.grads["layers"][0]["w"] *= 3
    arena.grads["layers"][0]["w"] = arena.grads["layers"][0]["w"]
    arena.grads["layers"][:] = [*arena.grads["layers"]]
    arena.grads.update(arena.grads)
    arena.grads |= dict(arena.grads)
    assert arena.grads.setdefault("scale") is arena.grads["scale"]
    arena.buffers["float32"].g[2:] += 1
    buffer = arena.buffers["float32"]
    buffer.g *= 2
    assert buffer.g.tolist() == [0, 0, 2, 2, 2, 6]
    fs.SGD(arena, lr=1.0).step()
    assert buffer.p.tolist() == [1, 1, -1, -1, -1, -5]


def test_an_array_alone() -> None:
    arena = fs.Arena(np.zeros(3))
    arena.grads += 1
    arena.params -= 1
    fs.SGD(arena, lr=1.0).step()
    assert arena.params.tolist() == [-2, -2, -2]
    with pytest.raises(AttributeError, match=re.escape("write into it: `grads[...] = value`")):
        arena.grads = np.ones(3)


def test_attributes_cannot_be_replaced() -> None:
    arena = fs.Arena({"w": ones(2)})
    for name in ("params", "grads"):
        with pytest.raises(AttributeError, match=re.escape(f"`{name}['w'][...] = value`")):
            setattr(arena, name, {"w": ones(2)})
        with pytest.raises(AttributeError, match="cannot be deleted"):
            delattr(arena, name)
    with pytest.raises(AttributeError, match="state"):
        arena.state = 1
    with pytest.raises(AttributeError, match=re.escape("`g[...] = value`")):
        arena.buffers["float32"].g = ones(2)
    with pytest.raises(TypeError):
        arena.buffers["float32"] = ones(2)  # type: ignore[index]
    assert arena.buffers["float32"].g.tolist() == [0, 0]


@pytest.mark.parametrize(
    "way",
    [
        copy.copy,
        copy.deepcopy,
        lambda views: pickle.loads(pickle.dumps(views)),
        lambda views: views.copy(),
        lambda views: views | {} if isinstance(views, dict) else views + list[Any](),
        lambda views: views[:] if isinstance(views, list) else {**views},
    ],
    ids=["copy", "deepcopy", "pickle", "method", "operator", "display"],
)
def test_copies_of_containers_are_plain(way: Any) -> None:
    arena = nested()
    for views, kind in ((arena.grads, dict), (arena.grads["layers"], list)):
        made = way(views)
        assert type(made) is kind
        assert kinds(made) == kinds(views)
    made = way(arena.grads)
    made["scale"] = ones(7)
    assert arena.grads["scale"].shape == ()


def test_containers_are_dicts_and_lists() -> None:
    arena = nested()
    assert isinstance(arena.grads, dict)
    assert isinstance(arena.grads["layers"], list)
    assert {**arena.grads}.keys() == arena.grads.keys()
    assert json.dumps(arena.grads, default=lambda g: g.tolist()) == (
        '{"layers": [{"w": [0.0, 0.0], "b": [0.0, 0.0, 0.0]}], "scale": 0.0, "none": []}'
    )
    assert repr(fs.Arena([np.zeros(1)]).params) == "[array([0.])]"
    assert repr(arena) == "<arena of 3 parameters: 6 float32>"


# ---- whose gradients ----


def test_a_step_without_gradients_needs_an_arena() -> None:
    p = ones(2)
    for params in (p, [p], {"w": p}, fs.Arena(p).params):
        with pytest.raises(TypeError, match=r"without `grads` is for .* a fusedstep.Arena"):
            fs.SGD(params).step()
    assert fs.SGD(p).arena is None


@on_each_backend
def test_the_views_may_be_passed(backend: str) -> None:
    """Any containers will do, and other arrays over the same memory."""
    arena = fs.Arena({"w": np.asfortranarray(ones(2, 3)), "b": ones(1, 4), "none": ones(0)})
    opt = fs.SGD(arena, lr=1.0, backend=backend)
    views = arena.grads
    for grads in (
        views,
        dict(views),
        {key: views[key] for key in ("none", "b", "w")},
        {key: view[...] for key, view in views.items()},
        {**views, "none": ones(0)},
    ):
        arena.buffers["float32"].g[...] = 1
        opt.step(grads)
    assert (arena.buffers["float32"].p == -4).all()


FOREIGN: dict[str, tuple[Callable[[fs.Arena], Any], str]] = {
    "another array": (lambda a: {**a.grads, "b": ones(4)}, "grads['b'] is an array of shape (4,)"),
    "a copy": (lambda a: {k: g.copy() for k, g in a.grads.items()}, "grads['w']"),
    "none": (lambda a: {**a.grads, "b": None}, "grads['b'] is None"),
    "a parameter": (lambda a: {**a.grads, "b": a.params["b"]}, "grads['b']"),
    "another view": (lambda a: {**a.grads, "b": a.grads["b"][::-1]}, "grads['b']"),
    "part of a view": (lambda a: {**a.grads, "b": a.grads["b"][:3]}, "grads['b']"),
    "a list": (lambda a: {**a.grads, "b": [1, 2]}, "grads['b'] is [1, 2]"),
    "another dtype": (lambda a: {**a.grads, "b": a.grads["b"].view(np.int32)}, "grads['b']"),
}


@on_each_backend
@pytest.mark.parametrize("name", FOREIGN)
def test_other_gradients_are_refused(name: str, backend: str) -> None:
    arena = fs.Arena({"w": ones(2, 3), "b": ones(4)})
    opt = fs.AdamW(arena, backend=backend)
    arena.buffers["float32"].g[...] = 1
    opt.step()
    before = pickle.dumps((arena, opt.state_dict()))
    make, message = FOREIGN[name]
    several: list[dict[str, Any]] = [{}, {"max_norm": 1.0, "zero_grads": True}]
    for asked in several:
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            opt.step(make(arena), **asked)
        assert re.search(
            r"write into that: `arena\.grads\['[wb]'\]\[...\] = value`", str(caught.value)
        )
    assert pickle.dumps((arena, opt.state_dict())) == before
    assert opt.step().t == 2


def test_gradients_of_another_structure_are_refused() -> None:
    arena = fs.Arena({"w": ones(2), "b": ones(4)})
    opt = fs.SGD(arena)
    with pytest.raises(KeyError, match="grads lacks 'b'"):
        opt.step({"w": arena.grads["w"]})
    with pytest.raises(TypeError, match="pass a mapping"):
        opt.step([*arena.grads.values()])


# ---- tuples ----


class Layer(NamedTuple):
    w: Any
    b: Any

    @property
    def size(self) -> int:
        return int(self.w.size + self.b.size)


def test_tuples_allow_what_keeps_the_view() -> None:
    arena = fs.Arena([(ones(2), ones(3)), Layer(ones(2), ones(1))])
    arena.grads[0][1] += 2
    arena.grads[1].w += 3
    arena.grads[1][1] -= 1
    arena.grads[0][:] = arena.grads[0]
    assert [leaf.tolist() for leaf in leaves(arena.grads)] == [[0, 0], [2, 2, 2], [3, 3], [-1]]
    assert isinstance(arena.grads[0], tuple)
    assert isinstance(arena.grads[1], Layer)
    assert arena.params[1].size == 3
    w, _ = arena.params[1]
    assert arena.params[1].w is w
    assert repr(fs.Arena(Layer(np.zeros(1), np.ones(1))).params) == (
        "Layer(w=array([0.]), b=array([1.]))"
    )


def test_tuples_refuse_what_would_replace_a_view() -> None:
    arena = fs.Arena([(ones(2), ones(3)), Layer(ones(2), ones(1))])
    with pytest.raises(TypeError, match=re.escape("`params[0][1][...] = value`")):
        arena.params[0][1] = ones(3)
    with pytest.raises(TypeError, match=re.escape("params[0][...] = ... of another length")):
        arena.params[0][:] = []
    with pytest.raises(AttributeError, match=re.escape("`grads[1].w[...] = value`")):
        arena.grads[1].w = ones(2)
    with pytest.raises(AttributeError, match=re.escape("grads[1] has no 'v'; it has 'w', 'b'")):
        arena.grads[1].v = ones(2)


def test_copies_of_tuples_are_plain() -> None:
    arena = fs.Arena([(ones(2), ones(3)), Layer(ones(2), ones(1))])
    pair, layer = arena.params
    ways: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy]
    ways.append(lambda views: pickle.loads(pickle.dumps(views)))
    for way in ways:
        assert type(way(pair)) is tuple
        assert type(way(layer)) is Layer
        assert [leaf.tolist() for leaf in way(layer)] == [[1, 1], [1]]
    assert type(layer._replace(w=ones(3))) is Layer
    assert type(type(layer)(1, 2)) is Layer
    assert type(type(layer)._make([1, 2])) is Layer
    assert type(type(pair)([1, 2])) is tuple
    assert type(type(arena.params)([1, 2])) is list
    assert type(pair[:1]) is tuple


def test_fields_may_have_any_name() -> None:
    names = ["parts", "guarding", "kind", "name", "count", "index", "items", "keys", "copy", "put"]
    kind = namedtuple("Many", names)  # type: ignore[misc]
    arena = fs.Arena(kind(*(np.full(1, k, np.float32) for k in range(len(names)))))
    for k, name in enumerate(names):
        view = getattr(arena.params, name)
        view += 1
        assert arena.params[k] is view
        assert view.tolist() == [k + 1]
    assert type(arena.plain.params) is kind
    assert type(copy.copy(arena.params)) is kind


def test_the_order_of_ordered_dictionaries_stays() -> None:
    arena = fs.Arena(OrderedDict(w=ones(2), b=ones(3)))
    with pytest.raises(TypeError, match=r"move_to_end\(\) would change .*`params\['w'\]"):
        arena.params.move_to_end("w")
    with pytest.raises(TypeError, match=r"popitem\(\)"):
        arena.params.popitem(last=False)
    assert isinstance(arena.params, OrderedDict)
    for made in (arena.params.copy(), copy.deepcopy(arena.params), arena.params | {"a": 1}):
        assert type(made) is OrderedDict
        assert [*made][:2] == ["w", "b"]
    assert type(pickle.loads(pickle.dumps(arena.params))) is OrderedDict


@pytest.mark.parametrize("way", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
def test_copies_of_arenas_keep_the_structure(way: Any) -> None:
    arena = fs.Arena([(ones(2),), Layer(ones(2), ones(1)), OrderedDict(w=ones(1))])
    made = way(arena)
    assert repr(kinds(made.params)) == repr(kinds(arena.params))
    made.grads[1].w += 1
    fs.SGD(made, lr=1.0).step()
    assert made.params[1].w.tolist() == [0, 0]
    assert arena.params[1].w.tolist() == [1, 1]


def test_a_type_of_a_functions_own_is_a_tuple_after_a_pickle() -> None:
    class Own(NamedTuple):
        w: Any

    arena = fs.Arena([Own(ones(2))])
    opt = fs.SGD([Own(ones(2))], lr=1.0)
    assert type(pickle.loads(pickle.dumps(arena)).plain.params[0]) is tuple
    assert type(copy.deepcopy(arena).plain.params[0]) is Own
    pickle.loads(pickle.dumps(opt)).step([[ones(2)]])


# ---- plain views, and gradients from elsewhere ----


def test_plain_views_are_the_views_in_containers_of_the_users() -> None:
    arena = nested()
    params, grads = arena.plain
    assert type(params) is type(grads["layers"][0]) is dict
    assert type(params["layers"]) is list
    for own, views in ((params, arena.params), (grads, arena.grads)):
        assert all(one is other for one, other in zip(leaves(own), leaves(views), strict=True))
    params["layers"] = []
    assert len(arena.plain.params["layers"]) == 1
    assert fs.Arena(ones(2)).plain.params.shape == (2,)
    with pytest.raises(AttributeError):
        arena.plain = 1  # type: ignore[misc, assignment]


def test_gradients_from_elsewhere_are_copied() -> None:
    arena = fs.Arena({"w": np.asfortranarray(ones(2, 3)), "b": ones(4)})
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    arena.set_grads({"b": np.full(8, 2, np.float32)[::2], "w": w})
    np.testing.assert_array_equal(arena.grads["w"], w)
    assert arena.grads["b"].tolist() == [2] * 4
    arena.set_grads(arena.grads)
    arena.set_grads(arena.params)
    assert all((g == 1).all() for g in leaves(arena.grads))


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"w": ones(2)}, "grads lacks 'b'"),
        ({"w": ones(2), "b": None}, r"grads\['b'\] is None; .* pass zeros"),
        ({"w": ones(2), "b": ones(4)}, r"grads\['b'\] has shape \(4,\), its parameter \(3,\)"),
        ({"w": ones(2), "b": np.ones(3)}, r"grads\['b'\] has dtype .* its parameter float32"),
        ({"w": ones(2), "b": [1, 2, 3]}, r"grads\['b'\] is \[1, 2, 3\]"),
        ([ones(2), ones(3)], "pass a mapping"),
    ],
)
def test_gradients_that_do_not_fit_change_nothing(grads: Any, message: str) -> None:
    arena = fs.Arena({"w": ones(2), "b": ones(3)})
    with pytest.raises((TypeError, ValueError, KeyError), match=message):
        arena.set_grads(grads)
    assert not arena.buffers["float32"].g.any()


def test_gradients_that_the_copy_would_overwrite_are_refused() -> None:
    arena = fs.Arena({"w": ones(2), "b": ones(2)})
    with pytest.raises(ValueError, match=r"grads\['w'\] shares memory with arena\.grads\['b'\]"):
        arena.set_grads({"w": arena.grads["b"], "b": arena.grads["w"]})
