"""The whole step: what is done around the rule, on every engine, and what the step reports."""

from __future__ import annotations

import copy
import math
import pickle
import re
from typing import Any

import numpy as np
import oracle
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
from conftest import ENGINES, for_each, for_each_dtype, on_each_compiled_engine, on_each_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bits import assert_same_bits, data
from test_trajectories import ORACLES, TOLERANCE, assert_agree, problem, walk

import fusedstep as fs
from fusedstep._core.request import Report

# Around a lane, a vector, a run that is cut at a cache line, a block of the norm.
SIZES = [0, 1, 3, 17, 33, 65, 1027, 4097]


def ones(*shape: int, dtype: Any = np.float32) -> Any:
    return np.ones(shape, dtype)


# ---- bits and trajectories ----


def values_for(case: Case) -> Any:
    return difficult_but_finite if "max_norm" in case.asked else difficult


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
@pytest.mark.parametrize("backend", ENGINES)
@for_each([case for case in OWN_WHOLE_CASES if case.name.endswith("-whole")])
def test_the_same_bits_for_rules_of_ones_own(case: Case, backend: str, dtype: Any) -> None:
    for n in [1, 33, 1027]:
        assert_same_bits(case, *data(n, dtype, difficult_but_finite), backend)


@for_each_dtype
@on_each_compiled_engine
@for_each([case for case in WHOLE_CASES if case.name.endswith("-whole")])
def test_the_same_bits_with_threads(case: Case, backend: str, dtype: Any, threads: int) -> None:
    assert_same_bits(case, *data(100_003, dtype, ordinary), backend)


@on_each_engine
@for_each(WHOLE_CASES)
def test_float64_follows_the_papers(case: Case, backend: str) -> None:
    start, gradients = problem(np.float64)
    actual = walk(case, backend, start, gradients)
    asked = {name: value for name, value in case.asked.items() if name != "zero_grads"}
    options = dict(case.options)
    options.pop("nonfinite", None)
    ema = options.pop("ema", None)
    expected = ORACLES[case.optimizer](start, oracle.prepared(gradients, **asked), **options)
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


@on_each_engine
def test_many_tensors_at_once(backend: str, threads: int) -> None:
    """Where a tensor stands, and what else is there, changes nothing but the common norm."""
    rng = np.random.default_rng(5)
    sizes = [*rng.integers(0, 200, 100), 50_000, 0, 1, 4096, *rng.integers(0, 6000, 20)]
    start = [ordinary(rng, n, rng.choice(DTYPES)) for n in sizes]
    grads = [None if k % 7 == 3 else ordinary(rng, p.size, p.dtype) for k, p in enumerate(start)]
    results = []
    for engine in (backend, "numpy"):
        params = [p.copy() for p in start]
        mine = [None if g is None else g.copy() for g in grads]
        opt = fs.AdamW(params, ema=0.9, nonfinite="raise", backend=engine)
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
    """Of each gradient how it lies, whether in other memory than before and read-only."""
    slices = [slice(0, SIZE), slice(0, 3 * SIZE, 3), slice(SIZE - 1, None, -1)]
    one = st.none() | st.tuples(st.sampled_from(slices), st.booleans(), st.booleans())
    return st.tuples(one, one, one)


@on_each_engine
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
    """What an engine knows of the gradients before never passes for those that come."""
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


# ---- what is asked for, one by one ----


@on_each_engine
def test_order(backend: str) -> None:
    """Unscaled, clipped by norm, then by value, then turned round, then decayed."""
    p = np.array([1.0, -2.0])
    opt = fs.SGD(p, lr=1.0, weight_decay=0.5, l1=0.25, maximize=True, backend=backend)
    report = opt.step(np.array([60.0, -80.0]), scale=10.0, max_norm=5.0, max_value=3.5)
    assert report == Report(grad_norm=10.0, clip=0.5, skipped=(), t=1)
    # 60/10·0.5 = 3 and -80/10·0.5 = -4, which is bounded to -3.5
    np.testing.assert_array_equal(p, [1 - (-3 + 0.5 + 0.25), -2 - (3.5 - 1 - 0.25)])


