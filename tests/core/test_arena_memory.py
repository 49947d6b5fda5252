"""Structures of an arena, and where their leaves lie in its buffers."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from arenas import address, assert_same, assert_same_state, kinds, leaves, write
from cases import DTYPES, differing_bits, ones, ordinary
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import on_each_backend

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


class Layer(NamedTuple):
    w: Any
    b: Any


STRUCTURES: dict[str, tuple[Callable[[], Any], Any]] = {
    "array": (lambda: ones(2, 3), "a"),
    "scalar": (lambda: ones(), "a"),
    "list": (lambda: [ones(2), ones(3)], ["a", "a"]),
    "tuple": (lambda: (ones(2), ones(3)), ("a", "a")),
    "named tuple": (lambda: Layer(ones(2), ones(3)), Layer("a", "a")),
    "ordered": (lambda: OrderedDict(w=ones(2), b=ones(3)), OrderedDict(w="a", b="a")),
    "generator": (lambda: (ones(n) for n in (2, 3)), ["a", "a"]),
    "mapping": (lambda: {"w": ones(2), 7: ones(3)}, {"w": "a", 7: "a"}),
    "nested": (
        lambda: {"layers": [Layer(ones(2), ones(3)), {"w": ones(0)}], "scale": ones()},
        {"layers": [Layer("a", "a"), {"w": "a"}], "scale": "a"},
    ),
    "groups": (
        lambda: [{"params": ones(2), "lr": 0.1}, {"params": {"w": ones(3)}}],
        ["a", {"w": "a"}],
    ),
    "called params": (lambda: {"params": ones(2)}, {"params": "a"}),
    "empty array": (lambda: ones(0), "a"),
    "with nothing in it": (lambda: [ones(2), [], {}], ["a", [], {}]),
}


@on_each_backend
@pytest.mark.parametrize("name", STRUCTURES)
def test_structures(name: str, backend: str) -> None:
    make, expected = STRUCTURES[name]
    arena = fs.Arena(make())
    for views in (arena.params, arena.grads, arena.plain.params, arena.plain.grads):
        assert repr(kinds(views)) == repr(expected)  # dicts of any type are equal otherwise
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


@on_each_backend
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
