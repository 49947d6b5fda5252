"""Arenas: the same bits as a list of the same arrays, and views that cannot be replaced."""

from __future__ import annotations

import copy
import json
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from cases import (
    BASES,
    DTYPES,
    OWN_WHOLE_CASES,
    WHOLE_CASES,
    Case,
    differing_bits,
    difficult,
    difficult_but_finite,
    ordinary,
)
from conftest import (
    ENGINES,
    for_each,
    for_each_dtype,
    needs_c,
    on_each_compiled_engine,
    on_each_engine,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedstep as fs
from fusedstep.schedules import cosine

Array: TypeAlias = np.ndarray[Any, Any]

SHAPES: list[tuple[int, ...]] = [(3,), (), (4, 5), (0,), (2, 0, 3), (1,), (7, 3, 5), (1027,)]


def leaves(structure: Any) -> Iterator[Any]:
    """The arrays of a structure in order."""
    if isinstance(structure, np.ndarray):
        yield structure
    else:
        for item in structure.values() if isinstance(structure, dict) else structure:
            yield from leaves(item)


def write(views: Any, values: Any) -> None:
    for view, value in zip(leaves(views), leaves(values), strict=True):
        view[...] = value


def assert_same(found: Any, expected: Any) -> None:
    """The same bits, in structures of the same arrays."""
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        assert differing_bits(one, other) == 0


def assert_same_state(found: Any, expected: Any) -> None:
    """Of state dicts and parts of them, with the same types throughout."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same_state(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same_state(one, other)
    elif isinstance(expected, np.ndarray):
        assert differing_bits(found, expected) == 0
    else:
        assert found == expected


# ---- the same bits as without it ----


def assert_same_steps(case: Case, backend: str, dtype: Any, make: Any, shapes: Any) -> None:
    """An arena against the reference over the same arrays, in a list or, for a norm, as one."""
    rng = np.random.default_rng(3)

    def some() -> list[Array]:
        return [make(rng, int(np.prod(shape)), dtype).reshape(shape) for shape in shapes]

    def flat(arrays: list[Array]) -> list[Array]:
        return [np.concatenate([array.reshape(-1) for array in arrays])]

    params = some()
    whole = "max_norm" in case.asked
    expected = flat(params) if whole else [p.copy() for p in params]
    arena = fs.Arena(params)
    opt = case.optimizer(arena, backend=backend, **case.options)
    reference = case.optimizer(expected, backend="numpy", **case.options)
    for _ in range(3):
        values = some()
        write(arena.grads, values)
        grads = flat(values) if whole else values
        assert opt.step(**case.asked) == reference.step(grads, **case.asked)
        found = [arena.buffers[np.dtype(dtype).name].g] if whole else arena.grads
        assert_same(found, grads)  # zeroed or as they were
    found, states = arena.params, opt.state_dict()["state"]
    if whole:
        found = flat(found)
        letters = states[0].keys() - {"t"}
        one = {letter: flat([state[letter] for state in states])[0] for letter in letters}
        states = [{**one, "t": states[0]["t"]}]
    assert_same(found, expected)
    assert_same_state(states, reference.state_dict()["state"])


def values_for(case: Case) -> Any:
    return difficult_but_finite if "max_norm" in case.asked else difficult


@for_each_dtype
@on_each_compiled_engine
@for_each(WHOLE_CASES)
def test_the_same_bits(case: Case, backend: str, dtype: Any) -> None:
    assert_same_steps(case, backend, dtype, values_for(case), SHAPES)


@for_each_dtype
@for_each([case for case in WHOLE_CASES if case.name.split("-")[0] in ("nesterov", "adamw")])
def test_the_same_bits_on_the_reference(case: Case, dtype: Any) -> None:
    assert_same_steps(case, "numpy", dtype, values_for(case), SHAPES)


@for_each_dtype
@pytest.mark.parametrize("backend", ENGINES)
@for_each([case for case in OWN_WHOLE_CASES if case.name.endswith(("-ema", "-whole"))])
def test_the_same_bits_for_rules_of_ones_own(case: Case, backend: str, dtype: Any) -> None:
    assert_same_steps(case, backend, dtype, values_for(case), SHAPES)


@on_each_compiled_engine
@for_each([case for case in WHOLE_CASES if case.name in ("adamw-ema", "adamw-whole")])
def test_the_same_bits_with_threads(case: Case, backend: str, threads: int) -> None:
    shapes = [(97,)] * 1000 + [(50_003,), (3,)]
    assert_same_steps(case, backend, np.float32, ordinary, shapes)


@on_each_engine
def test_dtypes_and_groups_among_each_other(backend: str) -> None:
    """Each dtype of each group is one row, whatever the order."""
    rng = np.random.default_rng(4)
    arrays = [ordinary(rng, n, DTYPES[n % 2]) for n in (5, 4, 1, 0, 7, 30, 2, 9)]

    def groups(arrays: list[Array]) -> Any:
        return [
            {"params": arrays[:5]},
            {"params": {"w": arrays[5], "b": arrays[6:]}, "lr": 0.1, "amsgrad": True},
        ]

    plain = [p.copy() for p in arrays]
    arena = fs.Arena(groups(arrays))
    opt = fs.AdamW(arena, lr=1e-2, backend=backend)
    reference = fs.AdamW(groups(plain), lr=1e-2, backend="numpy")
    for _ in range(3):
        grads = [ordinary(rng, p.size, p.dtype) for p in plain]
        given = [grads[:5], {"w": grads[5], "b": grads[6:]}]
        write(arena.grads, given)
        assert opt.step() == reference.step(given)
        opt.lr = reference.lr = 0.05
    assert_same(arena.params, plain)
    assert_same_state(opt.state_dict(), reference.state_dict())
    assert len(opt._plan.rows) == 4
    assert len(opt._cohorts) == 4


@on_each_engine
def test_a_step_that_is_asked_for_more_between_those_that_are_not(backend: str) -> None:
    arena = fs.Arena([np.zeros(3), np.zeros(4)])
    opt = fs.SGD(arena, lr=1.0, backend=backend)
    steps: list[tuple[dict[str, Any], float]] = [
        ({}, -2.0),
        ({"scale": 2}, -3.0),
        ({"max_value": 0.5}, -3.5),
        ({}, -5.5),
    ]
    for asked, p in steps:
        arena.buffers["float64"].g[...] = 2
        opt.step(**asked)
        assert (arena.buffers["float64"].p == p).all()
    assert opt.step(max_norm=1e9, zero_grads=True).grad_norm == pytest.approx(2 * 7**0.5)
    assert not arena.buffers["float64"].g.any()


# ---- structures and layouts ----


class Layer(NamedTuple):
    w: Array
    b: Array


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


STRUCTURES: dict[str, tuple[Callable[[], Any], Any]] = {
    "array": (lambda: ones(2, 3), "a"),
    "scalar": (lambda: ones(), "a"),
    "list": (lambda: [ones(2), ones(3)], ["a", "a"]),
    "tuple": (lambda: Layer(ones(2), ones(3)), ["a", "a"]),
    "generator": (lambda: (ones(n) for n in (2, 3)), ["a", "a"]),
    "mapping": (lambda: {"w": ones(2), 7: ones(3)}, {"w": "a", 7: "a"}),
    "nested": (
        lambda: {"layers": [Layer(ones(2), ones(3)), {"w": ones(0)}], "scale": ones()},
        {"layers": [["a", "a"], {"w": "a"}], "scale": "a"},
    ),
    "groups": (
        lambda: [{"params": ones(2), "lr": 0.1}, {"params": {"w": ones(3)}}],
        ["a", {"w": "a"}],
    ),
    "called params": (lambda: {"params": ones(2)}, {"params": "a"}),
    "empty array": (lambda: ones(0), "a"),
    "with nothing in it": (lambda: [ones(2), [], {}], ["a", [], {}]),
}


def kinds(structure: Any) -> Any:
    if isinstance(structure, np.ndarray):
        return "a"
    if isinstance(structure, dict):
        return {key: kinds(item) for key, item in structure.items()}
    assert isinstance(structure, list)
    return [kinds(item) for item in structure]


@on_each_engine
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str, backend: str) -> None:
    make, expected = STRUCTURES[name]
    arena = fs.Arena(make())
    assert kinds(arena.params) == kinds(arena.grads) == expected
    opt = fs.SGD(arena, lr=0.25, momentum=0.5, backend=backend)
    assert not any(g.any() for g in leaves(arena.grads))
    assert all((p == 1).all() for p in leaves(arena.params))
    for g in leaves(arena.grads):
        g[...] = 1
    rates = [group["lr"] for group in opt.param_groups]
    opt.step()
    opt.step(arena.grads)
    assert rates == ([0.1, 0.25] if name == "groups" else [0.25])
    steps = iter(leaves(arena.params))
    for group in opt.param_groups:
        for view in group["params"]:
            assert next(steps) is view
            assert view == pytest.approx(1 - 2.5 * group["lr"])
    state = fs.SGD(make(), lr=0.25, momentum=0.5).state
    assert json.dumps(opt.state, default=lambda s: [*s]) == json.dumps(
        state, default=lambda s: [*s]
    )


def test_the_given_arrays_are_copied() -> None:
    p = ones(3)
    arena = fs.Arena(p)
    fs.SGD(arena, lr=1.0)
    arena.params[...] = 5
    assert (p == 1).all()


def test_values_may_come_from_what_cannot_be_written() -> None:
    p = ones(3)
    p.flags.writeable = False
    arena = fs.Arena([p, np.broadcast_to(np.float32(2), (2, 4))])
    np.testing.assert_array_equal(arena.buffers["float32"].p, [1] * 3 + [2] * 8)
    assert all(view.flags.writeable for view in leaves(arena.params))


LAYOUTS: dict[str, tuple[Callable[[], Array], list[int]]] = {
    "C": (lambda: ones(2, 3, 4), [48, 16, 4]),
    "Fortran": (lambda: np.asfortranarray(ones(2, 3, 4)), [4, 8, 24]),
    "transposed": (lambda: ones(3, 4, 2).transpose(2, 0, 1), [4, 32, 8]),
    "gaps": (lambda: ones(4, 9, 8)[::2, ::3, ::2], [48, 16, 4]),
    "transposed gaps": (lambda: ones(8, 6, 6).T[::3, ::2, ::2], [4, 8, 24]),
    "reversed": (lambda: ones(2, 3, 4)[:, ::-1], [48, -16, 4]),
}


@on_each_engine
@pytest.mark.parametrize("name", LAYOUTS)
def test_views_lie_as_their_parameters(name: str, backend: str) -> None:
    make, strides = LAYOUTS[name]
    rng = np.random.default_rng(5)
    p = make()
    p[...] = ordinary(rng, p.size, np.float32).reshape(p.shape)
    plain = p.copy()
    arena = fs.Arena([ones(5), p, ones(3)])
    opt = fs.AdamW(arena, lr=0.1, backend=backend)
    reference = fs.AdamW([ones(5), plain, ones(3)], lr=0.1, backend="numpy")
    for view in (arena.params[1], arena.grads[1], opt.state[1]["m"]):
        assert [*view.strides] == strides
        assert view.shape == p.shape
    for _ in range(2):
        values = [ones(5), ordinary(rng, p.size, np.float32).reshape(p.shape), ones(3)]
        write(arena.grads, values)
        opt.step()
        reference.step(values)
    assert differing_bits(arena.params[1], plain) == 0
    assert_same_state(opt.state_dict(), reference.state_dict())


def address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def test_leaves_follow_one_another_in_aligned_buffers() -> None:
    """Without gaps, in the order of the structure; and the state as the parameters."""
    arena = fs.Arena(
        [
            {"params": {"z": ones(3), "a": np.ones(2), "m": ones(5, 2)}},
            {"params": [ones(7), np.ones(1), ones()], "amsgrad": True},
        ]
    )
    opt = fs.Adam(arena)
    assert [*arena.buffers] == ["float32", "float64"]
    for dtype, buffer in arena.buffers.items():
        for flat, views in ((buffer.p, arena.params), (buffer.g, arena.grads)):
            assert address(flat) % 64 == 0
            assert flat.flags.c_contiguous
            assert flat.dtype == dtype
            at = address(flat)
            for view in leaves(views):
                if view.dtype == dtype:
                    assert address(view) == at
                    assert np.shares_memory(view, flat)
                    at += view.nbytes
            assert at == address(flat) + flat.nbytes
    for (one, p), (other, q) in pairwise(
        (state, view)
        for state, view in zip(
            [*opt.state[0].values(), *opt.state[1]], leaves(arena.params), strict=True
        )
        if view.dtype == np.float32
    ):
        assert address(one["m"]) % 64 == address(p) % 64
        if other.keys() == one.keys():
            assert address(other["v"]) - address(one["v"]) == address(q) - address(p)


@pytest.mark.parametrize("holder", [fs.Arena, list])
def test_there_is_one_array_of_state_for_each_letter_group_and_dtype(
    holder: Callable[[Any], Any],
) -> None:
    count = 100
    groups = [
        {"params": [ones(3) for _ in range(count)]},
        {"params": [ones(3) for _ in range(count)], "momentum": 0.9},
        {"params": [np.ones(3) for _ in range(count)], "momentum": 0.9},
    ]
    opt = fs.SGD(holder(groups), ema=0.9)
    bases: dict[int, Array] = {}
    for state in leaves_of_state(opt.state):
        for letter in state.keys() - {"t"}:
            base = state[letter]
            while base.base is not None:
                base = base.base
            bases[id(base)] = base
    assert len(bases) == 5  # three averages and two momentum buffers
    held = sum(base.nbytes for base in bases.values())
    needed = sum(3 * count * n for n in (4, 4, 8, 4, 8))
    padding = 0 if holder is fs.Arena else 5 * count * 60  # to cache lines
    assert needed <= held <= needed + padding + 5 * 4096


def leaves_of_state(state: Any) -> Iterator[Any]:
    if isinstance(state, list):
        for item in state:
            yield from leaves_of_state(item)
    else:
        yield state


SHAPES_OF_ANY = st.lists(st.integers(0, 4), max_size=3).map(tuple)
STRUCTURES_OF_ANY = st.recursive(
    st.tuples(SHAPES_OF_ANY, st.sampled_from(DTYPES), st.sampled_from("CF")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(STRUCTURES_OF_ANY)
def test_any_structure(drawn: Any) -> None:
    rng = np.random.default_rng(6)

    def make(drawn: Any) -> Any:
        if isinstance(drawn, tuple):
            shape, dtype, order = drawn
            values = ordinary(rng, int(np.prod(shape)), dtype).reshape(shape)
            return np.array(values, order=order)
        if isinstance(drawn, dict):
            return {key: make(item) for key, item in drawn.items()}
        return [make(item) for item in drawn]

    params = make(drawn)
    if not [*leaves(params)]:
        with pytest.raises(ValueError, match="params is empty"):
            fs.Arena(params)
        return
    arena = fs.Arena(params)
    assert kinds(arena.params) == kinds(arena.grads) == kinds(params)
    assert_same(arena.params, params)
    opt, plain = fs.AdamW(arena, ema=0.5), fs.AdamW(params, ema=0.5, backend="numpy")
    for _ in range(2):
        grads = make(drawn)
        write(arena.grads, grads)
        assert opt.step() == plain.step(grads)
    assert_same(arena.params, params)
    assert_same_state(opt.state_dict(), plain.state_dict())


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


@on_each_engine
def test_the_views_may_be_passed(backend: str) -> None:
    """In whatever containers, or as other arrays over the same memory."""
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


@on_each_engine
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


# ---- state, and resuming ----


def start(case: Case, arena: bool) -> tuple[Any, Any]:
    rng = np.random.default_rng(7)
    params = {
        "w": ordinary(rng, 12, np.float32).reshape(3, 4).T,
        "b": [ordinary(rng, 9, np.float64)],
    }
    made: Any = fs.Arena(params) if arena else params
    return made, case.optimizer(made, **case.options)


def run(params: Any, opt: Any, seed: int, asked: Any) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(3):
        grads = {
            "w": ordinary(rng, 12, np.float32).reshape(4, 3),
            "b": [ordinary(rng, 9, np.float64)],
        }
        if isinstance(params, fs.Arena):
            write(params.grads, grads)
            opt.step(**asked)
        else:
            opt.step(grads, **asked)


@for_each([case for case in WHOLE_CASES if "max_norm" not in case.asked][::2])
def test_a_state_dict_goes_there_and_back(case: Case) -> None:
    """From arrays into an arena, from there into arrays, as if all had been arrays."""
    expected, reference = start(case, arena=False)
    for seed in range(3):
        run(expected, reference, seed, case.asked)
    params: Any
    params, opt = start(case, arena=False)
    for seed, arena in enumerate((False, True, False)):
        values, state_dict = params, opt.state_dict()
        params, opt = start(case, arena)
        if seed:
            write(params.params if arena else params, values)
            opt.load_state_dict(pickle.loads(pickle.dumps(state_dict)))
        run(params, opt, seed, case.asked)
        if arena:
            assert_same_state(
                opt.state_dict()["param_groups"], reference.state_dict()["param_groups"]
            )
            params = params.params
    assert_same(params, expected)
    assert_same_state(opt.state_dict(), reference.state_dict())


def test_state_is_live_and_by_parameter() -> None:
    arena = fs.Arena({"w": np.asfortranarray(ones(2, 3)), "b": ones(4)})
    opt = fs.SGD(arena, lr=1.0, momentum=1.0)
    arena.grads["b"][...] = 1
    opt.step()
    assert opt.state["w"]["b"].shape == (2, 3)
    assert opt.state["w"]["b"].flags.f_contiguous
    assert opt.state["b"]["b"].tolist() == [1, 1, 1, 1]
    opt.state["b"]["b"][...] = 5
    arena.grads["b"][...] = 0
    opt.step()
    assert arena.params["b"].tolist() == [-5, -5, -5, -5]
    assert (arena.params["w"] == 1).all()
    assert opt.state["b"]["t"] == 2
    with pytest.raises(TypeError):
        opt.state["b"]["b"] = ones(4)


def differing_t(params: Any, opt: Any, t: list[int]) -> None:
    rng = np.random.default_rng(8)
    state_dict = opt.state_dict()
    for state, steps in zip(state_dict["state"], t, strict=True):
        state["t"] = steps
        state["m"][...] = ordinary(rng, state["m"].size, state["m"].dtype)
    opt.load_state_dict(state_dict)


@on_each_engine
@pytest.mark.parametrize(
    ("t", "rows"),
    [([3, 3, 3, 3, 3], 2), ([1, 1, 4, 4, 4], 4), ([4, 4, 1, 4, 4], 4), ([5, 4, 3, 2, 1], 5)],
)
def test_neighbours_of_the_same_t_are_one_row(t: list[int], rows: int, backend: str) -> None:
    """With one job for each t, whose scalars are its own."""
    rng = np.random.default_rng(9)
    params = [
        ordinary(rng, n, dtype)
        for n, dtype in zip((3, 4, 50, 0, 7), [*DTYPES, *DTYPES, np.float32], strict=True)
    ]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    opt = fs.AdamW(arena, nonfinite="skip", backend=backend)
    reference = fs.AdamW(plain, nonfinite="skip", backend="numpy")
    arena.buffers["float32"].g[...] = 0
    opt.step()
    differing_t(arena.params, opt, t)
    differing_t(plain, reference, t)
    write(arena.params, plain)
    for step in range(3):
        grads = [ordinary(rng, p.size, p.dtype) for p in plain]
        grads[2][:step] = np.nan
        write(arena.grads, grads)
        assert opt.step() == reference.step(grads)
    assert_same(arena.params, plain)
    assert_same_state(opt.state_dict(), reference.state_dict())
    assert [state["t"] for state in opt.state] == [k + 1 for k in t]
    assert len(opt._plan.rows) == rows
    assert len(opt._cohorts) == len({(k, p.dtype) for k, p in zip(t, plain, strict=True)})


def test_options_that_need_state_switch_on_and_off() -> None:
    rng = np.random.default_rng(10)
    params = [ordinary(rng, n, np.float32) for n in (5, 9, 2)]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    both: list[Any] = [fs.RMSprop(arena), fs.RMSprop(plain)]
    without = [opt.state_dict() for opt in both]

    def steps() -> None:
        for _ in range(2):
            grads = [ordinary(rng, p.size, np.float32) for p in plain]
            write(arena.grads, grads)
            assert both[0].step() == both[1].step(grads)
        assert_same(arena.params, plain)
        assert_same_state(*(opt.state_dict() for opt in both))

    steps()
    for options in (
        {"momentum": 0.9, "centered": True},
        {"ema": 0.8},
        {"momentum": 0.0},
        {"momentum": 0.5},
    ):
        for opt in both:
            opt.param_groups[0].update(options)
        steps()
    for opt, state_dict in zip(both, without, strict=True):
        opt.load_state_dict(state_dict)
        assert [*opt.state[0]] == ["v", "t"]
    steps()
    for opt in both:
        opt.param_groups[0].update(momentum=0.9, ema=0.5)
    steps()
    assert set(both[0].state[0]) == {"v", "b", "ema", "t"}


def test_state_that_only_some_bring_along() -> None:
    """It is theirs; the others begin at zero when their turn comes, also after it was dropped."""
    rng = np.random.default_rng(11)
    params = [ordinary(rng, n, np.float32) for n in (5, 9, 2)]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    both: list[Any] = [fs.Adam(arena, amsgrad=True), fs.Adam(plain, amsgrad=True)]

    def steps() -> None:
        for _ in range(2):
            grads = [ordinary(rng, p.size, np.float32) for p in plain]
            write(arena.grads, grads)
            assert both[0].step() == both[1].step(grads)
        assert_same(arena.params, plain)
        assert_same_state(*(opt.state_dict() for opt in both))

    steps()
    for opt in both:
        opt.param_groups[0]["amsgrad"] = False
        state_dict = opt.state_dict()
        del state_dict["state"][0]["x"], state_dict["state"][2]["x"]
        opt.load_state_dict(state_dict)
        assert [("x" in state) for state in opt.state] == [False, True, False]
    steps()
    for opt in both:
        opt.param_groups[0]["amsgrad"] = True
    steps()


def test_dropped_state_gives_up_its_memory() -> None:
    opt = fs.SGD(fs.Arena([ones(5), ones(3)]))
    plain = opt.state_dict()
    opt.param_groups[0]["momentum"] = 0.9
    opt.step()
    (segment,) = {parameter.shelf for parameter in opt._parameters}
    assert [*segment.states] == ["b"]
    opt.load_state_dict(plain)
    assert [*segment.states] == []


def test_adagrad_starts_from_the_initial_accumulator() -> None:
    opt = fs.Adagrad(fs.Arena([ones(5), np.ones(3)]), initial_accumulator_value=0.25)
    assert all((state["s"] == 0.25).all() for state in opt.state)


# ---- what else a step does ----


@on_each_engine
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_skipped_step_names_the_parameters(bad: float, backend: str) -> None:
    """The user's own, and goes the way of one without that step."""
    rng = np.random.default_rng(12)
    shapes = [(3,), (70, 80), (), (0,), (9,)]
    params = {
        k: ordinary(rng, int(np.prod(s)), DTYPES[k % 2]).reshape(s) for k, s in enumerate(shapes)
    }
    arena = fs.Arena(params)
    opt = fs.AdamW(arena, ema=0.9, nonfinite="skip", backend=backend)
    reference = fs.AdamW(params, ema=0.9, nonfinite="skip", backend="numpy")
    for step in range(4):
        grads = {k: ordinary(rng, p.size, p.dtype).reshape(p.shape) for k, p in params.items()}
        for broken in ([1], [4, 0], []):
            for k in broken:
                grads[k].reshape(-1)[-1] = bad
            write(arena.grads, grads)
            report = opt.step(zero_grads=bool(broken))
            assert report == reference.step(grads, zero_grads=bool(broken))
            assert report.skipped == tuple(f"params[{k}]" for k in sorted(broken))
            assert report.t == step + (not broken)
            assert_same(arena.grads, grads)
    assert_same(arena.params, params)
    assert_same_state(opt.state_dict(), reference.state_dict())


@on_each_engine
def test_raise_names_the_parameters(backend: str) -> None:
    arena = fs.Arena([{"params": {"w": ones(2, 3)}}, {"params": [ones(3), ones(1)]}])
    opt = fs.Adam(arena, nonfinite="raise", backend=backend)
    arena.grads[1][0][1] = np.nan
    before = pickle.dumps((arena, opt.state_dict()))
    with pytest.raises(FloatingPointError, match=r"^grads\[1\]\[0\] held NaN or infinity"):
        opt.step(zero_grads=True)
    assert pickle.dumps((arena, opt.state_dict())) == before


@on_each_engine
def test_what_overflows_unscaled_is_looked_for_by_parameter(backend: str) -> None:
    """A norm over all of them may be too large although each of them fits."""
    large = np.full(1, 2.5e38, np.float32)
    for factor, skipped in ((1.0, ()), (1.3, ("params[1]",))):
        arena = fs.Arena([np.zeros(1, np.float32), np.zeros(1, np.float32)])
        opt = fs.SGD(arena, lr=1.0, nonfinite="skip", backend=backend)
        write(arena.grads, [large, large * np.float32(factor)])
        assert opt.step(scale=0.9).skipped == skipped


@on_each_engine
def test_the_norm_is_that_of_the_buffer(backend: str) -> None:
    """To the bit, as if each group's part of each buffer were one parameter."""
    rng = np.random.default_rng(13)
    sizes = rng.integers(1, 300, 60)
    arena = fs.Arena([ordinary(rng, n, np.float32) for n in sizes])
    write(arena.grads, [ordinary(rng, n, np.float32) for n in sizes])
    flat = arena.buffers["float32"].g
    expected = fs.SGD(np.zeros_like(flat), backend="numpy").step(flat, max_norm=1.0)
    by_parameter = fs.SGD([np.zeros_like(g) for g in arena.grads], backend="numpy").step(
        [*arena.grads], max_norm=1.0
    )
    assert fs.SGD(arena, backend=backend).step(max_norm=1.0) == expected
    assert by_parameter.grad_norm == pytest.approx(expected.grad_norm, rel=1e-15)


def test_schedules() -> None:
    schedule = cosine(0.1, steps=5)
    arena = fs.Arena([{"params": [ones(3), ones(2)], "lr": schedule}, {"params": ones(4)}])
    opt = fs.SGD(arena, lr=lambda t: 1 / t)
    arena.buffers["float32"].g[...] = 1
    for _ in range(3):
        opt.step()
    total = schedule(1) + schedule(2) + schedule(3)
    assert arena.params[0][1] == pytest.approx(1 - total)
    assert arena.params[1] == pytest.approx(1 - (1 + 1 / 2 + 1 / 3))


@on_each_engine
def test_lookahead(backend: str) -> None:
    rng = np.random.default_rng(14)
    params = [ordinary(rng, n, DTYPES[n % 2]) for n in (5, 4, 9, 0)]
    plain = [p.copy() for p in params]
    arena = fs.Arena(params)
    opt = fs.SGD(arena, lr=0.1, momentum=0.9, backend=backend)
    reference = fs.SGD(plain, lr=0.1, momentum=0.9, backend="numpy")
    for _ in range(3):
        with opt.lookahead(), reference.lookahead():
            assert_same(arena.params, plain)
            write(arena.grads, plain)
            grads = [p.copy() for p in plain]
        opt.step()
        reference.step(grads)
        assert_same(arena.params, plain)
    assert len(opt._way.arrays) == 2  # type: ignore[union-attr]


def test_several_optimizers_over_one_arena() -> None:
    arena = fs.Arena([ones(3), ones(2)])
    one, other = fs.SGD(arena, lr=1.0), fs.SGD(arena, lr=0.5, momentum=0.9)
    arena.buffers["float32"].g[...] = 1
    one.step()
    other.step()
    assert (arena.buffers["float32"].p == -0.5).all()
    assert one.arena is other.arena is arena


@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adagrad, fs.RMSprop, fs.Adam, fs.AdamW])
def test_presets(optimizer: Any) -> None:
    options = getattr(fs.presets.keras, optimizer.__name__)
    plain = [ones(3), ones(2)]
    arena = fs.Arena(plain)
    opt, reference = optimizer(arena, **options), optimizer(plain, **options)
    arena.buffers["float32"].g[...] = 1
    for _ in range(2):
        assert opt.step() == reference.step([ones(3), ones(2)])
    assert_same(arena.params, plain)