@on_each_engine
def test_nothing_asked_is_nothing_done(backend: str) -> None:
    rng = np.random.default_rng(6)
    start, g = difficult(rng, 1000, np.float32), difficult(rng, 1000, np.float32)
    plain, asked = start.copy(), start.copy()
    assert fs.Adam(plain, backend=backend).step(g) == Report(None, 1.0, (), 1)
    opt = fs.Adam(asked, nonfinite="propagate", backend=backend)
    report = opt.step(g, scale=1.0, max_norm=np.inf, max_value=np.inf, zero_grads=False)
    assert (report.clip, report.skipped, report.t) == (1.0, (), 1)
    assert report.grad_norm is not None
    assert differing_bits(plain, asked) == 0


@on_each_engine
def test_what_one_step_was_asked_for_is_gone_at_the_next(backend: str) -> None:
    g = np.full(3, 8.0)
    p = np.zeros(3)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(g.copy(), scale=2.0, max_norm=1.0, max_value=0.1, zero_grads=True)
    p[...] = 0
    assert opt.step(g) == Report(None, 1.0, (), 2)
    np.testing.assert_array_equal(p, -8.0)
    np.testing.assert_array_equal(g, 8.0)


@on_each_engine
def test_a_norm_within_bounds_clips_nothing(backend: str) -> None:
    p, g = np.zeros(2), np.array([3.0, 4.0])
    opt = fs.SGD(p, lr=1.0, backend=backend)
    assert opt.step(g, max_norm=5.0) == Report(5.0, 1.0, (), 1)
    np.testing.assert_array_equal(p, -g)


@on_each_engine
def test_bounds_of_zero(backend: str) -> None:
    p = np.ones(2)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    assert opt.step(np.array([3.0, 4.0]), max_norm=0.0).clip == 0
    assert opt.step(np.zeros(2), max_norm=0.0).clip == 1
    opt.step(np.array([3.0, -4.0]), max_value=0.0)
    np.testing.assert_array_equal(p, 1)


@on_each_engine
def test_a_norm_that_is_not_finite_propagates(backend: str) -> None:
    p = np.zeros(2)
    report = fs.SGD(p, lr=1.0, backend=backend).step(np.array([np.inf, 1.0]), max_norm=1.0)
    assert (report.grad_norm, report.clip) == (np.inf, 0.0)
    np.testing.assert_array_equal(p, [np.nan, 0.0])
    report = fs.SGD(p, lr=1.0, backend=backend).step(np.array([np.nan, 1.0]), max_norm=1.0)
    assert report.grad_norm != report.grad_norm
    assert report.clip != report.clip
    assert np.isnan(p).all()


@on_each_engine
def test_an_empty_step(backend: str) -> None:
    for grads in ([None, None], [None, np.zeros(0, np.float32)]):
        opt = fs.AdamW([ones(3), ones(0)], nonfinite="raise", ema=0.5, backend=backend)
        report = opt.step(grads, scale=2.0, max_norm=1.0, zero_grads=True)
        assert report == Report(0.0, 1.0, (), int(grads[1] is not None))


@on_each_engine
def test_the_report_counts_the_steps_of_those_in_it(backend: str) -> None:
    opt = fs.SGD([ones(2), ones(2)], backend=backend)
    g = ones(2)
    assert opt.step([g, None]).t == 1
    assert opt.step([g, g]).t == 2
    assert opt.step([None, g]).t == 2


# ---- the moving average ----


@on_each_engine
def test_the_average_starts_from_the_initial_parameters(backend: str) -> None:
    p = np.array([8.0, 16.0])
    opt = fs.SGD(p, lr=1.0, ema=0.75, backend=backend)
    np.testing.assert_array_equal(opt.state["ema"], p)
    assert not np.shares_memory(opt.state["ema"], p)
    opt.step(np.array([4.0, 8.0]))
    np.testing.assert_array_equal(opt.state["ema"], [7.0, 14.0])


@on_each_engine
def test_the_average_belongs_to_a_group(backend: str) -> None:
    params = [{"params": ones(5), "ema": 0.0}, {"params": ones(5)}, {"params": ones(5), "ema": 0.5}]
    opt = fs.SGD(params, lr=0.5, backend=backend)
    opt.step([ones(5)] * 3)
    first, second, third = opt.state
    np.testing.assert_array_equal(first["ema"], 0.5)
    assert "ema" not in second
    np.testing.assert_array_equal(third["ema"], 0.75)


