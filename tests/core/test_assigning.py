"""Hyperparameters that are assigned between steps: what they do, cost and refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import BASES, CUSTOM_BASES, Case, differing_bits, ordinary
from counting import python_calls
from marks import for_each

import fusedstep as fs

RATES = (0.5, np.float64(0.25), np.float32(0.125), 1, np.int64(2), 0, -0.0, 3e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@for_each([*BASES, *CUSTOM_BASES])
def test_an_assigned_rate_is_the_next_step_s(case: Case, dtype: Any) -> None:
    """A schedule that gives the same rates is the oracle: nothing is assigned there."""
    rng = np.random.default_rng(1)
    start = [ordinary(rng, 37, dtype), ordinary(rng, 12, dtype).reshape(3, 4)]
    mine, theirs = [a.copy() for a in start], [a.copy() for a in start]
    options = {**case.options, "lr": 0.5}
    if options.get("decay_scale") == "schedule":
        options["initial_lr"] = 0.5
    assigned = case.optimizer(mine, **options)
    scheduled = case.optimizer(theirs, **{**options, "lr": lambda t: float(RATES[t - 1]) + 0.0})
    for rate in RATES:
        grads = [ordinary(rng, 37, dtype), ordinary(rng, 12, dtype).reshape(3, 4)]
        assigned.lr = rate
        assert type(assigned.lr) is float
        assigned.step(grads)
        scheduled.step(grads)
        assert sum(map(differing_bits, mine, theirs)) == 0


def test_a_rate_is_assigned_to_every_group_or_to_none() -> None:
    a, b = np.zeros(2), np.zeros(2)
    opt = fs.AdamW(
        [
            {"params": a, "lr": 0.1},
            {"params": b, "lr": 0.2, "decay_scale": "schedule", "initial_lr": 1e-300},
        ],
    )
    with pytest.raises(ValueError, match="decay_scale='schedule' with lr=1e\\+300"):
        opt.lr = 1e300
    assert [group["lr"] for group in opt.param_groups] == [0.1, 0.2]
    opt.lr = 0.3
    assert [group["lr"] for group in opt.param_groups] == [0.3, 0.3]
    opt.lr = lambda t: 0.5 / t
    opt.step([np.ones(2), np.ones(2)])
    opt.lr = 0.25
    assert [group["lr"] for group in opt.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("rate", [-1.0, np.float64(-1), float("nan"), float("inf"), True, "1e-3"])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_rate_that_will_not_do_changes_nothing(rate: Any, groups: int) -> None:
    opt = fs.SGD([{"params": [np.zeros(2)]} for _ in range(groups)], lr=0.5)
    with pytest.raises((TypeError, ValueError), match="lr="):
        opt.lr = rate
    with pytest.raises((TypeError, ValueError), match="lr="):
        opt.param_groups[0]["lr"] = rate
    assert opt.lr == 0.5


def test_a_scheduled_decay_looks_at_every_rate() -> None:
    opt = fs.AdamW(np.zeros(2), lr=0.1)
    opt.lr = 1e300  # of which nothing is a multiple yet
    opt.lr = 0.1
    opt.param_groups[0].update(decay_scale="schedule", initial_lr=1e-300)
    with pytest.raises(ValueError, match="lr=1e\\+300"):
        opt.lr = 1e300
    opt.param_groups[0]["decay_scale"] = "lr"
    opt.lr = 1e300
    assert opt.lr == 1e300


def test_an_assigned_option_brings_its_state() -> None:
    p, g = np.ones(3), np.ones(3)
    opt = fs.SGD(p, lr=0.5)
    opt.step(g)
    opt.param_groups[0]["momentum"] = 0.5
    opt.step(g)
    opt.param_groups[0]["ema"] = 0.5
    opt.step(g)
    assert [*opt.state] == ["b", "ema", "t"]
    with pytest.raises(ValueError, match="momentum=-1"):
        opt.param_groups[0]["momentum"] = -1
    with pytest.raises(ValueError, match="nesterov=True"):
        opt.param_groups[0].update(nesterov=True, dampening=0.5)
    assert opt.param_groups[0]["momentum"] == 0.5


@for_each([*BASES, *CUSTOM_BASES])
def test_a_rate_costs_no_more_than_its_assignment(case: Case) -> None:
    """No check of anything else runs, and the step after it makes the calls of any other."""
    p, g = np.ones(5, np.float32), np.ones(5, np.float32)
    opt = case.optimizer(p, **{**case.options, "lr": 0.5})
    bound = case.options.get("decay_scale") == "schedule"
    for _ in range(3):
        opt.step(g)
    assigning = python_calls(lambda: setattr(opt, "lr", 0.25))
    assert assigning[:2] == ["__setattr__", "__setitem__"]
    assert bound or len(assigning) == 2
    assert bound or "settle" not in python_calls(lambda: opt.step(g))


@for_each(BASES)
def test_another_hyperparameter_is_checked_alone(case: Case) -> None:
    opt = case.optimizer(np.ones(5), **case.options)
    opt.step(np.ones(5))
    group = opt.param_groups[0]
    assert python_calls(lambda: group.__setitem__("weight_decay", 0.25)).count("non_negative") == 1
    assert not {"betas", "flag", "fraction", "rate"} & {
        *python_calls(lambda: group.__setitem__("weight_decay", 0.125))
    }
