"""Contestants take turns, and what is written down of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from cases import BASES, TRAINING

import fusedstep as fs
from fusedstep.benchmarks import contestants, measuring, workloads
from fusedstep.benchmarks.contestants.contestant import BuildError, Contestant, Entry
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import measure, quartiles
from fusedstep.benchmarks.problem import ADAMW, Problem
from fusedstep.benchmarks.records import LIMIT, Results
from fusedstep.benchmarks.turns import IN_LOOP, LEAST_TURNS, NO_STEP, order, take_turns
from fusedstep.benchmarks.workloads import Workload

SHAPES = ((33,), (5, 7), (1,))


# ---- turns ----


@pytest.mark.parametrize("n", range(1, 14))
def test_each_comes_directly_after_each_other_equally_often(n: int) -> None:
    turns = [order(n, turn) for turn in range(2 * n)]
    assert all(sorted(turn) == [*range(n)] for turn in turns)
    pairs = Counter(pair for turn in turns for pair in pairwise(turn))
    assert {*pairs.values()} <= {2}
    assert len(pairs) == n * (n - 1)


class World:
    """A clock that moves when something is done, and a diary of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []

    def clock(self) -> float:
        return self.now

    def doing(self, what: str, seconds: float) -> Callable[[], None]:
        def do() -> None:
            self.done.append(what)
            self.now += seconds

        return do

    def entry(self, what: str, seconds: float, threads: int = 1, ready: bool = False) -> Entry:
        preparing = self.doing(f"ready {what}", 10.0) if ready else None
        return Entry(self.doing(what, seconds), list, threads, preparing)


def test_contestants_take_turns_until_the_time_is_up() -> None:
    world = World()
    entries = {name: world.entry(name, seconds) for name, seconds in (("a", 1.0), ("b", 3.0))}
    told: list[float] = []
    found = take_turns(entries, 60.0, progress=told.append, clock=world.clock)
    assert found["a"].turns == [1.0] * len(found["a"].turns)
    assert found["b"].turns == [3.0] * len(found["a"].turns)
    assert world.done[:6] == [*"aaabbb"], "twice to compile, once to see how long it is"
    turns = "".join(world.done[6:])
    assert turns.startswith("aabb" + "bbaa" + "aabb"), "one is not timed, one is"
    assert len(found["a"].turns) == 8, "60 seconds are over within the eighth of 8 seconds"
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 16 + 1
    assert found["a"].steps == 8


def test_there_are_some_turns_however_long_they_are() -> None:
    world = World()
    found = take_turns({"a": world.entry("a", 100.0)}, 1.0, clock=world.clock)
    assert found["a"].turns == [100.0] * LEAST_TURNS


def test_short_steps_are_timed_together() -> None:
    world = World()
    found = take_turns({"a": world.entry("a", 2**-20)}, 0.0, clock=world.clock)
    assert found["a"].turns == [2**-20] * 5
    assert found["a"].steps == 5 * 105 * 49, "0.1 ms at once, and 5 ms a turn"


def test_making_ready_is_not_timed() -> None:
    world = World()
    found = take_turns({"a": world.entry("a", 2e-3, ready=True)}, 0.0, clock=world.clock)
    assert found["a"].turns == pytest.approx([2e-3] * 5)
    assert world.done[:4] == ["ready a", "a", "ready a", "a"]


def test_products_are_timed_apart_from_steps_and_once_without() -> None:
    world = World()
    entries = {"a": world.entry("a", 2e-3)}
    found = take_turns(entries, 0.0, product=world.doing("product", 6e-3), clock=world.clock)
    assert [*found] == [NO_STEP, "a"]
    assert found["a"].turns == pytest.approx([2e-3] * 5)
    assert found["a"].products == pytest.approx([6e-3] * 5 * IN_LOOP)
    assert found[NO_STEP].products == pytest.approx([6e-3] * 5 * IN_LOOP)
    assert found[NO_STEP].turns == [0.0] * 5
    steps = [what for what in world.done if what == "a"]
    assert len(steps) * 2 == world.done.count("product")


def test_each_has_its_own_number_of_threads_and_all_is_put_back(threads: int) -> None:
    seen = set()

    def step(name: str) -> Callable[[], None]:
        return lambda: seen.add((name, fs.get_num_threads()))

    entries = {name: Entry(step(name), list, n) for name, n in (("a", 1), ("b", 3))}
    take_turns(entries, 0.0)
    assert seen == {("a", 1), ("b", 3)}
    assert fs.get_num_threads() == threads


def test_a_disturbed_turn_moves_no_median() -> None:
    assert quartiles([1.0, 2.0, 3.0, 4.0, 1000.0]) == (2.0, 3.0, 4.0)


# ---- what is written down ----