@on_each_engine
def test_the_average_switched_on_and_off_later(backend: str) -> None:
    p = np.full(3, 4.0)
    opt = fs.SGD(p, lr=1.0, momentum=0.5, backend=backend)
    opt.step(np.ones(3))
    opt.param_groups[0]["ema"] = 0.5
    opt.step(np.zeros(3))
    np.testing.assert_array_equal(p, 2.5)
    np.testing.assert_array_equal(opt.state["ema"], 0.5 * 3 + 0.5 * 2.5)
    opt.param_groups[0]["ema"] = None
    opt.step(np.zeros(3))
    np.testing.assert_array_equal(opt.state["ema"], 2.75)
    opt.param_groups[0]["ema"] = 0.25
    opt.step(np.zeros(3))
    np.testing.assert_array_equal(opt.state["ema"], 0.25 * 2.75 + 0.75 * p)


@on_each_engine
@pytest.mark.parametrize("order", ["C", "F", "gaps", "reversed"])
def test_the_average_of_any_layout(order: str, backend: str) -> None:
    rng = np.random.default_rng(7)
    values = rng.standard_normal((40, 50))
    p = {
        "C": lambda: values.copy(),
        "F": lambda: np.asfortranarray(values),
        "gaps": lambda: np.repeat(values, 2, axis=1)[:, ::2],
        "reversed": lambda: values.copy()[::-1],
    }[order]()
    q = np.array(p, order="C")
    opt = fs.Adam(p, ema=0.9, backend=backend)
    plain = fs.Adam(q, ema=0.9, backend="numpy")
    np.testing.assert_array_equal(opt.state["ema"], q)
    for _ in range(3):
        g = rng.standard_normal((40, 50))
        opt.step(g)
        plain.step(g)
    assert differing_bits(p, q) == 0
    assert differing_bits(opt.state["ema"], plain.state["ema"]) == 0


@on_each_engine
def test_the_average_is_saved_and_resumed(backend: str) -> None:
    rng = np.random.default_rng(8)
    p, grads = rng.standard_normal(100), [rng.standard_normal(100) for _ in range(6)]
    straight, resumed = p.copy(), p.copy()
    opt = fs.AdamW(straight, ema=0.9, backend=backend)
    first = fs.AdamW(resumed, ema=0.9, backend=backend)
    for g in grads[:3]:
        opt.step(g)
        first.step(g)
    second = fs.AdamW(resumed, ema=0.5, backend=backend)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    copied = copy.deepcopy(first)
    for g in grads[3:]:
        opt.step(g)
        second.step(g)
        copied.step(g)
    assert second.param_groups[0]["ema"] == 0.9
    for other in (second, copied):
        assert differing_bits(opt.state["ema"], other.state["ema"]) == 0
    state_dict = first.state_dict()
    del state_dict["state"]["ema"]
    with pytest.raises(KeyError, match="lacks 'ema'"):
        second.load_state_dict(state_dict)


def test_a_state_named_ema_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state has 'ema'.*rename"):
        fs.rule(state=("ema",), lr=1.0)


# ---- zeros in the gradients' place ----


@on_each_engine
def test_gradients_of_any_layout_are_zeroed(backend: str) -> None:
    rng = np.random.default_rng(9)
    memory = rng.standard_normal((7, 12))
    views = [
        memory[0, :5],
        memory[1, 4:9:2],
        memory[2, 11:6:-1],
        memory[3:5, ::3].T,
        memory[5:, :0],
    ]
    params = [rng.standard_normal(view.shape) for view in views]
    kept = memory.copy()
    for view in views:
        view[...] = np.nan  # marks what is to become 0
    untouched = ~np.isnan(memory)
    for view in views:
        view[...] = 1.0
    opt = fs.Adam(params, backend=backend)
    for _ in range(2):
        opt.step(views, zero_grads=True)
        np.testing.assert_array_equal(memory, np.where(untouched, kept, 0.0))
    expected = np.where(np.arange(12) < 5, 0.0, kept[0])
    np.testing.assert_array_equal(memory[0], expected)


@on_each_engine
@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 5000, 100_003])
def test_gradients_of_any_size_are_zeroed(n: int, backend: str, threads: int) -> None:
    """And not an element more, though they are zeroed piece by piece."""
    memory = np.ones(n + 2, np.float32)
    fs.SGD(ones(n), backend=backend).step(memory[1:-1], zero_grads=True)
    np.testing.assert_array_equal(memory, [1, *[0] * n, 1])


