"""The measurement: contestants take turns, so that a machine that drifts favours none of them.

In its turn a contestant takes some steps that are not timed, so that the caches hold what they
can, and then some that are. Where steps are short several are timed together; a turn's figure is
the median of what was timed in it, and a contestant's the median of its turns. How many steps
make a turn follows from a first measurement. There are turns until the time is up that all of
them may take, but never fewer than `LEAST_TURNS`.

With a product, a matrix product is before each step, timed on its own, as is each step: the two
share the cores, so that neither can be judged alone. One more contestant then takes no steps.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from statistics import median, quantiles
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from fusedstep._backends.threads import get_num_threads, set_num_threads
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry, LeftOut
from fusedstep.benchmarks.machine import caches, nearest
from fusedstep.benchmarks.problem import Case, Problem
from fusedstep.benchmarks.records import LIMIT, Record
from fusedstep.benchmarks.workloads import Workload

LEAST_TURNS = 5
TURN = 5e-3
"""Seconds of the timed steps of a turn, if one step is not longer."""
TOGETHER = 1e-4
"""Seconds of what is timed together, if one step is not longer."""
IN_LOOP = 16
"""Timed steps of a turn with products, if they are over within `LOOP_TURN`."""
LOOP_TURN = 0.25
"""Seconds of them, if one step is not longer."""
UNTIMED = 4
"""One step is not timed for so many that are, and at least one."""

SIDE = 600
"""Of the matrices of a product."""

NO_STEP = "no step"


class Timing(NamedTuple):
    """What was found of one contestant."""

    turns: list[float]
    """Seconds of a step, for each turn."""

    steps: int
    """That were timed, in all turns."""

    products: list[float]
    """Seconds of the product before each of them."""


class Group(NamedTuple):
    """What was found of contestants that took turns."""

    records: list[Record]
    missing: dict[str, str]
    """Contestants that were left out, and why."""
    turns: dict[str, list[float]]
    """Seconds of a step in each turn, by contestant."""


Progress = Callable[[float], object]
"""Told the share of the work that is done, from 0 to 1."""


def measure(
    workload: Workload,
    case: Case,
    dtype: Any,
    contestants: Iterable[Contestant],
    loop: str = "alone",
    seconds: float = 5.0,
    progress: Progress | None = None,
    patient: bool = True,
) -> Group:
    """Time the step of each contestant that can take part.

    `loop` is "alone", or whose product is before each step: "numpy" or "torch". `seconds` is
    about what all turns take; what comes before them is not in it. Whoever is not `patient` goes
    without contestants that take minutes to start.
    """
    problem = Problem(case, workload.shapes, dtype)
    entries: dict[str, Entry] = {}
    missing: dict[str, str] = {}
    for contestant in contestants:
        reason = contestant.why_not(problem)
        if reason is None and not patient:
            reason = contestant.why_slow_to_start()
        if reason is None:
            try:
                entries[contestant.name] = contestant.build(problem)
            except LeftOut as error:
                reason = str(error)
        if reason is not None:
            missing[contestant.name] = reason
    before = None if loop == "alone" else product(loop, problem.threads)
    # The same gradient thousands of times leaves nothing of a variance but its rounding.
    with np.errstate(all="ignore"):
        timings = take_turns(entries, seconds, before, progress)
    records = [
        record(workload, problem, loop, name, entries[name].threads, timings) for name in entries
    ]
    entries.clear()
    gc.collect()  # optimizers hold arrays in circles
    return Group(records, missing, {name: timings[name].turns for name in timings})


def record(
    workload: Workload,
    problem: Problem,
    loop: str,
    name: str,
    threads: int,
    timings: Mapping[str, Timing],
) -> Record:
    timing = timings[name]
    low, middle, high = quartiles(timing.turns)
    limit = timings.get(LIMIT)
    idle = timings.get(NO_STEP)
    return Record(
        workload=workload.name,
        tensors=workload.tensors,
        elements=workload.elements,
        case=problem.case.name,
        dtype=problem.dtype.name,
        loop=loop,
        contestant=name,
        threads=threads,
        seconds=middle,
        low=low,
        high=high,
        steps=timing.steps,
        bytes=problem.bytes,
        cache=nearest(problem.footprint, problem.threads, caches()),
        share=None if limit is None else median(limit.turns) / middle,
        product=median(timing.products) if timing.products else None,
        product_alone=None if idle is None else median(idle.products),
    )


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def product(loop: str, threads: int) -> Callable[[], object]:
    """A float32 matrix product of NumPy or torch."""
    x, y = np.random.default_rng(0).random((2, SIDE, SIDE), np.float32)
    if loop == "numpy":
        return lambda: x @ y
    if loop == "torch":
        import torch

        torch.set_num_threads(threads)
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        return lambda: a @ b
    raise ValueError(f"loop={loop!r} is unknown; pass 'alone', 'numpy' or 'torch'")


# ---- the turns ----


class Runner:
    """A contestant in its turns."""

    def __init__(
        self, entry: Entry, before: Callable[[], object] | None, clock: Callable[[], float]
    ) -> None:
        self.entry, self.before, self.clock = entry, before, clock
        self.turns: list[float] = []
        self.products: list[float] = []
        self.steps = 0
        self.calls = self.samples = 1
        step, pause = self.first()
        self.plan(max(step, 1e-7), pause)

    def first(self) -> tuple[float, float]:
        """`sample`, the least of some: any may be disturbed, and the first two may compile."""
        for _ in range(2):
            self.sample()
        began, least = self.clock(), self.sample()
        while self.clock() - began < TURN:
            least = min(least, self.sample())
        return least

    def plan(self, step: float, pause: float) -> None:
        """How many steps are timed together, and how often in a turn."""
        if self.before is not None:
            self.samples = max(1, min(IN_LOOP, int(LOOP_TURN / (step + pause))))
            return
        if self.entry.ready is None:
            self.calls = max(1, ceil(TOGETHER / step))
        self.samples = max(1, int(TURN / (self.calls * step)))

    @property
    def untimed(self) -> int:
        """Samples at the beginning of a turn."""
        return max(1, self.samples // UNTIMED)

    def sample(self) -> tuple[float, float]:
        """Seconds of a step, and of what was before it."""
        began = self.clock()
        if self.before is not None:
            self.before()
        multiplied = self.clock()
        if self.entry.ready is not None:
            self.entry.ready()
        step, calls = self.entry.step, range(self.calls)
        start = self.clock()
        for _ in calls:
            step()
        return (self.clock() - start) / self.calls, multiplied - began

    def turn(self) -> None:
        for _ in range(self.untimed):
            self.sample()
        timed, products = zip(*(self.sample() for _ in range(self.samples)), strict=True)
        self.turns.append(median(timed))
        self.steps += self.calls * self.samples
        if self.before is not None:
            self.products += products


def take_turns(
    entries: Mapping[str, Entry],
    seconds: float,
    before: Callable[[], object] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Timing]:
    """Time them in turns that take about so many seconds, with what is `before` each step."""
    runners: dict[str, Runner] = {}
    if before is not None:
        entries = {NO_STEP: Entry(lambda: None, list, 1), **entries}
    for name, entry in entries.items():
        with threads_of(entry):
            runners[name] = Runner(entry, before, clock)
    names = list(runners)
    began, turn = clock(), 0
    while names and (turn < LEAST_TURNS or clock() - began < seconds):
        for place, index in enumerate(order(len(names), turn), start=1):
            runner = runners[names[index]]
            with threads_of(runner.entry):
                runner.turn()
            if progress is not None:
                turned = (turn + place / len(names)) / LEAST_TURNS
                passed = (clock() - began) / seconds if seconds else 1.0
                progress(min(1.0, turned, passed))
        turn += 1
    if progress is not None:
        progress(1.0)
    return {
        name: Timing(runner.turns, runner.steps, runner.products)
        for name, runner in runners.items()
    }


@contextmanager
def threads_of(entry: Entry) -> Iterator[None]:
    """Have as many threads of ours as the contestant may use."""
    before = get_num_threads()
    set_num_threads(entry.threads)
    try:
        yield
    finally:
        set_num_threads(before)


def order(n: int, turn: int) -> list[int]:
    """Who comes after whom in a turn of n contestants.

    Within n turns, or 2n if n is odd, each comes directly after each other equally often: what a
    contestant leaves behind, in caches and awake threads, is everyone's to bear. After Williams
    (1949), "Experimental designs balanced for the estimation of residual effects of treatments".
    """
    zigzag = [(k + 1) // 2 if k % 2 else (n - k // 2) % n for k in range(n)]
    turned = [(k + turn) % n for k in zigzag]
    return turned[::-1] if n % 2 and turn // n % 2 else turned