@pytest.mark.parametrize(
    ("name", "dtype", "moved"),
    [
        ("sgd", np.float32, 12),
        ("momentum", np.float32, 20),
        ("adagrad", np.float32, 20),
        ("rmsprop", np.float32, 20),
        ("adamw", np.float32, 28),
        ("adamw", np.float64, 56),
        ("adam-amsgrad", np.float32, 36),
        ("rmsprop-centered-momentum", np.float32, 36),
        ("adamw-whole", np.float32, 44),
    ],
)
def test_bytes_that_a_step_moves_for_each_element(name: str, dtype: Any, moved: int) -> None:
    (case,) = (case for case in [*BASES, TRAINING] if case.name == name)
    assert Problem(case, SHAPES, dtype).bytes == moved


class Fixed(Contestant):
    """A contestant whose step takes as long as it says."""

    def __init__(self, name: str, step: Callable[[], None], reason: str | None = None) -> None:
        self.name, self.step, self.reason = name, step, reason

    def why_unfit(self, problem: Problem) -> str | None:
        return self.reason

    def why_slow_to_start(self) -> str | None:
        return "slow" if self.name == "slow" else None

    def build(self, problem: Problem) -> Entry:
        if self.name == "broken":
            raise BuildError("it broke")
        return Entry(self.step, list, 1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose clock the measurement takes for the time."""
    made = World()

    def turns(entries: Any, seconds: float, before: Any, progress: Any) -> Any:
        return take_turns(entries, seconds, before, progress, clock=made.clock)

    monkeypatch.setattr(measuring, "take_turns", turns)
    return made


def test_a_record_holds_what_was_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "caches", lambda: {"L1": 1, "L2": 16_000, "L3": 10**6})
    case = Workload("two", ((500,), (10, 50)))
    there = [
        Fixed("a", world.doing("a", 0.02)),
        Fixed(LIMIT, world.doing("limit", 0.01)),
        Fixed("slow", world.doing("slow", 0.5)),
        Fixed("unfit", world.doing("unfit", 1.0), "unfit"),
        Fixed("broken", world.doing("broken", 1.0)),
    ]
    group = measure(case, ADAMW, np.float32, there, seconds=0.0, patient=False)
    assert group.missing == {"slow": "slow", "unfit": "unfit", "broken": "it broke"}
    a, limit = group.records
    assert (a.workload, a.tensors, a.elements, a.case) == ("two", 2, 1000, "adamw")
    assert (a.dtype, a.loop, a.contestant, a.threads) == ("float32", "alone", "a", 1)
    assert [a.seconds, a.low, a.high] == pytest.approx([0.02] * 3)
    assert (a.steps, a.bytes, limit.steps) == (5, 28, 5)
    assert a.share == pytest.approx(0.5)
    assert limit.share == pytest.approx(1.0)
    assert a.speed == pytest.approx(28 * 1000 / 0.02 / 1e9)
    assert a.cache == "L2"
    assert (a.product, a.product_alone) == (None, None)
    assert group.turns["a"] == pytest.approx([0.02] * 5)


def test_without_the_limit_there_is_no_share(world: World) -> None:
    group = measure(
        workloads.equal(1, 10), ADAMW, np.float32, [Fixed("a", world.doing("a", 1.0))], seconds=0.0
    )
    assert group.records[0].share is None


def test_steps_that_drift_out_of_range_are_timed_without_warnings(world: World) -> None:
    """A centered RMSprop drifts so: the variance of constant gradients comes out below 0."""
    edge = np.array([-1.0, np.inf])

    def step() -> None:
        np.sqrt(edge) * 0
        world.now += 1.0

    group = measure(workloads.equal(1, 10), ADAMW, np.float32, [Fixed("a", step)], seconds=0.0)
    assert len(group.records) == 1


def test_in_a_loop_the_product_is_recorded_with_a_step_and_without(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_after = {"a": 0.004, NO_STEP: 0.002}

    def multiply() -> None:
        after = "a" if world.done[-1:] == ["a"] else NO_STEP
        world.done.append("product")
        world.now += slow_after[after]

    monkeypatch.setattr(measuring, "product", lambda loop, threads: multiply)
    who = Fixed("a", world.doing("a", 0.001))
    group = measure(workloads.equal(1, 10), ADAMW, np.float32, [who], "numpy", 0.0)
    (record,) = group.records
    assert record.loop == "numpy"
    assert record.product == pytest.approx(0.004)
    assert record.product_alone == pytest.approx(0.002)


def test_an_unknown_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="loop='jax' is unknown; pass 'alone', 'numpy' or 'torch'"):
        measure(workloads.equal(1, 10), ADAMW, np.float32, [], "jax")


def test_a_product_of_numpy_is_one() -> None:
    found: Any = measuring.product("numpy", 1)()
    assert found.shape == (measuring.SIDE, measuring.SIDE)
    assert found.dtype == np.float32


def test_our_own_steps_are_measured_for_real() -> None:
    ours = [contestants.DEFAULT, contestants.ONE_THREAD, contestants.LIMIT]
    group = measure(workloads.equal(2, 100), ADAMW, np.float32, ours, seconds=0.0)
    assert all(record.seconds > 0 for record in group.records)
    assert len(group.records) + len(group.missing) == 3
    json.dumps(Results(machine(), group.missing, group.records).to_dict())
