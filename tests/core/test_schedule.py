"""Schedules in the optimizers: the same as lr set by hand, refusals, going on."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import oracle
import pytest
import rates as walked
from cases import BASES, CUSTOM_BASES, Case, differing_bits, ordinary
from marks import ON_CPU, on_each_backend
from trajectories import TOLERANCE, assert_agree, problem

import fusedstep as fs
from fusedstep.schedules import constant, cosine, polynomial, restarts, sequence, warmup

Array: TypeAlias = np.ndarray[Any, Any]

# ---- in the optimizers ----

RATE = sequence([warmup(0.1, 3), restarts(0.1, 4, 1.5, end=0.01)], [3])
STEPS = 12

ON_EACH_BACKEND = [
    pytest.param(case, *backend.values, marks=backend.marks, id=f"{case.name}-{backend.values[0]}")
    for cases, backends in ((BASES, ON_CPU), (CUSTOM_BASES, ON_CPU[1:]))
    for case in cases
    for backend in backends
]


def gradients(seed: int = 0, steps: int = STEPS) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [ordinary(rng, 40, np.float32) for _ in range(steps)]


def make(case: Case, p: Any, lr: Any, backend: str = "auto") -> fs.Optimizer:
    optimizer: fs.Optimizer = case.optimizer(p, backend=backend, **{**case.options, "lr": lr})
    return optimizer


def assert_same(a: Any, b: Any) -> None:
    """Compare the states of two parameters."""
    assert a.keys() == b.keys()
    assert a["t"] == b["t"]
    assert all(differing_bits(a[letter], b[letter]) == 0 for letter in a if letter != "t")


@pytest.mark.parametrize(("case", "backend"), ON_EACH_BACKEND)
def test_a_schedule_is_lr_set_by_hand(case: Case, backend: str) -> None:
    """Bits are equal, for a schedule and a function; αₜ and ηₜ are those of the step's own t."""
    given, own, by_hand = np.ones((3, 40), np.float32)
    scheduled = make(case, given, RATE, backend)
    assigned = make(case, own, RATE.lr, backend)
    assigned.lr = lambda t: np.float64(RATE(t))
    expected = make(case, by_hand, RATE.lr, backend)
    for t, g in enumerate(gradients(), 1):
        scheduled.step(g)
        assigned.step(g)
        expected.lr = RATE(t)
        expected.step(g)
    for p, optimizer in ((given, scheduled), (own, assigned)):
        assert differing_bits(p, by_hand) == 0
        assert_same(optimizer.state, expected.state)
    assert scheduled.lr is RATE


@on_each_backend
def test_groups_and_parameters_have_a_t_of_their_own(backend: str) -> None:
    """Each as if it were alone: skipped parameters are where they were in the schedule."""
    rates: list[Any] = [RATE, RATE, lambda t: 0.1 / t, 0.05]
    pattern = [(1, 1, 1, 1), (1, 0, 1, 0), (0, 0, 1, 1), (1, 1, 0, 0), (0, 0, 0, 0), (1, 1, 1, 1)]
    together, alone = np.ones((2, 4, 40), np.float32)
    grouped = fs.AdamW(
        [
            {"params": [together[0], together[1]], "lr": RATE},
            {"params": [together[2]], "lr": rates[2]},
            {"params": [together[3]]},
        ],
        lr=0.05,
        backend=backend,
    )
    expected = [fs.AdamW(p, lr=0.0, backend=backend) for p in alone]
    done = [0, 0, 0, 0]
    for present, g in zip(pattern, gradients(), strict=False):
        a, b, c, d = (g * k if there else None for k, there in enumerate(present, 1))
        grouped.step([[a, b], [c], [d]])
        for k, own in enumerate((a, b, c, d)):
            if own is not None:
                done[k] += 1
                expected[k].lr = rates[k](done[k]) if callable(rates[k]) else rates[k]
                expected[k].step(own)
    assert differing_bits(together, alone) == 0
    states = [state for group in grouped.state for state in group]
    for state, single in zip(states, expected, strict=True):
        assert_same(state, single.state)
    assert [group["lr"] for group in grouped.param_groups] == [RATE, rates[2], 0.05]
    with pytest.raises(ValueError, match=r"lr differs between the groups: \[sequence\(.*, 0.05\]"):
        _ = grouped.lr


def test_a_function_is_asked_once_a_step_for_each_cohort() -> None:
    asked: list[int] = []

    def rate(t: int) -> float:
        asked.append(t)
        return 0.1

    params = [np.ones(3, np.float32), np.ones(3, np.float32)]
    optimizer = fs.SGD(params, lr=rate)
    g = np.ones(3, np.float32)
    assert asked == []
    for _ in range(3):
        optimizer.step([g, g])
    assert asked == [1, 2, 3]
    optimizer.step([g, None])
    asked.clear()
    optimizer.step([g, None])
    assert asked == [5]
    optimizer.step([g, g])
    asked.clear()
    optimizer.step([g, g])
    assert asked == [7, 5]


