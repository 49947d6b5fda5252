"""Schedules: against their walked twins and torch's, and what all of them promise."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import math
import pickle
import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import pytest
import rates as walked
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs

from fusedstep import schedules
from fusedstep.program import plot
from fusedstep.schedules import (
    SCHEDULES,
    Schedule,
    constant,
    cosine,
    exponential,
    one_cycle,
    piecewise,
    polynomial,
    restarts,
    sequence,
    step,
    warmup,
)

Array: TypeAlias = np.ndarray[Any, Any]

HUGE = [2**31, 2**53 + 1, 2**63, 10**18, 10**300]


def per_schedule(cases: Sequence[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rate", cases, ids=repr)


# ---- the formulas ----

FORMULAS = [
    constant(0.1),
    piecewise([], [0.3]),
    piecewise([1, 2, 40], [0.1, 0.3, 0.0, 0.2]),
    exponential(0.1, rate=0.0),
    exponential(0.1, rate=0.02),
    step(0.1, every=7, factor=0.3),
    step(0.1, every=1, factor=0.0),
    polynomial(0.1, steps=90),
    polynomial(0.1, steps=90, power=0.9, end=0.03),
    polynomial(0.01, steps=1, power=3, end=0.2),
    warmup(0.1, steps=70),
    warmup(0.1, steps=1, start=0.3),
    warmup(0.1, steps=33, start=0.04),
    cosine(0.1, steps=90),
    cosine(0.1, steps=1, end=0.03),
    cosine(0.3, steps=77, end=0.7),
    restarts(0.1, steps=1),
    restarts(0.1, steps=13, end=0.02),
    restarts(0.1, steps=1, factor=2),
    restarts(0.1, steps=3, factor=3, end=0.02),
    restarts(0.1, steps=10, factor=1.1),
    restarts(0.1, steps=10, factor=1.3),
    restarts(0.1, steps=7, factor=1.5, end=0.02),
    restarts(0.1, steps=100, factor=1000),
    one_cycle(0.1, steps=90),
    one_cycle(0.1, steps=17, pct_start=0.45, div_factor=3, final_div_factor=10),
    one_cycle(0.1, steps=90, pct_start=0),
    one_cycle(0.1, steps=90, pct_start=1),
    one_cycle(0.1, steps=2),
    one_cycle(0.1, steps=1),
    sequence([constant(0.2)], []),
    sequence([warmup(0.1, 20), cosine(0.1, 50), constant(0.05)], [20, 30]),
    sequence([sequence([warmup(0.1, 9), step(0.1, 5, 0.5)], [9]), restarts(0.1, 8, 1.5)], [31]),
]


def walk(rate: Schedule) -> walked.Rates:
    """The rates of `rate`, from the function of its name in rates.py."""
    name, *_ = rate.to_dict().values()
    names = inspect.signature(SCHEDULES[name]).parameters
    arguments = dict(zip(names, rate.arguments, strict=True))
    if name == "sequence":
        arguments["schedules"] = [walk(part) for part in arguments["schedules"]]
    rates: walked.Rates = getattr(walked, name)(**arguments)
    return rates


@per_schedule(FORMULAS)
def test_rates_are_those_of_a_walk_in_long_double(rate: Schedule) -> None:
    # Rounding is relative to the largest of the rates: near the end of a cosine they cancel.
    expected = np.array([*islice(walk(rate), 2000)], float)
    actual = np.array([rate(t) for t in range(1, 2001)])
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-13 * expected.max())


def test_every_schedule_is_walked() -> None:
    assert {rate.make.__name__ for rate in FORMULAS} == SCHEDULES.keys()
    assert {*SCHEDULES, "SCHEDULES", "Schedule"} == {*schedules.__all__}
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse(inspect.getsource(walked)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }
    assert "fractions" in imported
    assert not [name for name in imported if "fusedstep" in name]


@pytest.mark.parametrize("factor", [1.0, 1.1, 1.2, 1.25, 1.3, 1.5, 1.7, 2, 2.5, 3, 10])
def test_restarts_happen_at_the_step_where_a_period_begins(factor: float) -> None:
    """Whole steps at which a period begins have exactly lr, however the factor rounds."""
    rate = restarts(0.1, steps=10_000, factor=factor)
    exact, begin, length = Fraction(str(factor)), Fraction(0), Fraction(10_000)
    for _ in range(5):
        begin, length = begin + length, length * exact
        if begin.denominator == 1:
            assert rate(begin.numerator + 1) == 0.1
            assert 0 < rate(begin.numerator) < 1e-6


TORCH: dict[str, tuple[Callable[[int], float], Callable[[Any], Callable[[Any], Any]], int]] = {
    "constant": (constant(0.1), lambda s: lambda o: s.ConstantLR(o, 1.0, 5), 100),
    "StepLR": (step(0.1, 7, 0.3), lambda s: lambda o: s.StepLR(o, 7, 0.3), 100),
    "MultiStepLR": (
        piecewise([4, 9], [0.1, 0.01, 0.001]),
        lambda s: lambda o: s.MultiStepLR(o, [4, 9], 0.1),
        100,
    ),
    # torch's first step has lr itself, ours lr·e^(-rate)
    "ExponentialLR": (
        exponential(0.1 * math.exp(0.02), 0.02),
        lambda s: lambda o: s.ExponentialLR(o, math.exp(-0.02)),
        100,
    ),
    "PolynomialLR": (
        polynomial(0.1, 40, power=2.5),
        lambda s: lambda o: s.PolynomialLR(o, 40, 2.5),
        100,
    ),
    # torch's counts from 0 and so is one step behind
    "LinearLR": (
        lambda t: 0.03 if t == 1 else warmup(0.1, 20, start=0.03)(t - 1),
        lambda s: lambda o: s.LinearLR(o, 0.3, 1.0, 20),
        100,
    ),
    # torch's rises again after that
    "CosineAnnealingLR": (
        cosine(0.1, 40, end=0.02),
        lambda s: lambda o: s.CosineAnnealingLR(o, 40, 0.02),
        41,
    ),
    "CosineAnnealingWarmRestarts": (
        restarts(0.1, 10, factor=2, end=0.02),
        lambda s: lambda o: s.CosineAnnealingWarmRestarts(o, 10, 2, 0.02),
        500,
    ),
    "CosineAnnealingWarmRestarts of one length": (
        restarts(0.1, 7),
        lambda s: lambda o: s.CosineAnnealingWarmRestarts(o, 7),
        100,
    ),
    # torch's ends with an error there
    "OneCycleLR": (
        one_cycle(0.1, 50),
        lambda s: lambda o: s.OneCycleLR(o, 0.1, 50, cycle_momentum=False),
        50,
    ),
    "OneCycleLR of other shape": (
        one_cycle(0.1, 51, 0.45, 10, 100),
        lambda s: (
            lambda o: s.OneCycleLR(
                o,
                0.1,
                51,
                pct_start=0.45,
                div_factor=10,
                final_div_factor=100,
                cycle_momentum=False,
            )
        ),
        51,
    ),
    "SequentialLR": (
        sequence([step(0.1, 3, 0.5), restarts(0.1, 8)], [11]),
        lambda s: (
            lambda o: s.SequentialLR(
                o, [s.StepLR(o, 3, 0.5), s.CosineAnnealingWarmRestarts(o, 8)], [11]
            )
        ),
        100,
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_rates_are_those_of_torch(name: str) -> None:
    torch: Any = needs("torch", "torch")
    rate, made, steps = TORCH[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = made(torch.optim.lr_scheduler)(optimizer)
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        if len(expected) < steps:
            optimizer.step()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # SequentialLR's, of itself
                scheduler.step()
    actual = [rate(t) for t in range(1, steps + 1)]
    assert actual == pytest.approx(expected, rel=1e-12, abs=1e-15)


# ---- what all of them promise ----

some_rate = st.floats(0, 1e300)
some_steps = st.integers(1, 10**6)
simple = st.one_of(
    st.builds(constant, some_rate),
    st.builds(exponential, some_rate, some_rate),
    st.builds(step, some_rate, some_steps, st.floats(0, 1)),
    st.builds(polynomial, some_rate, some_steps, st.floats(1e-6, 1e6), some_rate),
    st.builds(warmup, some_rate, some_steps, some_rate),
    st.builds(cosine, some_rate, some_steps, some_rate),
    st.builds(restarts, some_rate, some_steps, st.floats(1, 1000), some_rate),
    st.builds(
        one_cycle, some_rate, some_steps, st.floats(0, 1), st.floats(1, 1e6), st.floats(1, 1e6)
    ),
    st.lists(some_steps, unique=True, max_size=4).flatmap(
        lambda steps: st.builds(
            piecewise,
            st.just(sorted(steps)),
            st.lists(some_rate, min_size=len(steps) + 1, max_size=len(steps) + 1),
        )
    ),
)


def sequences(parts: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    return st.lists(some_steps, max_size=3).flatmap(
        lambda steps: st.builds(
            sequence,
            st.lists(parts, min_size=len(steps) + 1, max_size=len(steps) + 1),
            st.just(steps),
        )
    )


any_schedule = st.recursive(simple, sequences, max_leaves=6)


@settings(deadline=None)
@given(any_schedule, st.integers(1, 2**64))
def test_rates_are_finite_floats_and_never_negative(rate: Schedule, t: int) -> None:
    for at in (t, t % 1000 + 1, *HUGE):
        value = rate(at)
        assert type(value) is float
        assert 0 <= value < math.inf
        assert value == rate(at)
    assert 0 <= rate.lr < math.inf


@settings(deadline=None)
@given(any_schedule)
def test_a_schedule_comes_back_equal_from_all_that_it_can_be_written_as(rate: Schedule) -> None:
    for twin in (
        Schedule.from_dict(json.loads(json.dumps(rate.to_dict()))),
        pickle.loads(pickle.dumps(rate)),
        copy.deepcopy(rate),
        eval(repr(rate), {**SCHEDULES}),
        plot.read(repr(rate)),
    ):
        assert twin == rate
        assert hash(twin) == hash(rate)
        assert [twin(t) for t in (1, 2, 999, 10**7)] == [rate(t) for t in (1, 2, 999, 10**7)]


@settings(deadline=None)
@given(st.floats(1e-300, 1e300), some_steps, some_rate, st.floats(1e-6, 100))
def test_the_ends_are_exact_and_are_kept(lr: float, steps: int, end: float, power: float) -> None:
    for rate in (polynomial(lr, steps, power, end), cosine(lr, steps, end)):
        assert rate(1) == lr
        assert rate(steps + 1) == end
        assert all(rate(steps + later) == end for later in (2, 1000, *HUGE))
    rise = warmup(lr, steps, end)
    assert all(rise(steps + later) == lr for later in (0, 1, 1000, *HUGE))
    cycle = one_cycle(lr, steps)
    last = lr / 25 / 1e4
    assert all(cycle(steps + later) == last for later in (0, 1, 1000, *HUGE))
    for again in (restarts(lr, steps, end=end), restarts(lr, steps, 2, end), step(lr, steps, 0.5)):
        assert again(1) == lr
    assert restarts(lr, steps, 1, end)(steps + 1) == lr
    assert restarts(lr, steps, 2, end)(3 * steps + 1) == lr


@settings(deadline=None)
@given(some_rate, some_steps, some_rate, st.floats(0.1, 10), st.integers(1, 10**6))
def test_rates_are_monotonic(lr: float, steps: int, end: float, power: float, t: int) -> None:
    """Up to the rounding of the mean of two rates."""
    high, low = max(lr, end), min(lr, end)
    slack = 4e-16 * high
    for rate in (
        polynomial(high, steps, power, low),
        cosine(high, steps, low),
        exponential(high, power),
        step(high, steps, 0.5),
    ):
        assert rate(t + 1) <= rate(t) + slack
        assert rate(t) <= high + slack
    for rate in (polynomial(low, steps, power, high), warmup(high, steps, low)):
        assert rate(t + 1) >= rate(t) - slack
        assert rate(t) >= low - slack
    assert low - slack <= restarts(high, steps, 1 + power, low)(t) <= high + slack


def test_a_schedule_cannot_be_changed() -> None:
    rate = cosine(0.1, 10)
    with pytest.raises(AttributeError):
        rate.arguments = (0.2, 10, 0.0)  # type: ignore[misc]
    steps = [3, 5]
    kept = piecewise(steps, [0.1, 0.2, 0.3])
    steps[0] = 1
    assert kept == piecewise([3, 5], (0.1, 0.2, 0.3))
    assert kept != piecewise([3, 6], [0.1, 0.2, 0.3])
    steps_of_numpys: Any = np.int64(10)
    end: Any = np.float32(0.5)
    assert cosine(1, steps_of_numpys) == cosine(1.0, 10, end=-0.0)
    assert cosine(1, 10) != polynomial(1, 10)
    assert repr(cosine(1, steps_of_numpys, end)) == "cosine(lr=1.0, steps=10, end=0.5)"


def test_base_rates() -> None:
    assert [rate.lr for rate in (cosine(0.1, 3), warmup(0.2, 3), one_cycle(0.3, 3))] == [
        *(0.1, 0.2, 0.3)
    ]
    assert piecewise([3], [0.1, 0.2]).lr == 0.2
    assert sequence([warmup(0.2, 3), sequence([constant(0.3), constant(0.1)], [1])], [3]).lr == 0.3


def test_functions_tell_what_they_take() -> None:
    assert str(inspect.signature(cosine)).startswith("(lr: float, steps: int, end: float = 0.0)")
    for name, make in SCHEDULES.items():
        assert "t" not in inspect.signature(make).parameters
        text = inspect.getdoc(make) or ""
        assert ">>> " in text, name
        for argument in inspect.signature(make).parameters:
            assert argument in text, (name, argument)


BAD_ARGUMENTS: list[tuple[Callable[..., object], str]] = [
    (lambda: cosine(-0.1, 10), "cosine: lr=-0.1 is negative; pass 0 or more"),
    (lambda: cosine(float("nan"), 10), "cosine: lr=nan.*finite"),
    (lambda: cosine("0.1", 10), "cosine: lr='0.1'.*pass a number"),  # type: ignore[arg-type]
    (lambda: cosine(True, 10), "cosine: lr=True.*pass a number"),
    (lambda: cosine(0.1, 0), "cosine: steps=0; pass a whole number from 1"),
    (lambda: cosine(0.1, 1.5), "cosine: steps=1.5; pass a whole"),  # type: ignore[arg-type]
    (lambda: cosine(0.1, 10, math.inf), "cosine: end=inf.*finite"),
    (lambda: cosine(0.1), "cosine: missing a required argument: 'steps'"),  # type: ignore[call-arg]
    (lambda: cosine(0.1, 5, begin=1), "cosine: .*'begin'"),  # type: ignore[call-arg]
    (lambda: warmup(0.1, 5, -1), "warmup: start=-1 is negative"),
    (lambda: exponential(0.1, -1), "exponential: rate=-1 is negative"),
    (lambda: step(0.1, 5, 1.5), r"step: factor=1.5 is outside \[0, 1\]"),
    (lambda: step(0.1, 0, 0.5), "step: every=0"),
    (lambda: polynomial(0.1, 5, power=0), "polynomial: power=0; pass a number above 0"),
    (lambda: restarts(0.1, 5, 0.5), r"restarts: factor=0.5 is outside \[1, 1000\]"),
    (lambda: one_cycle(0.1, 5, 1.5), r"one_cycle: pct_start=1.5 is outside \[0, 1\]"),
    (lambda: one_cycle(0.1, 5, div_factor=0.5), "one_cycle: div_factor=0.5 is outside"),
    (lambda: piecewise([5, 5], [1, 2, 3]), r"piecewise: boundaries=\[5, 5\]; pass .* increasing"),
    (lambda: piecewise([5, 3], [1, 2, 3]), "increasing order"),
    (lambda: piecewise([0, 3], [1, 2, 3]), r"piecewise: boundaries\[0\]=0; pass a whole number"),
    (lambda: piecewise([5], [1]), "rates has 1 and boundaries 1; pass one more of rates"),
    (lambda: piecewise([5], [1, -2]), r"piecewise: rates\[1\]=-2 is negative"),
    (lambda: piecewise(5, [1, 2]), "boundaries=5 .*pass a list"),  # type: ignore[arg-type]
    (lambda: sequence([], []), "schedules has 0 and steps 0; pass one more of schedules"),
    (lambda: sequence([constant(1)], [5]), "sequence: schedules has 1 and steps 1"),
    (lambda: sequence([constant(1), abs], [5]), r"schedules\[1\]=<.*abs>.*constant\(0.1\)"),  # type: ignore[list-item]
    (lambda: cosine(0.1, 10)(0), "t=0; steps count from 1"),
    (lambda: Schedule.from_dict({}), "{} .dict. is no schedule's dict"),
    (lambda: Schedule.from_dict(7), "7 .int. is no schedule's dict"),  # type: ignore[arg-type]
    (lambda: Schedule.from_dict({"schedule": "sine"}), "'sine'.*unknown; there are constant,"),
    (lambda: Schedule.from_dict({"schedule": []}), "unknown"),
    (
        lambda: Schedule.from_dict({"schedule": "constant", "rate": 1}),
        "'constant' lacks 'lr' and has the surplus 'rate'",
    ),
    (lambda: Schedule.from_dict({"schedule": "constant", "lr": -1}), "constant: lr=-1"),
]


@pytest.mark.parametrize(("call", "message"), BAD_ARGUMENTS)
def test_bad_arguments(call: Callable[..., object], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
