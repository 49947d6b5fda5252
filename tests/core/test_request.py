"""Arguments of a step, one by one, and the report that it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bits import snapshot
from cases import BASES, CUSTOM_OPTIMIZERS, OPTIMIZERS, WHOLE_CASES, differing_bits, difficult, ones
from marks import on_each_backend

import fusedstep as fs
from fusedstep._core.request import Report

# ---- what is asked for, one by one ----


@on_each_backend
def test_order(backend: str) -> None:
    """Unscaled, clipped by norm, then by value, then turned round, then decayed."""
    p = np.array([1.0, -2.0])
    opt = fs.SGD(p, lr=1.0, weight_decay=0.5, l1=0.25, maximize=True, backend=backend)
    report = opt.step(np.array([60.0, -80.0]), scale=10.0, max_norm=5.0, max_value=3.5)
    assert report == Report(grad_norm=10.0, clip=0.5, skipped=(), t=1)
    # 60/10·0.5 = 3 and -80/10·0.5 = -4, which is bounded to -3.5
    np.testing.assert_array_equal(p, [1 - (-3 + 0.5 + 0.25), -2 - (3.5 - 1 - 0.25)])


@on_each_backend
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


@on_each_backend
def test_what_one_step_was_asked_for_is_gone_at_the_next(backend: str) -> None:
    g = np.full(3, 8.0)
    p = np.zeros(3)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(g.copy(), scale=2.0, max_norm=1.0, max_value=0.1, zero_grads=True)
    p[...] = 0
    assert opt.step(g) == Report(None, 1.0, (), 2)
    np.testing.assert_array_equal(p, -8.0)
    np.testing.assert_array_equal(g, 8.0)


@on_each_backend
def test_a_norm_within_bounds_clips_nothing(backend: str) -> None:
    p, g = np.zeros(2), np.array([3.0, 4.0])
    opt = fs.SGD(p, lr=1.0, backend=backend)
    assert opt.step(g, max_norm=5.0) == Report(5.0, 1.0, (), 1)
    np.testing.assert_array_equal(p, -g)


@on_each_backend
def test_bounds_of_zero(backend: str) -> None:
    p = np.ones(2)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    assert opt.step(np.array([3.0, 4.0]), max_norm=0.0).clip == 0
    assert opt.step(np.zeros(2), max_norm=0.0).clip == 1
    opt.step(np.array([3.0, -4.0]), max_value=0.0)
    np.testing.assert_array_equal(p, 1)


@on_each_backend
def test_a_norm_that_is_not_finite_propagates(backend: str) -> None:
    p = np.zeros(2)
    report = fs.SGD(p, lr=1.0, backend=backend).step(np.array([np.inf, 1.0]), max_norm=1.0)
    assert (report.grad_norm, report.clip) == (np.inf, 0.0)
    np.testing.assert_array_equal(p, [np.nan, 0.0])
    report = fs.SGD(p, lr=1.0, backend=backend).step(np.array([np.nan, 1.0]), max_norm=1.0)
    assert report.grad_norm != report.grad_norm
    assert report.clip != report.clip
    assert np.isnan(p).all()


@on_each_backend
def test_an_empty_step(backend: str) -> None:
    for grads in ([None, None], [None, np.zeros(0, np.float32)]):
        opt = fs.AdamW([ones(3), ones(0)], nonfinite="raise", ema=0.5, backend=backend)
        report = opt.step(grads, scale=2.0, max_norm=1.0, zero_grads=True)
        assert report == Report(0.0, 1.0, (), int(grads[1] is not None))


@on_each_backend
def test_the_report_counts_the_steps_of_those_in_it(backend: str) -> None:
    opt = fs.SGD([ones(2), ones(2)], backend=backend)
    g = ones(2)
    assert opt.step([g, None]).t == 1
    assert opt.step([g, g]).t == 2
    assert opt.step([None, g]).t == 2


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


@on_each_backend
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


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, *CUSTOM_OPTIMIZERS])
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


def test_custom_rules_cannot_use_the_names_of_what_stands_around_them() -> None:
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
