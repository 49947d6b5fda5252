"""Gradients that are not finite, and what looking for them costs."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
from bits import snapshot
from cases import ones, ordinary
from marks import for_each_dtype, on_each_backend

import fusedstep as fs
from fusedstep._core.request import Report

# ---- gradients that are not finite ----


@on_each_backend
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


@on_each_backend
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


@on_each_backend
def test_propagate_is_the_default(backend: str) -> None:
    p = ones(2)
    assert fs.SGD(p, lr=1.0, backend=backend).step(np.array([np.nan, 1], np.float32)).skipped == ()
    np.testing.assert_array_equal(p, [np.nan, 0])


@on_each_backend
def test_a_skipped_step_zeroes_its_gradients_all_the_same(backend: str) -> None:
    memory = np.full(9, np.inf, np.float32)
    opt = fs.SGD([ones(4), ones(5), ones(5)], nonfinite="skip", backend=backend)
    report = opt.step([memory[1::2], memory[::2], None], zero_grads=True)
    assert report.skipped == ("params[0]", "params[1]")
    np.testing.assert_array_equal(memory, 0)


@on_each_backend
@for_each_dtype
def test_gradients_that_overflow_unscaled(dtype: Any, backend: str) -> None:
    largest = float(np.finfo(dtype).max)
    opt = fs.SGD([ones(2, dtype=dtype), ones(2, dtype=dtype)], nonfinite="skip", backend=backend)
    grads = [ones(2, dtype=dtype), np.array([1, largest / 2], dtype)]
    assert opt.step(grads).skipped == ()
    assert opt.step(grads, scale=1 / 64).skipped == ("params[1]",)
    assert opt.step([grads[0], grads[0]], scale=1 / 64).skipped == ()


@on_each_backend
def test_the_factor_that_unscales_may_round_up(backend: str) -> None:
    """A float32 then overflows that would not with 1 / scale itself."""
    scale, g = 0.9497749999999999, np.array([3.2319166e38], np.float32)
    assert float(g[0]) / scale < float(np.finfo(np.float32).max)
    p = ones(1)
    opt = fs.SGD(p, lr=1.0, nonfinite="skip", backend=backend)
    assert opt.step(g, scale=scale).skipped == ("params",)
    np.testing.assert_array_equal(p, 1)


@on_each_backend
def test_a_large_norm_is_not_taken_for_infinity(backend: str) -> None:
    g = np.full(100, 3e38, np.float32)
    p = np.zeros(100, np.float32)
    report = fs.SGD(p, lr=1.0, nonfinite="raise", backend=backend).step(g, max_norm=1.0)
    assert report.grad_norm == pytest.approx(3e39, rel=1e-6)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p, -0.1, rtol=1e-5)  # clip is subnormal


@on_each_backend
def test_skipped_parameters_are_not_looked_at(backend: str) -> None:
    opt = fs.SGD([ones(2), ones(2)], nonfinite="skip", backend=backend)
    bad = np.full(2, np.nan, np.float32)
    assert opt.step([ones(2), bad]).skipped == ("params[1]",)
    assert opt.step([ones(2), None]).skipped == ()


@on_each_backend
def test_the_policy_is_copied_and_pickled(backend: str) -> None:
    opt = copy.deepcopy(fs.SGD(ones(2), nonfinite="skip", backend=backend))
    assert pickle.loads(pickle.dumps(opt)).step(np.array([np.nan, 1], np.float32)).skipped == (
        "params",
    )


# ---- costs ----


@on_each_backend
@pytest.mark.parametrize("policy", ["propagate", "skip", "raise"])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_norm_and_finite_check_share_one_read(
    policy: Any, max_norm: Any, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opt = fs.AdamW([ones(4), ones(5)], nonfinite=policy, backend=backend)
    grads = [ones(4), ones(5)]
    opt.step(grads)
    reads: list[str] = []
    table = opt.layout.plan.table
    for name in ("measure", "calls", "take_and_run"):
        method = getattr(table, name)

        def counted(*args: Any, name: str = name, method: Any = method) -> Any:
            reads.append(name)
            return method(*args)

        monkeypatch.setattr(table, name, counted)
        if name == "measure":
            monkeypatch.setattr(opt.layout.plan, name, counted)
    opt.step(grads, max_norm=max_norm, scale=2.0)
    once = ["measure"] if policy != "propagate" or max_norm is not None else []
    assert reads == [*once, "calls"]