def test_a_custom_rule_sees_the_number() -> None:
    seen: list[Any] = []

    def prepare(h: Any, t: int) -> dict[str, float]:
        seen.append((t, h.lr))
        return {"rate": h.lr / t}

    @fs.rule(prepare=prepare, lr=1.0)
    def Falling(p, g, h):  # type: ignore[no-untyped-def]  # noqa: N802
        return p - h.rate * g

    p = np.ones(3)
    optimizer = Falling(p, lr=polynomial(0.5, 4), backend="numpy")
    seen.clear()
    for _ in range(3):
        optimizer.step(np.ones(3))
    assert seen == [(1, 0.5), (2, 0.375), (3, 0.25)]
    assert p == pytest.approx(1 - 0.5 - 0.375 / 2 - 0.25 / 3)


@on_each_backend
@pytest.mark.parametrize("own", [False, True], ids=["schedule", "function"])
def test_adamw_is_algorithm_2_of_its_paper(backend: str, own: bool) -> None:
    """ηₜ comes from a schedule, whose base rate is the paper's α, or from a function and its α."""
    rate = sequence([warmup(0.02, 10), cosine(0.02, 35, end=0.001)], [10])
    start, every = problem(np.float64)
    p = start.copy()
    lr: Any = {"lr": lambda t: rate(t), "initial_lr": 0.02} if own else {"lr": rate}
    options: dict[str, Any] = {"weight_decay": 0.1, "decay_scale": "schedule"}
    optimizer = fs.AdamW(p, **lr, **options, backend=backend)
    actual: oracle.Trajectory = {letter: [] for letter in "pmv"}
    for g in every:
        optimizer.step(g)
        for letter, array in {**optimizer.state, "p": p}.items():
            if letter != "t":
                actual[letter].append(array.copy())
    parts = [walked.warmup(0.02, 10), walked.cosine(0.02, 35, end=0.001)]
    etas = [float(eta) / 0.02 for eta in islice(walked.sequence(parts, [10]), len(every))]
    expected = oracle.adamw(start, every, lr=0.02, schedule=etas, **options)
    assert_agree(actual, expected, start, TOLERANCE)


def test_initial_lr() -> None:
    """The base rate, if it is not given; each group's own; and what ηₜ is taken over."""

    def initial(lr: Any, **more: Any) -> Any:
        return fs.AdamW(np.ones(2), lr=lr, **more).param_groups[0]["initial_lr"]

    def function(t: int) -> float:
        return 0.1

    assert initial(0.3) == 0.3
    assert initial(cosine(0.2, 5)) == 0.2
    assert initial(cosine(0.2, 5), initial_lr=0.4) == 0.4
    assert initial(function) is None
    p, q = np.ones(2), np.ones(2)
    optimizer = fs.AdamW(
        [{"params": p, "lr": constant(0.2)}, {"params": q, "initial_lr": 0.4}],
        lr=0.1,
        weight_decay=0.5,
        decay_scale="schedule",
    )
    optimizer.step([np.zeros(2), np.zeros(2)])
    assert [p[0], q[0]] == [0.5, 0.875]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_makes_up_no_initial_lr(way: Callable[[Any], Any]) -> None:
    """There was none under a function; a rate that was assigned later is not what it is over."""
    optimizer = fs.AdamW(np.ones(2), lr=own_function)
    optimizer.lr = 0.5
    copied = way(optimizer)
    assert copied.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    for each in (optimizer, copied):
        with pytest.raises(ValueError, match="initial_lr=None"):
            each.param_groups[0]["decay_scale"] = "schedule"


def own_function(t: int) -> float:
    return 0.5 / t


# ---- refusals ----

BAD_RATES: dict[str, Any] = {
    "NaN": (float("nan"), r"nan \(float\)"),
    "infinite": (math.inf, r"inf \(float\)"),
    "negative": (-0.1, r"-0.1 \(float\)"),
    "None": (None, "None"),
    "complex": (1j, r"1j \(complex\)"),
    "text": ("0.1", r"'0.1' \(str\)"),
    "boolean": (True, r"True \(bool\)"),
    "array": (np.ones(2), r"an array of shape \(2,\) .*"),
    "array of one": (np.array(0.1), r"an array of shape \(\) .*"),
    "a schedule": (constant(0.1), r"constant\(lr=0.1\) \(Schedule\)"),
    "too large": (10**400, r"1000.* \(int\)"),
}


