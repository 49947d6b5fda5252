"""The numerics contract: the results of every backend equal the reference's, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import STEPS, assert_same_bits, data
from cases import (
    BASES,
    CASES,
    DTYPES,
    LARGE_SIZES,
    SIZES,
    Case,
    differing_bits,
    difficult,
    ordinary,
)
from marks import for_each, for_each_dtype, on_each_compiled_backend

import fusedstep as fs


@for_each_dtype
@for_each(CASES)
def test_isas_and_sizes(case: Case, dtype: Any, isa: str) -> None:
    for n in [*SIZES, 1025]:
        assert_same_bits(case, *data(n, dtype), "c")


@for_each_dtype
@for_each(CASES)
def test_numba_and_sizes(case: Case, dtype: Any) -> None:
    for n in [*SIZES, 1025]:
        assert_same_bits(case, *data(n, dtype), "numba")


@for_each_dtype
@for_each(BASES)
def test_threads_and_large_sizes(case: Case, dtype: Any, isa: str, threads: int) -> None:
    for n in LARGE_SIZES:
        assert_same_bits(case, *data(n, dtype, ordinary), "c")


@for_each_dtype
@for_each(BASES)
def test_numba_threads_and_large_sizes(case: Case, dtype: Any, threads: int) -> None:
    for n in LARGE_SIZES:
        assert_same_bits(case, *data(n, dtype, ordinary), "numba")


@on_each_compiled_backend
@for_each_dtype
@pytest.mark.parametrize("offset", [1, 2, 3, 5, 7, 13])
def test_odd_offsets(offset: int, dtype: Any, backend: str) -> None:
    """No array starts where a vector or a cache line does, nor where the others start."""
    case = next(case for case in BASES if case.name == "adamw-amsgrad")
    for n in [*SIZES, 1031, 20_011]:
        rng = np.random.default_rng(n)
        p = difficult(rng, n + offset, dtype)
        grads = [difficult(rng, n + 2 * offset, dtype) for _ in range(STEPS)]
        results = []
        for name in (backend, "numpy"):
            memory = p.copy()
            optimizer = case.optimizer(memory[offset:], backend=name, **case.options)
            for g in grads:
                optimizer.step(g[2 * offset :])
            results.append([memory, *(optimizer.state[letter] for letter in "mvx")])
        for found, expected in zip(*results, strict=True):
            assert differing_bits(found, expected) == 0


@on_each_compiled_backend
def test_tensors_of_every_size_in_one_call(threads: int, backend: str) -> None:
    """Chunks span and divide tensors: where a tensor stands in the table changes nothing."""
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(0, 200, 500), 50_000, 0, 1, 16384, *rng.integers(0, 3000, 50)]
    params = [ordinary(rng, n, rng.choice(DTYPES)) for n in sizes]
    grads = [ordinary(rng, p.size, p.dtype) for p in params]
    copies = [p.copy() for p in params]
    fused, reference = fs.AdamW(params, backend=backend), fs.AdamW(copies, backend="numpy")
    for _ in range(STEPS):
        fused.step(grads)
        reference.step(grads)
    for p, expected, state, expected_state in zip(
        params, copies, fused.state, reference.state, strict=True
    ):
        assert differing_bits(p, expected) == 0
        assert differing_bits(state["m"], expected_state["m"]) == 0
        assert differing_bits(state["v"], expected_state["v"]) == 0


def test_zeros_at_a_bound_keep_their_signs(isa: str) -> None:
    """Comparisons tell no zero from the other, and leave one of the two in its place."""
    g = np.array([0.0, -0.0, 1.0, -1.0], np.float32)
    made: list[tuple[Any, dict[str, Any]]] = [(fs.SGD, {}), (fs.Adam, {"amsgrad": True})]
    for optimizer, options in made:
        results = []
        for backend in ("c", "numpy"):
            p = np.full(4, -0.0, np.float32)
            opt = optimizer(p, backend=backend, **options)
            letters = [letter for letter in opt.state if letter != "t"]
            if "x" in letters:
                opt.state["x"][...] = -0.0
            opt.step(g, max_value=0.0)
            results.append([p, *(opt.state[letter] for letter in letters)])
        for found, expected in zip(*results, strict=True):
            assert differing_bits(found, expected) == 0
        if optimizer is fs.SGD:
            assert np.signbit(results[0][0]).tolist() == [True, False, True, False]


def test_difficult_values_are_difficult() -> None:
    """The comparisons above mean something only if the inputs hold what they should."""
    for dtype in DTYPES:
        values = difficult(np.random.default_rng(0), 10_000, dtype)
        tiny = np.finfo(dtype).tiny
        assert np.isnan(values).any()
        assert np.isposinf(values).any()
        assert np.isneginf(values).any()
        assert ((values != 0) & (np.abs(values) < tiny)).any()
        assert (np.signbit(values) & (values == 0)).any()
        assert (np.abs(values) > np.sqrt(np.finfo(dtype).max)).any()


def test_a_changed_bit_is_seen() -> None:
    a = np.array([1.0, np.nan, 0.0], np.float32)
    assert differing_bits(a, a.copy()) == 0
    assert differing_bits(a, np.array([1.0, -np.nan, -0.0], np.float32)) == 1
    assert differing_bits(a, np.nextafter(a, np.float32(2))) == 2
