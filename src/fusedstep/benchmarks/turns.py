"""Contestants take turns, so that a machine that drifts favours none of them.

In its turn a contestant takes some steps that are not timed, so that the caches hold what they
can, and then some that are. Short steps are timed several at once. A turn's figure is the median
of its times, and a contestant's figure is the median of its turns. A first measurement decides
how many steps make a turn. Turns go on until the time is up, but for `LEAST_TURNS` at least.

With a matrix product before each step, product and step are timed apart: the two share the
cores, so that neither can be judged alone. One more contestant, `NO_STEP`, then takes no steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from statistics import median
from time import perf_counter
from typing import NamedTuple

from fusedstep._backends.threads import get_num_threads, set_num_threads
from fusedstep.benchmarks.contestants.contestant import Entry

LEAST_TURNS = 5
"""Least number of turns, however long they take."""

TURN = 5e-3
"""Seconds of a turn's timed steps, if one step is not longer."""

AT_ONCE = 1e-4
"""Seconds of the steps that are timed at once, if one step is not longer."""

IN_LOOP = 16
"""Timed steps of a turn with products, if they are over within `LOOP_TURN`."""

LOOP_TURN = 0.25
"""Seconds of a turn's timed steps and products, if one step is not longer."""

UNTIMED = 4
"""Timed samples of a turn for each untimed one before them; there is at least one."""

NO_STEP = "no step"
"""The contestant of a loop with products that takes no steps."""


class Timing(NamedTuple):
    """The times of one contestant."""

    turns: list[float]
    """Seconds of a step, one figure for each turn."""

    steps: int
    """Number of timed steps, of all turns together."""

    products: list[float]
    """Seconds of the matrix product before each timed step."""


Progress = Callable[[float], object]
"""A function that is told the share of the work that is done, from 0 to 1."""


class Timer:
    """Takes and times the turns of one contestant."""

    def __init__(
        self, entry: Entry, product: Callable[[], object] | None, clock: Callable[[], float]
    ) -> None:
        self.entry, self.product, self.clock = entry, product, clock
        self.turns: list[float] = []
        self.products: list[float] = []
        self.steps = 0
        self.calls = 1
        """Steps that are timed at once."""
        self.samples = 1
        """Times that a turn measures."""
        self.plan(*self.first())

    def first(self) -> tuple[float, float]:
        """The least of some samples: any may be disturbed, and the first two may compile."""
        for _ in range(2):
            self.sample()
        began, least = self.clock(), self.sample()
        while self.clock() - began < TURN:
            least = min(least, self.sample())
        return least

    def plan(self, step: float, product: float) -> None:
        """Set the number of steps in a sample, and of samples in a turn, from their seconds."""
        step = max(step, 1e-7)
        if self.product is not None:
            self.samples = max(1, min(IN_LOOP, int(LOOP_TURN / (step + product))))
            return
        if self.entry.ready is None:
            self.calls = max(1, ceil(AT_ONCE / step))
        self.samples = max(1, int(TURN / (self.calls * step)))

    @property
    def untimed(self) -> int:
        """Number of samples at the beginning of a turn that do not count."""
        return max(1, self.samples // UNTIMED)

    def sample(self) -> tuple[float, float]:
        """Seconds of a step, and of the product before it."""
        began = self.clock()
        if self.product is not None:
            self.product()
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
        if self.product is not None:
            self.products += products


def take_turns(
    entries: Mapping[str, Entry],
    seconds: float,
    product: Callable[[], object] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Timing]:
    """Time contestants in turns that take about `seconds`, with a `product` before each step."""
    timers: dict[str, Timer] = {}
    if product is not None:
        entries = {NO_STEP: Entry(lambda: None, list, 1), **entries}
    for name, entry in entries.items():
        with threads_of(entry):
            timers[name] = Timer(entry, product, clock)
    names = list(timers)
    began, turn = clock(), 0
    while names and (turn < LEAST_TURNS or clock() - began < seconds):
        for place, index in enumerate(order(len(names), turn), start=1):
            timer = timers[names[index]]
            with threads_of(timer.entry):
                timer.turn()
            if progress is not None:
                turned = (turn + place / len(names)) / LEAST_TURNS
                passed = (clock() - began) / seconds if seconds else 1.0
                progress(min(1.0, turned, passed))
        turn += 1
    if progress is not None:
        progress(1.0)
    return {
        name: Timing(timer.turns, timer.steps, timer.products) for name, timer in timers.items()
    }


@contextmanager
def threads_of(entry: Entry) -> Iterator[None]:
    """Let this package use as many threads as the contestant may."""
    before = get_num_threads()
    set_num_threads(entry.threads)
    try:
        yield
    finally:
        set_num_threads(before)


def order(n: int, turn: int) -> list[int]:
    """The order of n contestants within a turn.

    Within n turns, or 2n if n is odd, each comes directly after each other equally often, so
    that all bear alike what a contestant leaves behind in caches and awake threads. After
    Williams (1949), "Experimental designs balanced for the estimation of residual effects of
    treatments".
    """
    zigzag = [(k + 1) // 2 if k % 2 else (n - k // 2) % n for k in range(n)]
    turned = [(k + turn) % n for k in zigzag]
    return turned[::-1] if n % 2 and turn // n % 2 else turned