@pytest.mark.parametrize("name", BAD_RATES)
@on_each_backend
def test_bad_rates(name: str, backend: str) -> None:
    """Nothing is written and no t changes, at the first step, at a later one, in a new layout."""
    bad, message = BAD_RATES[name]
    value: Any = bad
    p, q = np.ones(4), np.ones(4)
    optimizer = fs.Adam(
        [{"params": p}, {"params": q, "lr": lambda t: value}], lr=cosine(0.1, 9), backend=backend
    )
    g = np.ones(4)
    for done, grads in enumerate(([g, g], [g, g], [None, g])):
        before = p.copy(), q.copy(), copy.deepcopy(optimizer.state_dict()["state"])
        with pytest.raises(
            (TypeError, ValueError),
            match=rf"params\[1\]: lr=<function.* returned {message} at t={done + 1}; return a "
            "finite number, 0 or more",
        ):
            optimizer.step(grads)
        assert [differing_bits(p, before[0]), differing_bits(q, before[1])] == [0, 0]
        for state, kept in zip(optimizer.state, before[2], strict=True):
            assert_same(state, kept)
        value = 0.1
        optimizer.step([g, g])
        value = bad
    assert [state["t"] for state in optimizer.state] == [3, 3]


def test_errors_of_a_function_come_through_and_change_nothing() -> None:
    p = np.ones(2)
    optimizer = fs.SGD(p, lr=lambda t: 1 / (2 - t))
    optimizer.step(np.ones(2))
    with pytest.raises(ZeroDivisionError):
        optimizer.step(np.ones(2))
    assert (p == 0).all()
    assert optimizer.state["t"] == 1


def test_zeros_are_positive() -> None:
    """A rate of -0.0 counts as 0.0, as a number does."""
    bits = []
    rate: Any
    for rate in (-0.0, lambda t: -0.0, lambda t: np.float32(-0.0)):
        p = np.full(2, -0.0)
        fs.SGD(p, lr=rate).step(np.ones(2))
        bits.append(np.signbit(p).tolist())
    assert bits[0] == bits[1] == bits[2]


BAD_FUNCTIONS: list[tuple[Any, dict[str, Any], str]] = [
    (fs.SGD, {"lr": lambda: 0.1}, r"lr=<function.*cannot be called with t: .*`lambda t: 0.1 / t`"),
    (fs.SGD, {"lr": lambda t, x: 0.1}, "missing a required argument: 'x'"),
    (fs.SGD, {"lr": cosine}, "lr=<function cosine.*missing a required argument: 'steps'"),
    (fs.rules.Lion, {"lr": cosine}, "lr=<function cosine"),
    (fs.SGD, {"lr": [0.1, 0.2]}, r"lr=\[0.1, 0.2\].*pass a number"),
    (fs.SGD, {"momentum": constant(0.9)}, r"momentum=constant\(lr=0.9\).*pass a number"),
    (
        fs.AdamW,
        {"lr": own_function, "decay_scale": "schedule"},
        "decay_scale='schedule' with lr=<function own.*initial_lr=None.*pass as initial_lr",
    ),
    (fs.AdamW, {"lr": constant(0), "decay_scale": "schedule"}, "initial_lr=0.0"),
    (fs.AdamW, {"lr": cosine(0.1, 5), "initial_lr": -1}, "initial_lr=-1 is negative"),
]


