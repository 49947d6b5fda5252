"""Arrays that a user gets: views, so that what is done to the objects changes no step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import pytest
from arenas import assert_same, assert_same_state, leaves
from cases import ordinary
from marks import on_each_backend

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]

SHAPES = [(6,), (2, 3), (4, 6)]


def owner(array: Array) -> Array:
    """The array that has the memory under another one, at the end of `base`."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def assign(name: str, value: Any) -> Callable[[Array], None]:
    return lambda array: setattr(array, name, value)


MUTATIONS: dict[str, Callable[[Array], Any]] = {
    "flattened": assign("shape", -1),
    "turned": lambda array: setattr(array, "shape", array.shape[::-1]),
    "one more axis": lambda array: setattr(array, "shape", (1, *array.shape)),
    "doubles": assign("dtype", np.float64),
    "whole numbers": assign("dtype", np.int32),
    "bytes": assign("dtype", np.uint8),
    "foreign bytes": assign("dtype", ">f4"),
    "read-only": lambda array: array.setflags(write=False),
    "read-only by flag": lambda array: setattr(array.flags, "writeable", False),
    "misaligned": lambda array: array.setflags(align=False),
    "resized": lambda array: array.resize(1000, refcheck=False),
    "owner shaped": lambda array: setattr(owner(array), "shape", (1, -1)),
    "owner typed": lambda array: setattr(owner(array), "dtype", np.uint8),
    "owner read-only": lambda array: owner(array).setflags(write=False),
    "owner resized": lambda array: owner(array).resize(1 << 20, refcheck=False),
    "owner emptied": lambda array: owner(array).resize(0, refcheck=False),
}
"""Changes of an array object, by what it is then; NumPy refuses some of them."""


def mutate(mutation: str, arrays: Iterator[Array]) -> None:
    for array in arrays:
        with suppress(AttributeError, TypeError, ValueError):
            MUTATIONS[mutation](array)


def params() -> list[Array]:
    rng = np.random.default_rng(0)
    w, b, c = (ordinary(rng, int(np.prod(n)), np.float32).reshape(n) for n in SHAPES)
    return [w, np.asfortranarray(b), c[:, ::2]]


def grads() -> list[Array]:
    rng = np.random.default_rng(1)
    return [np.asarray(rng.standard_normal(p.shape, np.float32)) for p in params()]


def states(opt: fs.Optimizer) -> Iterator[Array]:
    for state in opt.state:
        for letter in state:
            if letter != "t":
                yield state[letter]


@on_each_backend
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_state_stays_as_it_is(mutation: str, backend: str) -> None:
    ours, theirs = params(), params()
    left, alone = (
        fs.AdamW(each, ema=0.9, amsgrad=True, backend=backend) for each in (ours, theirs)
    )
    for _ in range(2):
        mutate(mutation, states(left))
        for opt in (left, alone):
            opt.step(grads())
        mutate(mutation, states(left))
        assert_same_state(left.state_dict(), alone.state_dict())
        left.load_state_dict(alone.state_dict())
    mutate(mutation, states(left))
    copied, own = copy.deepcopy((left, ours))
    copied.step(grads())
    alone.step(grads())
    assert_same(own, theirs)
    assert_same_state(copied.state_dict(), alone.state_dict())
    assert [a.shape for a in states(left)] == [a.shape for a in states(alone)]
    assert all(a.dtype == np.float32 and a.flags.writeable for a in states(left))


def given_out(arena: fs.Arena) -> Iterator[Array]:
    yield from leaves(arena.params)
    yield from leaves(arena.grads)
    for buffer in arena.buffers.values():
        yield buffer.p
        yield buffer.g


@on_each_backend
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_an_arena_stays_as_it_is(mutation: str, backend: str) -> None:
    left, alone = fs.Arena(params()), fs.Arena(params())
    for arena in (left, alone):
        for view, g in zip(leaves(arena.grads), grads(), strict=True):
            view[...] = g
    mutate(mutation, given_out(left))
    opts = [fs.AdamW(arena, nonfinite="skip", backend=backend) for arena in (left, alone)]
    for _ in range(2):
        mutate(mutation, given_out(left))
        for opt in opts:
            opt.step(max_norm=1.0)
    opts[0].step(left.grads)
    opts[1].step(alone.grads)
    assert repr(left) == repr(alone)
    for way in (copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))):
        one, other = map(way, opts)
        assert_same(one.arena.params, other.arena.params)
        assert_same(one.arena.grads, other.arena.grads)
        assert_same_state(one.state_dict(), other.state_dict())
        one.step(max_norm=1.0)
        other.step(max_norm=1.0)
        assert_same(one.arena.params, other.arena.params)


def test_what_is_given_out_is_live() -> None:
    opt = fs.SGD([np.zeros(3)], lr=1.0, momentum=0.5)
    held, again = opt.state[0]["b"], opt.state[0]["b"]
    assert held is not again
    opt.step([np.ones(3)])
    again *= 4
    assert held.tolist() == [4, 4, 4]
    opt.step([np.zeros(3)])
    assert held.tolist() == [2, 2, 2]


class Baseless(np.ndarray[Any, Any]):
    """An array that hides what it is a view of."""

    base = property(lambda self: None)


PARAMETERS: dict[str, Callable[[Array], Array]] = {
    "a part": lambda whole: whole[20:30],
    "a part of a part": lambda whole: whole[::2].reshape(2, -1)[:, 5:],
    "a subclass": lambda whole: whole[20:30].view(np.recarray)[2:],
    "a subclass that hides it": lambda whole: whole.view(Baseless)[20:30].view(Baseless)[2:],
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_memory_of_parameters_cannot_be_moved(name: str) -> None:
    """The array of which they are views is not resized; without the optimizer it is.

    A parameter that is a view of nothing may be resized: the next step notices.
    """
    whole = np.zeros(100, np.float32)
    p = PARAMETERS[name](whole)
    opt = fs.SGD([np.zeros(1), p], lr=1.0)
    for size in (0, 10, 1 << 20):
        with pytest.raises(ValueError, match="cannot resize"):
            whole.resize(size, refcheck=False)
    opt.step([None, np.ones(p.shape, np.float32)])
    assert (np.asarray(p) == -1).all()
    del opt, p
    whole.resize(10, refcheck=False)


def test_the_memory_of_state_cannot_be_moved() -> None:
    """NumPy itself refuses it, for as long as there is an optimizer to be hurt by it."""
    opt = fs.SGD([np.zeros(300)], momentum=0.5)
    memory = owner(opt.state[0]["b"])
    for size in (0, 10, 1 << 20):
        with pytest.raises(ValueError, match="cannot resize"):
            memory.resize(size, refcheck=False)
    arena = fs.Arena([np.zeros(300)])
    for view in given_out(arena):
        with pytest.raises(ValueError, match="cannot resize"):
            owner(view).resize(0, refcheck=False)
