"""The whole step: the same bits on every backend, and the papers' trajectories."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracle
import pytest
from bits import assert_same_bits, data
from cases import (
    CUSTOM_WHOLE_CASES,
    DTYPES,
    WHOLE_CASES,
    Case,
    differing_bits,
    difficult,
    difficult_but_finite,
    ordinary,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import COMPILING, for_each, for_each_dtype, on_each_backend, on_each_compiled_backend
from trajectories import TOLERANCE, assert_agree, oracle_of, problem, walk

import fusedstep as fs

# Sizes around a lane, a vector, a run that is cut at a cache line, a block of the norm.
SIZES = [0, 1, 3, 17, 33, 65, 1027, 4097]


def values_for(case: Case) -> Any:
    return difficult_but_finite if "max_norm" in case.request else difficult


@for_each_dtype
@for_each(WHOLE_CASES)
def test_the_same_bits_on_each_isa(case: Case, dtype: Any, isa: str) -> None:
    for n in SIZES:
        assert_same_bits(case, *data(n, dtype, values_for(case)), "c")


@for_each_dtype
@for_each(WHOLE_CASES)
def test_the_same_bits_on_numba(case: Case, dtype: Any) -> None:
    for n in SIZES:
        assert_same_bits(case, *data(n, dtype, values_for(case)), "numba")


@for_each_dtype
@pytest.mark.parametrize("backend", COMPILING)
@for_each([case for case in CUSTOM_WHOLE_CASES if case.name.endswith("-whole")])
def test_the_same_bits_for_custom_rules(case: Case, backend: str, dtype: Any) -> None:
    for n in [1, 33, 1027]:
        assert_same_bits(case, *data(n, dtype, difficult_but_finite), backend)


@for_each_dtype
@on_each_compiled_backend
@for_each([case for case in WHOLE_CASES if case.name.endswith("-whole")])
def test_the_same_bits_with_threads(case: Case, backend: str, dtype: Any, threads: int) -> None:
    assert_same_bits(case, *data(100_003, dtype, ordinary), backend)


@on_each_backend
@for_each(WHOLE_CASES)
def test_float64_follows_the_papers(case: Case, backend: str) -> None:
    start, gradients = problem(np.float64)
    actual = walk(case, backend, start, gradients)
    request = {name: value for name, value in case.request.items() if name != "zero_grads"}
    options = dict(case.options)
    options.pop("nonfinite", None)
    ema = options.pop("ema", None)
    expected = oracle_of(case.optimizer)(start, oracle.prepared(gradients, **request), **options)
    if ema is not None:
        expected["ema"] = oracle.averages(start, expected["p"], ema)
    assert_agree(actual, expected, start, TOLERANCE)


def test_the_cases_do_what_they_are_for() -> None:
    """The comparisons above mean something only if gradients are clipped, and some are not."""
    _, gradients = problem(np.float64)
    for bounds in ({"max_norm": 2.5}, {"max_value": 0.7}, {"scale": 0.3, "max_value": 0.8}):
        changed = [
            g != h for g, h in zip(gradients, oracle.prepared(gradients, **bounds), strict=True)
        ]
        assert np.any(changed)


@on_each_backend
def test_many_tensors_at_once(backend: str, threads: int) -> None:
    """The place of a tensor among others changes nothing but the common norm."""
    rng = np.random.default_rng(5)
    sizes = [*rng.integers(0, 200, 100), 50_000, 0, 1, 4096, *rng.integers(0, 6000, 20)]
    start = [ordinary(rng, n, rng.choice(DTYPES)) for n in sizes]
    grads = [None if k % 7 == 3 else ordinary(rng, p.size, p.dtype) for k, p in enumerate(start)]
    results = []
    for name in (backend, "numpy"):
        params = [p.copy() for p in start]
        mine = [None if g is None else g.copy() for g in grads]
        opt = fs.AdamW(params, ema=0.9, nonfinite="raise", backend=name)
        for _ in range(3):
            for g, source in zip(mine, grads, strict=True):
                if g is not None and source is not None:
                    g[...] = source
            report = opt.step(mine, max_norm=10.0, zero_grads=True)
        assert not any(g.any() for g in mine if g is not None)
        results.append((params, [state["ema"] for state in opt.state], report))
    (found, averages, report), (expected, expected_averages, expected_report) = results
    assert report == expected_report
    for pairs in (zip(found, expected, strict=True), zip(averages, expected_averages, strict=True)):
        assert all(differing_bits(x, y) == 0 for x, y in pairs)


SIZE = 9  # of the gradients below, each in a memory of its own of three times as much


def gradients_of_a_step() -> st.SearchStrategy[Any]:
    """Draw for each gradient its layout, whether its memory is new, and whether it is read-only."""
    slices = [slice(0, SIZE), slice(0, 3 * SIZE, 3), slice(SIZE - 1, None, -1)]
    one = st.none() | st.tuples(st.sampled_from(slices), st.booleans(), st.booleans())
    return st.tuples(one, one, one)


@on_each_backend
@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            gradients_of_a_step(),
            st.sampled_from([None, 0.5, math.inf]),
            st.booleans(),
            st.sampled_from([0.0, np.nan]),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_steps_in_turn(backend: str, steps: Any) -> None:
    """Facts about earlier gradients are never taken for facts about later ones."""
    rng = np.random.default_rng(3)
    start = [ordinary(rng, SIZE, dtype) for dtype in (np.float32, np.float64, np.float32)]
    params, wanted = ([p.copy() for p in start] for _ in range(2))
    opt = fs.Adam(params, ema=0.5, nonfinite="skip", backend=backend)
    reference = fs.Adam(wanted, ema=0.5, nonfinite="skip", backend="numpy")
    memories = [np.zeros(3 * SIZE, p.dtype) for p in start]
    for kinds, max_norm, zero, stain in steps:
        grads: list[Any] = []
        copies: list[Any] = []
        for k, kind in enumerate(kinds):
            if kind is None:
                grads.append(None)
                copies.append(None)
                continue
            lies, moves, locked = kind
            if moves:
                memories[k] = np.zeros_like(memories[k])
            grads.append(memories[k][lies])
            grads[k][...] = ordinary(rng, SIZE, memories[k].dtype)
            grads[k][4] += stain
            copies.append(grads[k].copy())
            grads[k].flags.writeable = zero or not locked
        report = opt.step(grads, max_norm=max_norm, zero_grads=zero)
        expected = reference.step(copies, max_norm=max_norm, zero_grads=zero)
        assert repr(report) == repr(expected)  # a norm may be NaN
        for pairs in (zip(params, wanted, strict=True), zip(grads, copies, strict=True)):
            assert all(differing_bits(x, y) == 0 for x, y in pairs if x is not None)
    for found, state in zip(opt.state, reference.state, strict=True):
        assert found["t"] == state["t"]
        assert all(differing_bits(found[x], state[x]) == 0 for x in ("m", "v", "ema"))