@on_each_engine
def test_without_zero_grads_no_gradient_is_written(backend: str) -> None:
    g = ones(5000)
    g.flags.writeable = False
    opt = fs.AdamW(ones(5000), ema=0.9, nonfinite="skip", backend=backend)
    for _ in range(2):
        opt.step(g, scale=2.0, max_norm=1.0, max_value=0.5)
    np.testing.assert_array_equal(g, 1)


@on_each_engine
def test_read_only_gradients_cannot_be_zeroed(backend: str) -> None:
    """Also if one was taken before that could, in the same memory."""
    p, g = ones(3), ones(3)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(g)
    locked = g[:]
    locked.flags.writeable = False
    broadcast = np.broadcast_to(np.float32(1), 3)
    for each in (locked, broadcast):
        with pytest.raises(ValueError, match=r"grads is read-only.*zero_grads=True.*copy"):
            opt.step(each, zero_grads=True)
    np.testing.assert_array_equal(p, 0)
    assert opt.state["t"] == 1
    opt.step(locked)
    np.testing.assert_array_equal(p, -1)


@on_each_engine
@pytest.mark.parametrize("step", [1, 2, -1])
def test_gradients_that_were_read_only_are_zeroed(step: int, backend: str) -> None:
    """What a step took as read-only memory may be writeable at the next, in the same place."""
    p, g = ones(4), ones(8)[::step][:4]
    locked = g[:]
    locked.flags.writeable = False
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(locked)
    opt.step(g, zero_grads=True)
    np.testing.assert_array_equal(p, -1)
    np.testing.assert_array_equal(g, 0)
    assert opt.state["t"] == 2


@on_each_engine
def test_shared_gradients_cannot_be_zeroed(backend: str) -> None:
    """One would be zero before the other is read. Also if they come to share memory later."""
    params = [ones(4), ones(4)]
    memory = ones(6)
    shared = [memory[:4], memory[2:]]
    opt = fs.SGD(params, lr=1.0, backend=backend)
    opt.step([ones(4), ones(4)], zero_grads=True)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] share memory.*copies"):
            opt.step(shared, zero_grads=True)
    np.testing.assert_array_equal(params, 0)
    np.testing.assert_array_equal(memory, 1)
    opt.step(shared)
    np.testing.assert_array_equal(params, -1)
    interleaved = ones(8)
    opt.step([interleaved[::2], interleaved[1::2]], zero_grads=True)
    np.testing.assert_array_equal(interleaved, 0)


# ---- gradients that are not finite ----


def snapshot(opt: Any, params: list[Any]) -> Any:
    return pickle.dumps((params, opt.state_dict()))


@on_each_engine
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_skip(bad: float, backend: str) -> None:
    """A run with bad steps in it goes the way of one without them."""
    rng = np.random.default_rng(10)
    start = [ordinary(rng, n, np.float32) for n in (3, 5000, 40)]
    params, others = [p.copy() for p in start], [p.copy() for p in start]
    opt = fs.AdamW(params, ema=0.9, nonfinite="skip", backend=backend)
    reference = fs.AdamW(others, ema=0.9, backend=backend)
    for step in range(4):
        grads = [ordinary(rng, p.size, np.float32) for p in start]
        broken = [g.copy() for g in grads]
        broken[1][4999 - step] = bad
        broken[2][0] = bad
        before = snapshot(opt, params)
        report = opt.step(broken, max_norm=1.0)
        assert report.skipped == ("params[1]", "params[2]")
        assert (report.clip, report.t) == (1.0, step)
        assert report.grad_norm is not None
        assert not np.isfinite(report.grad_norm)
        assert snapshot(opt, params) == before
        assert opt.step(grads) == Report(None, 1.0, (), step + 1)
        reference.step(grads)
    assert snapshot(opt, params) == snapshot(reference, others)


@on_each_engine
def test_raise(backend: str) -> None:
    params = {"w": ones(2, 3), "b": ones(3)}
    opt = fs.Adam(params, nonfinite="raise", backend=backend)
    grads = {"w": ones(2, 3), "b": ones(3)}
    opt.step(grads)
    before = snapshot(opt, list(params.values()))
    grads["b"][1] = np.nan
    with pytest.raises(FloatingPointError, match=re.escape("grads['b'] held NaN or infinity")):
        opt.step(grads, zero_grads=True)
    assert snapshot(opt, list(params.values())) == before
    np.testing.assert_array_equal(grads["w"], 1)
    grads["b"][1] = 0
    assert opt.step(grads).t == 2


