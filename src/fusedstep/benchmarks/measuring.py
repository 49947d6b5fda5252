"""One comparison: contestants are built over the same arrays, take turns, and get a record each."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np

from fusedstep.benchmarks.contestants.contestant import BuildError, Contestant, Entry
from fusedstep.benchmarks.machine import caches, nearest
from fusedstep.benchmarks.problem import Case, Problem
from fusedstep.benchmarks.records import LIMIT, Record
from fusedstep.benchmarks.turns import NO_STEP, Progress, Timing, take_turns
from fusedstep.benchmarks.workloads import Workload

SIDE = 600
"""Rows and columns of the matrices that a product multiplies."""


class Group(NamedTuple):
    """The results of contestants that took turns."""

    records: list[Record]

    missing: dict[str, str]
    """The reason why a contestant was left out, by its name."""

    turns: dict[str, list[float]]
    """Seconds of a step in each turn, by contestant."""


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

    `loop` is "alone", or names the library of the matrix product before each step: "numpy" or
    "torch". All turns together take about `seconds`; what comes before them adds to that.
    `patient=False` leaves out contestants that take minutes to start.
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
            except BuildError as error:
                reason = str(error)
        if reason is not None:
            missing[contestant.name] = reason
    multiply = None if loop == "alone" else product(loop, problem.threads)
    # The same gradient thousands of times leaves nothing of a variance but its rounding.
    with np.errstate(all="ignore"):
        timings = take_turns(entries, seconds, multiply, progress)
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
    """A function that multiplies two float32 matrices by NumPy or torch."""
    x, y = np.random.default_rng(0).random((2, SIDE, SIDE), np.float32)
    if loop == "numpy":
        return lambda: x @ y
    if loop == "torch":
        import torch

        torch.set_num_threads(threads)
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        return lambda: a @ b
    raise ValueError(f"loop={loop!r} is unknown; pass 'alone', 'numpy' or 'torch'")
