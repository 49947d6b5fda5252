"""Steps in flight beside other work: loops that wait for them, and loops that do not.

    python bench/offload.py [beside] [calls] [python] [threads] [--elements N] [--seconds S]

Loops take turns in one process, and a figure is the median of their turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median
from time import perf_counter, sleep
from typing import Any, TypeAlias

import numpy as np
from topics import described, head, headed, parsed, parser_of

import fusedstep as fs
from fusedstep._core import in_flight

Array: TypeAlias = np.ndarray[Any, Any]
Turn: TypeAlias = Callable[[], tuple[float, ...]]
"""A function that takes a turn, and returns its figures."""

RATE = 1e-9
"""So small that parameters stay what they are, however long a measurement takes."""

WARM = 5
"""Turns of each that do not count."""


def in_turns(turns: Mapping[str, Turn], seconds: float) -> dict[str, list[float]]:
    """The medians of the figures of each, which take turns, each first in half of them."""
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in turns}
    until, number = perf_counter() + seconds, 0
    while number < 2 * WARM or perf_counter() < until:
        for name in list(turns)[:: 1 if number % 2 else -1]:
            figures = turns[name]()
            if number >= WARM:
                found[name].append(figures)
        number += 1
    return {name: [*map(median, zip(*each, strict=True))] for name, each in found.items()}


def microseconds(*figures: float) -> Iterator[str]:
    yield from (f"{1e6 * each:,.1f}" for each in figures)


def adamw(n: int) -> tuple[Any, Array]:
    opt = fs.AdamW(np.ones(n, np.float32), lr=RATE)
    g = np.full(n, 0.1, np.float32)
    opt.step(g)
    return opt, g


def beside(elements: int, seconds: float) -> None:
    """A step beside other work that takes about as long: before it, and in flight."""
    opt, g = adamw(elements)
    a = np.ones((600, 600), np.float32)
    pair = {"step": timed(lambda: opt.step(g)), "product": timed(lambda: a @ a)}
    (step,), (product,) = in_turns(pair, 1.0).values()
    many = max(1, round(step / product))

    def products() -> None:
        for _ in range(many):
            a @ a

    works: dict[str, Callable[[], None]] = {
        f"products of 600 x 600 float32: {many}": products,
        "a wait, as for a device": partial(sleep, step),
    }
    head("µs", ["step", "work", "step, then work", "step in flight, work"])
    for name, work in works.items():

        def waited(work: Callable[[], None] = work) -> None:
            opt.step(g)
            work()

        def in_flight(work: Callable[[], None] = work) -> None:
            handle = opt.step(g, wait=False)
            work()
            handle.result()

        loops = {"step": lambda: opt.step(g), "work": work, "waited": waited, "flight": in_flight}
        turns = {kind: timed(loop) for kind, loop in loops.items()}
        figures = [figure for (figure,) in in_turns(turns, seconds / 2).values()]
        print(f"| {name} | {' | '.join(microseconds(*figures))} |", flush=True)


def timed(call: Callable[[], object]) -> Turn:
    def turn() -> tuple[float, ...]:
        began = perf_counter()
        call()
        return (perf_counter() - began,)

    return turn


def calls(elements: int, seconds: float) -> None:
    """The time until a call returns, and until its step is done."""

    def turn(opt: Any, g: Array) -> tuple[float, ...]:
        began = perf_counter()
        handle = opt.step(g, wait=False)
        asked = perf_counter()
        handle.result()
        return asked - began, perf_counter() - began

    def waited(opt: Any, g: Array) -> tuple[float, ...]:
        began = perf_counter()
        opt.step(g)
        return 2 * (perf_counter() - began,)

    head("µs", ["until the call returns", "until the step is done"])
    for n in (1_000, 100_000, elements):
        opt, g = adamw(n)
        turns = {
            f"{n:,}, in flight": partial(turn, opt, g),
            f"{n:,}, waited": partial(waited, opt, g),
        }
        for name, figures in in_turns(turns, seconds / 3).items():
            print(f"| {name} | {' | '.join(microseconds(*figures))} |", flush=True)


def python(elements: int, seconds: float) -> None:
    """Turns of a loop of Python code that looks whether a step in flight is done."""
    opt, g = adamw(elements)

    def turn() -> tuple[float, ...]:
        handle = opt.step(g, wait=False)
        began, count = perf_counter(), 0
        while not handle.done():
            count += 1
        return perf_counter() - began, float(count)

    def alone() -> tuple[float, ...]:
        began = perf_counter()
        handle, count = opt.step(g, wait=False), 0
        handle.result()
        took, began = perf_counter() - began, perf_counter()
        while perf_counter() - began < took:
            handle.done()
            count += 1
        return took, float(count)

    head("", ["µs", "turns of the loop"])
    turns: dict[str, Turn] = {"beside the step": turn, "after it, for as long": alone}
    for name, (took, count) in in_turns(turns, seconds).items():
        print(f"| {name} | {1e6 * took:,.0f} | {count:,.0f} |", flush=True)


class ThreadForEach(in_flight.Worker):
    """A thread for each optimizer, in the place of one for all."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[Any, in_flight.Worker] = {}

    def is_here(self) -> bool:
        return False

    def launch(self, flight: in_flight.Flight) -> in_flight.Handle:
        return self.of.setdefault(flight.turn, in_flight.Worker()).launch(flight)


def threads(elements: int, seconds: float) -> None:
    """Steps of many optimizers at once, by one thread for all of them and by one for each."""
    one, each = in_flight.worker, ThreadForEach()
    head("µs", ["one for all", "one for each"])
    for count in (2, 20, 200):
        made = [adamw(elements // count) for _ in range(count)]

        def turn(worker: in_flight.Worker, made: Any = made) -> tuple[float, ...]:
            in_flight.worker = worker
            try:
                began = perf_counter()
                for handle in [opt.step(g, wait=False) for opt, g in made]:
                    handle.result()
                return (perf_counter() - began,)
            finally:
                in_flight.worker = one

        found = in_turns({"one": partial(turn, one), "each": partial(turn, each)}, seconds / 3)
        figures = microseconds(*(figure for (figure,) in found.values()))
        print(f"| {count} of {elements // count:,} | {' | '.join(figures)} |", flush=True)


TOPICS = {each.__name__: each for each in (beside, calls, python, threads)}


def main() -> None:
    parser = parser_of(__doc__, TOPICS)
    parser.add_argument("--elements", type=int, default=10_000_000, help="of a step")
    parser.add_argument("--seconds", type=float, default=20, help="of the turns of each topic")
    options = parsed(parser, TOPICS)
    described()
    for topic in headed(options.what, TOPICS):
        topic(options.elements, options.seconds)


if __name__ == "__main__":
    main()