@on_each_engine
def test_propagate_is_the_default(backend: str) -> None:
    p = ones(2)
    assert fs.SGD(p, lr=1.0, backend=backend).step(np.array([np.nan, 1], np.float32)).skipped == ()
    np.testing.assert_array_equal(p, [np.nan, 0])


@on_each_engine
def test_a_skipped_step_zeroes_its_gradients_all_the_same(backend: str) -> None:
    memory = np.full(9, np.inf, np.float32)
    opt = fs.SGD([ones(4), ones(5), ones(5)], nonfinite="skip", backend=backend)
    report = opt.step([memory[1::2], memory[::2], None], zero_grads=True)
    assert report.skipped == ("params[0]", "params[1]")
    np.testing.assert_array_equal(memory, 0)


@on_each_engine
@for_each_dtype
def test_gradients_that_overflow_unscaled(dtype: Any, backend: str) -> None:
    largest = float(np.finfo(dtype).max)
    opt = fs.SGD([ones(2, dtype=dtype), ones(2, dtype=dtype)], nonfinite="skip", backend=backend)
    grads = [ones(2, dtype=dtype), np.array([1, largest / 2], dtype)]
    assert opt.step(grads).skipped == ()
    assert opt.step(grads, scale=1 / 64).skipped == ("params[1]",)
    assert opt.step([grads[0], grads[0]], scale=1 / 64).skipped == ()


@on_each_engine
def test_the_factor_that_unscales_may_round_up(backend: str) -> None:
    """To one with which a float32 overflows that does not with 1 / scale itself."""
    scale, g = 0.9497749999999999, np.array([3.2319166e38], np.float32)
    assert float(g[0]) / scale < float(np.finfo(np.float32).max)
    p = ones(1)
    opt = fs.SGD(p, lr=1.0, nonfinite="skip", backend=backend)
    assert opt.step(g, scale=scale).skipped == ("params",)
    np.testing.assert_array_equal(p, 1)


@on_each_engine
def test_a_large_norm_is_not_taken_for_infinity(backend: str) -> None:
    g = np.full(100, 3e38, np.float32)
    p = np.zeros(100, np.float32)
    report = fs.SGD(p, lr=1.0, nonfinite="raise", backend=backend).step(g, max_norm=1.0)
    assert report.grad_norm == pytest.approx(3e39, rel=1e-6)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, -0.1, rtol=1e-5)  # clip is subnormal


@on_each_engine
def test_skipped_parameters_are_not_looked_at(backend: str) -> None:
    opt = fs.SGD([ones(2), ones(2)], nonfinite="skip", backend=backend)
    bad = np.full(2, np.nan, np.float32)
    assert opt.step([ones(2), bad]).skipped == ("params[1]",)
    assert opt.step([ones(2), None]).skipped == ()


@on_each_engine
def test_the_policy_is_copied_and_pickled(backend: str) -> None:
    opt = copy.deepcopy(fs.SGD(ones(2), nonfinite="skip", backend=backend))
    assert pickle.loads(pickle.dumps(opt)).step(np.array([np.nan, 1], np.float32)).skipped == (
        "params",
    )


# ---- costs ----


