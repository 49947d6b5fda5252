"""An arena steps with the same bits as a list of the same arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pytest
from arenas import assert_same, assert_same_state, write
from cases import (
    CUSTOM_WHOLE_CASES,
    DTYPES,
    WHOLE_CASES,
    Case,
    difficult,
    difficult_but_finite,
    ordinary,
)
from marks import COMPILING, for_each, for_each_dtype, on_each_backend, on_each_compiled_backend

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]

SHAPES: list[tuple[int, ...]] = [(3,), (), (4, 5), (0,), (2, 0, 3), (1,), (7, 3, 5), (1027,)]


def assert_same_steps(case: Case, backend: str, dtype: Any, make: Any, shapes: Any) -> None:
    """An arena against the reference over the same arrays, in a list or, for a norm, as one."""
    rng = np.random.default_rng(3)

    def some() -> list[Array]:
        return [make(rng, int(np.prod(shape)), dtype).reshape(shape) for shape in shapes]

    def flat(arrays: list[Array]) -> list[Array]:
        return [np.concatenate([array.reshape(-1) for array in arrays])]

    params = some()
    whole = "max_norm" in case.request
    expected = flat(params) if whole else [p.copy() for p in params]
    arena = fs.Arena(params)
    opt = case.optimizer(arena, backend=backend, **case.options)
    reference = case.optimizer(expected, backend="numpy", **case.options)
    for _ in range(3):
        values = some()
        write(arena.grads, values)
        grads = flat(values) if whole else values
        assert opt.step(**case.request) == reference.step(grads, **case.request)
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
    return difficult_but_finite if "max_norm" in case.request else difficult


@for_each_dtype
@on_each_compiled_backend
@for_each(WHOLE_CASES)
def test_the_same_bits(case: Case, backend: str, dtype: Any) -> None:
    assert_same_steps(case, backend, dtype, values_for(case), SHAPES)


@for_each_dtype
@for_each([case for case in WHOLE_CASES if case.name.split("-")[0] in ("nesterov", "adamw")])
def test_the_same_bits_on_the_reference(case: Case, dtype: Any) -> None:
    assert_same_steps(case, "numpy", dtype, values_for(case), SHAPES)


@for_each_dtype
@pytest.mark.parametrize("backend", COMPILING)
@for_each([case for case in CUSTOM_WHOLE_CASES if case.name.endswith(("-ema", "-whole"))])
def test_the_same_bits_for_custom_rules(case: Case, backend: str, dtype: Any) -> None:
    assert_same_steps(case, backend, dtype, values_for(case), SHAPES)


@on_each_compiled_backend
@for_each([case for case in WHOLE_CASES if case.name in ("adamw-ema", "adamw-whole")])
def test_the_same_bits_with_threads(case: Case, backend: str, threads: int) -> None:
    shapes = [(97,)] * 1000 + [(50_003,), (3,)]
    assert_same_steps(case, backend, np.float32, ordinary, shapes)


@on_each_backend
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
    assert len(opt.layout.rows) == 4
    assert len(opt.layout.cohorts) == 4


@on_each_backend
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