@pytest.mark.parametrize(("optimizer", "options", "message"), BAD_FUNCTIONS)
def test_bad_functions(optimizer: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer(np.ones(2), **options)


def test_bad_assignments_change_nothing() -> None:
    optimizer = fs.AdamW(np.ones(2), lr=own_function)
    for values, message in (
        ({"lr": cosine}, "missing a required argument"),
        ({"lr": "cosine(0.1, 5)"}, "lr='cosine.*pass a number"),
        ({"decay_scale": "schedule"}, "initial_lr=None"),
        ({"decay_scale": "schedule", "lr": 0.1}, "initial_lr=None"),
        ({"decay_scale": "schedule", "initial_lr": 0}, "initial_lr=0.0"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            optimizer.param_groups[0].update(values)
    assert optimizer.lr is own_function
    assert optimizer.param_groups[0]["decay_scale"] == "lr"
    optimizer.param_groups[0].update(decay_scale="schedule", initial_lr=0.5)
    optimizer.step(np.ones(2))
    assert optimizer.state["t"] == 1


def test_a_ratio_that_overflows_is_refused() -> None:
    p = np.ones(2)
    optimizer = fs.AdamW(
        p, lr=lambda t: 1e3 if t == 2 else 0.1, initial_lr=1e-306, decay_scale="schedule"
    )
    optimizer.step(np.zeros(2))
    before = p.copy()
    with pytest.raises(ValueError, match=r"at t=2: .*lr=1000.0 and initial_lr=1e-306"):
        optimizer.step(np.zeros(2))
    assert differing_bits(p, before) == 0
    assert optimizer.state["t"] == 1


def test_steps_without_an_object_take_numbers() -> None:
    p, g, m, v = np.ones((4, 3))
    rate: Any
    for rate in (cosine(0.1, 5), own_function):
        with pytest.raises(TypeError, match=r"lr=.*; pass a number, what it gives for this t"):
            fs.functional.sgd(p, g, t=1, lr=rate)
        with pytest.raises(TypeError, match=r"lr=.*as `schedule\(t\)`"):
            fs.functional.adamw(p, g, m, v, t=1, lr=rate)
    assert (p == 1).all()


def test_a_rule_has_a_number_as_its_default() -> None:
    rate: Any = cosine(0.1, 5)
    with pytest.raises(TypeError, match=r"lr=cosine\(.*give the rule a number"):
        fs.rule(lr=rate)


# ---- going on ----

WAYS: dict[str, Callable[[Any], Any]] = {
    "state_dict": lambda saved: saved,
    "pickled state_dict": lambda saved: pickle.loads(pickle.dumps(saved)),
    "parameter groups as JSON": lambda saved: {
        **saved,
        "param_groups": json.loads(json.dumps(saved["param_groups"])),
    },
}


@pytest.mark.parametrize("way", [*WAYS, "pickle", "deepcopy"])
@pytest.mark.parametrize(
    "case", [BASES[1], BASES[15], BASES[-1], CUSTOM_BASES[0]], ids=lambda case: case.name
)
def test_goes_on_in_the_middle_of_a_schedule(case: Case, way: str) -> None:
    p, unbroken = np.ones((2, 40), np.float32)
    optimizer, whole = make(case, p, RATE), make(case, unbroken, RATE)
    first, rest = gradients()[:5], gradients()[5:]
    for g in first:
        optimizer.step(g)
    if way in WAYS:
        saved = WAYS[way](optimizer.state_dict())
        p = p.copy()
        resumed = make(case, p, 0.7)
        resumed.load_state_dict(saved)
    elif way == "pickle":
        p, resumed = pickle.loads(pickle.dumps((p, optimizer)))
    else:
        p, resumed = copy.deepcopy((p, optimizer))
    assert resumed.lr == RATE
    for g in rest:
        resumed.step(g)
    for g in first + rest:
        whole.step(g)
    assert differing_bits(p, unbroken) == 0
    assert_same(resumed.state, whole.state)


def test_a_function_of_the_user_is_not_saved() -> None:
    p, unbroken = np.ones((2, 40), np.float32)
    optimizer, whole = fs.AdamW(p, lr=own_function), fs.AdamW(unbroken, lr=own_function)
    for g in gradients()[:5]:
        optimizer.step(g)
    saved = optimizer.state_dict()
    assert saved["param_groups"][0]["lr"] is None
    assert b"own_function" not in pickle.dumps(saved)

    without = fs.AdamW(p, lr=0.25)
    with pytest.raises(
        ValueError, match=r"state_dict\['param_groups'\]\[0\]\['lr'\] is None.*in place of 0.25"
    ):
        without.load_state_dict(saved)
    assert without.lr == 0.25
    assert without.state["t"] == 0
    without.lr = own_function
    without.load_state_dict(saved)
    assert without.lr is own_function
    for g in gradients()[5:]:
        without.step(g)
    for g in gradients():
        whole.step(g)
    assert differing_bits(p, unbroken) == 0
    assert_same(without.state, whole.state)


def test_loading_replaces_a_function() -> None:
    optimizer = fs.SGD(np.ones(2), lr=own_function)
    for lr in (0.25, RATE):
        optimizer.load_state_dict(fs.SGD(np.ones(2), lr=lr).state_dict())
        assert optimizer.lr == lr


def test_bad_schedules_in_a_state_dict() -> None:
    optimizer = fs.SGD(np.ones(2), lr=cosine(0.1, 5))
    good = optimizer.state_dict()
    group = good["param_groups"][0]
    assert group["lr"] == {"schedule": "cosine", "lr": 0.1, "steps": 5, "end": 0.0}
    name = r"state_dict\['param_groups'\]\[0\]\['lr'\]: "
    for lr, message in (
        ({}, name + ".*no schedule's dict"),
        ({"schedule": "sine"}, name + "the schedule 'sine'"),
        ({**group["lr"], "lr": -1}, name + "cosine: lr=-1"),
        ("cosine", "lr='cosine'"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            optimizer.load_state_dict({**good, "param_groups": [{**group, "lr": lr}]})
        assert optimizer.lr == cosine(0.1, 5)


def test_repr_names_the_schedule() -> None:
    assert "lr=cosine(lr=0.1, steps=5, end=0.0)" in repr(fs.SGD(np.ones(2), lr=cosine(0.1, 5)))