@on_each_engine
@pytest.mark.parametrize("policy", ["propagate", "skip", "raise"])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_norm_and_finite_check_share_one_read(
    policy: Any, max_norm: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = fs.AdamW([ones(4), ones(5)], nonfinite=policy, backend=backend)
    grads = [ones(4), ones(5)]
    opt.step(grads)
    reads: list[str] = []
    table = opt._plan.table
    for name in ("squares", "run", "take_and_run"):
        method = getattr(table, name)

        def counted(*args: Any, name: str = name, method: Any = method) -> Any:
            reads.append(name)
            return method(*args)

        monkeypatch.setattr(table, name, counted)
        if name == "squares":
            monkeypatch.setattr(opt._plan, name, counted)
    opt.step(grads, max_norm=max_norm, scale=2.0)
    once = ["squares"] if policy != "propagate" or max_norm is not None else []
    assert reads == [*once, "run"]


# ---- bad input ----

BAD_STEPS: dict[str, Any] = {
    "scale-0": ({"scale": 0}, ValueError, r"scale=0; .*above 0"),
    "scale-negative": ({"scale": -2.0}, ValueError, r"scale=-2.0; .*above 0"),
    "scale-nan": ({"scale": np.nan}, ValueError, r"scale=nan .*finite"),
    "scale-infinite": ({"scale": np.inf}, ValueError, r"scale=inf .*finite"),
    "scale-subnormal": ({"scale": 5e-324}, ValueError, r"scale=5e-324 .*float32.*nearer to 1"),
    "scale-beyond-float32": ({"scale": 1e60}, ValueError, r"scale=1e\+60 .*float32"),
    "scale-below-float32": ({"scale": 1e-60}, ValueError, r"scale=1e-60 .*float32"),
    "scale-text": ({"scale": "2"}, TypeError, r"scale='2' .*number"),
    "scale-bool": ({"scale": False}, TypeError, r"scale=False .*number"),
    "scale-array": ({"scale": np.ones(2)}, TypeError, r"scale=an array.*number"),
    "max_norm-negative": ({"max_norm": -1.0}, ValueError, r"max_norm=-1.0 is negative"),
    "max_norm-nan": ({"max_norm": np.nan}, ValueError, r"max_norm=nan; pass 0 or more"),
    "max_norm-minus-infinity": ({"max_norm": -np.inf}, ValueError, r"max_norm=-inf; "),
    "max_norm-text": ({"max_norm": "1"}, TypeError, r"max_norm='1' .*number"),
    "max_value-negative": ({"max_value": -1}, ValueError, r"max_value=-1 is negative"),
    "max_value-nan": ({"max_value": np.float32("nan")}, ValueError, r"max_value=.*nan.*; "),
    "zero_grads-1": ({"zero_grads": 1}, TypeError, r"zero_grads=1 .*True or False"),
    "zero_grads-text": ({"zero_grads": "no"}, TypeError, r"zero_grads='no' .*True or False"),
}


@on_each_engine
@pytest.mark.parametrize("name", BAD_STEPS)
def test_bad_steps_change_nothing(name: str, backend: str) -> None:
    asked, error, message = BAD_STEPS[name]
    p, g = ones(3), ones(3)
    opt = fs.AdamW(p, ema=0.5, backend=backend)
    opt.step(g)
    before = snapshot(opt, [p, g])
    with pytest.raises(error, match=message):
        opt.step(g, **asked)
    assert snapshot(opt, [p, g]) == before


@pytest.mark.parametrize(
    "optimizer", [fs.SGD, fs.Adagrad, fs.RMSprop, fs.Adam, fs.AdamW, fs.rules.Lion]
)
@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        ({"ema": 1.0}, ValueError, r"ema=1.0 is outside \[0, 1\)"),
        ({"ema": -0.1}, ValueError, r"ema=-0.1 is outside"),
        ({"ema": np.nan}, ValueError, r"ema=nan"),
        ({"ema": "0.9"}, TypeError, r"ema='0.9' .*number"),
        ({"ema": True}, TypeError, r"ema=True .*number"),
        ({"nonfinite": "ignore"}, ValueError, r"nonfinite='ignore' .*'propagate', 'skip', 'raise'"),
        ({"nonfinite": None}, ValueError, r"nonfinite=None; "),
    ],
)
def test_bad_options(optimizer: Any, option: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        optimizer(ones(3), **option)


def test_a_bad_average_is_refused_when_assigned() -> None:
    opt = fs.SGD(ones(3), ema=0.5)
    with pytest.raises(ValueError, match=r"ema=1"):
        opt.param_groups[0]["ema"] = 1
    assert opt.param_groups[0]["ema"] == 0.5


def test_own_rules_cannot_use_the_names_of_what_stands_around_them() -> None:
    def plain(p: Any, g: Any, h: Any) -> Any:
        return p

    hyperparameters: Any
    for name in ("ema", "clip", "unscale", "most", "nonfinite"):
        hyperparameters = {"lr": 1.0, name: 0.5}
        with pytest.raises(ValueError, match=f"'{name}' means something else"):
            fs.rule(**hyperparameters)
    for name in ("clip", "sign", "rest_ema"):

        def prepare(h: Any, t: int, name: str = name) -> dict[str, float]:
            return {name: 1.0}

        with pytest.raises(ValueError, match=f"prepare returned '{name}'"):
            fs.rule(lr=1.0, prepare=prepare)(plain)


def test_every_base_is_crossed() -> None:
    assert len(WHOLE_CASES) == 5 * len(BASES)