# ---- copies ----


WAYS = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
}


@on_each_engine
@pytest.mark.parametrize("way", WAYS)
@for_each(BASES[1::4])
def test_a_copy_of_both_stays_together(case: Case, way: str, backend: str) -> None:
    rng = np.random.default_rng(15)
    groups = [
        {
            "params": {
                "w": np.asfortranarray(ordinary(rng, 12, np.float32).reshape(3, 4)),
                "b": np.ones(5),
            }
        },
        {"params": [ordinary(rng, 6, np.float32).reshape(1, 2, 3).transpose(1, 2, 0)], "lr": 0.1},
    ]
    arena = fs.Arena(groups)
    opt = case.optimizer(arena, backend=backend, **case.options)

    def steps(arena: Any, opt: Any, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(2):
            for buffer in arena.buffers.values():
                buffer.g[...] = ordinary(rng, buffer.g.size, buffer.g.dtype)
            opt.step()

    steps(arena, opt, 0)
    opt.param_groups[1]["lr"] = 0.3
    copied, its = WAYS[way]((arena, opt))
    before = pickle.dumps((arena, opt))
    assert its.arena is copied
    for p, q in zip(leaves(arena.params), leaves(copied.params), strict=True):
        assert (p.strides, p.shape, p.dtype) == (q.strides, q.shape, q.dtype)
        buffer = copied.buffers[q.dtype.name]
        assert np.shares_memory(q, buffer.p)
        assert not np.shares_memory(q, p)
        assert address(buffer.p) % 64 == 0
    assert_same(copied.grads, arena.grads)
    views = [view for group in its.param_groups for view in group["params"]]
    assert all(one is other for one, other in zip(views, leaves(copied.params), strict=True))
    assert_same_state(its.state_dict(), opt.state_dict())
    steps(copied, its, 1)
    assert pickle.dumps((arena, opt)) == before
    steps(arena, opt, 1)
    assert_same(copied.params, arena.params)
    assert_same_state(its.state_dict(), opt.state_dict())
    with pytest.raises(TypeError, match=re.escape("grads[1][0] = ")):
        copied.grads[1][0] = ones(2, 3, 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_the_optimizer_brings_its_arena(way: str) -> None:
    arena = fs.Arena({"w": ones(2), "b": np.ones(3)})
    opt = fs.Adam(arena, lr=cosine(0.1, 9), ema=0.5, nonfinite="raise")
    arena.grads["w"][...] = 1
    opt.step()
    copied = WAYS[way](opt)
    assert copied.arena is not arena
    assert_same(copied.arena.params, arena.params)
    copied.step()
    opt.step()
    assert_same(copied.arena.params, arena.params)
    assert_same_state(copied.state_dict(), opt.state_dict())
    copied.arena.grads["b"][0] = np.nan
    with pytest.raises(FloatingPointError, match=re.escape("grads['b']")):
        copied.step()


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_keeps_every_t_and_what_was_switched_off(way: str) -> None:
    opt = fs.Adam(fs.Arena([ones(2), ones(3)]), amsgrad=True)
    opt.step()
    opt.param_groups[0]["amsgrad"] = False
    state_dict = opt.state_dict()
    state_dict["state"][1]["t"] = 7
    opt.load_state_dict(state_dict)
    copied = WAYS[way](opt)
    assert_same_state(copied.state_dict(), opt.state_dict())
    assert copied.step().t == 8


def test_a_shallow_copy_of_the_optimizer_is_refused() -> None:
    with pytest.raises(TypeError, match="a shallow copy would step the same state"):
        copy.copy(fs.SGD(fs.Arena(ones(2))))


# ---- what it costs ----


def calls_of_a_step(step: Callable[[], Any]) -> int:
    """How many functions it calls, Python's and C's, once it has been laid out."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    step()
    step()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
    return calls


@on_each_engine
@pytest.mark.parametrize(
    "asked", [{}, {"max_norm": 1.0, "zero_grads": True}], ids=["bare", "whole"]
)
def test_a_step_costs_what_one_tensor_costs(asked: Any, backend: str) -> None:
    """As many calls for any number of parameters, and one more than for an array."""

    def calls(params: Any, *grads: Any) -> int:
        opt = fs.AdamW(params, nonfinite="skip", backend=backend)
        return calls_of_a_step(lambda: opt.step(*grads, **asked))

    many = calls(fs.Arena([ones(10) for _ in range(1000)]))
    assert many == calls(fs.Arena(ones(10_000)))
    assert many <= calls(ones(10_000), ones(10_000)) + 1


@needs_c
def test_a_step_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep._arrays import overlap
    from fusedstep._backends.c import runner
    from fusedstep._core import arena_stretches

    lib, calls = vars(runner)["lib"], []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(lib, name)

    opt = fs.AdamW(fs.Arena([ones(2) for _ in range(1000)]))
    opt.step()
    assert len(opt._plan.rows) == 1
    monkeypatch.setattr(runner, "lib", Counting())
    monkeypatch.setattr(overlap, "address", None)
    monkeypatch.setattr(arena_stretches, "stretches", None)
    opt.step()
    assert calls == ["fs_take_and_step"]


def test_it_is_laid_out_once() -> None:
    opt = fs.AdamW(fs.Arena([ones(2) for _ in range(3)]), nonfinite="skip")
    opt.step()
    plan = opt._plan
    opt.lr *= 2
    opt.param_groups[0].update(weight_decay=0.1)
    opt.step(max_norm=1.0)
    opt.step(opt.arena.grads)  # type: ignore[union-attr]
    assert opt._plan is plan
    near = []
    for _ in range(2):
        opt.arena.grads[1][0] = np.nan  # type: ignore[union-attr]
        assert opt.step().skipped == ("params[1]",)
        near.append(opt._near)
    assert near[0] is near[1] is not None
    assert opt._plan is plan


# ---- what it does not take ----


@pytest.mark.parametrize("params", [[], {}, [[], {}]])
def test_no_parameters(params: Any) -> None:
    with pytest.raises(ValueError, match="params is empty"):
        fs.Arena(params)


def test_parameters_that_will_not_do() -> None:
    p = ones(4)
    with pytest.raises(TypeError, match=re.escape("params['w'] has dtype '<i8'")):
        fs.Arena({"w": np.arange(3)})
    with pytest.raises(TypeError, match=re.escape("params[0] is 'w'")):
        fs.Arena(["w"])
    with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory"):
        fs.Arena([p, p[2:]])
    with pytest.raises(TypeError, match="masked array"):
        fs.Arena(np.ma.masked_array(p))
    assert (p == 1).all()


def test_an_arena_is_all_that_an_optimizer_has() -> None:
    arena = fs.Arena([ones(4)])
    for params in ([arena], {"a": arena}, [{"params": arena}]):
        with pytest.raises(TypeError, match="<arena of 1 parameters: 4 float32>"):
            fs.SGD(params)


def test_hyperparameters_of_groups_are_checked_by_the_optimizer() -> None:
    arena = fs.Arena([{"params": ones(2), "betas": (0.5, 0.5)}, {"params": ones(1), "lr": -1.0}])
    with pytest.raises(KeyError, match=r"params\[0\]: the unknown hyperparameter 'betas'"):
        fs.SGD(arena)
    with pytest.raises(ValueError, match=r"params\[1\]: lr=-1.0 is negative"):
        fs.Adam(arena)


@pytest.mark.parametrize("backend", ["cuda", "none"])
def test_engines_that_cannot_step_it(backend: str) -> None:
    with pytest.raises(ValueError, match=f"backend='{backend}'"):
        fs.SGD(fs.Arena(ones(2)), backend=backend)
