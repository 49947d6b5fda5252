"""The budget of `fusedstep bench`: as many workloads and contestants as fit into its seconds.

The workloads share the seconds by their weights. A contestant is left out of a workload that would
take it longer than is left for all, going by the workloads before. A workload is left out if not
even our own step and the limit fit. The results name what was left out, with the remedy.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from fusedstep.benchmarks.contestants import (
    ARENA,
    DEEPSPEED,
    DEFAULT,
    FOREACH,
    FUSED,
    LIMIT,
    NEW_ARRAYS,
    NUMPY,
    ONE_THREAD,
    OPTAX,
)
from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.costs import Cost, expected, shared
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import measure
from fusedstep.benchmarks.problem import CASES
from fusedstep.benchmarks.records import Absences, Record, Results, between
from fusedstep.benchmarks.workloads import NETWORKS, Workload, equal

OWN: list[Contestant] = [DEFAULT, LIMIT]
OTHERS: list[Contestant] = [FUSED, FOREACH, OPTAX, DEEPSPEED, NUMPY]

PACKAGES = ("torch", "optax", "jax", "deepspeed")
"""Other packages whose versions the results name."""


class Part(NamedTuple):
    """A part of the run: contestants that take turns on one workload."""

    workload: Workload
    contestants: Sequence[Contestant]
    weight: float
    """Share of the seconds, in proportion to the other parts' weights."""
    loop: str = "alone"


BEFORE_TORCH = [Part(equal(1, 100_000), [*OWN, ONE_THREAD, NUMPY], 2.5, "numpy")]
"""Parts that come before torch is imported: once it is, our steps share its threads."""

PARTS = [
    *(Part(equal(1, n), [*OWN, *OTHERS], 0.8) for n in (1_000, 10_000, 100_000)),
    Part(equal(1, 1_000_000), [*OWN, *OTHERS], 1.2),
    Part(equal(1, 16_000_000), [*OWN, *OTHERS], 4),
    Part(equal(1_000, 1_000), [*OWN, ARENA, NEW_ARRAYS, *OTHERS], 3),
    Part(equal(10_000, 100), [*OWN, ARENA, NEW_ARRAYS, *OTHERS], 5),
    *(
        Part(workload, [*OWN, *OTHERS], weight)
        for workload, weight in zip(NETWORKS, (1, 4.5, 10), strict=True)
    ),
]
"""The other parts, from small to large, as each tells how long the next will take."""

COPIES = 4
"""Arrays of the parameters' size that a contestant has, beside the shared ones."""

FREE = 0.05
"""Seconds that any workload may take."""

DRAWING = 2.0
"""Seconds for the picture."""

NO_TIME = "it takes too long for this run; pass more --seconds"
NO_MEMORY = "it needs more memory than is free; free some"


def run(case: str, dtype: str, seconds: float, report: Callable[[str, float], object]) -> Results:
    """Measure what fits. `report` is told what is measured now, and the share that is done."""
    current = Run(case, dtype, seconds, report)
    for part in BEFORE_TORCH:
        current.measure(part)
    for package in needed():
        current.say(f"importing {package}")
        importlib.import_module(package)
    for part in PARTS:
        current.measure(part)
    records = sorted(current.records, key=lambda record: record.loop != "alone")
    return Results(machine(PACKAGES), current.absences.summary(records), records)


class Run:
    """The progress of a run, and its results so far."""

    def __init__(
        self, case: str, dtype: str, seconds: float, report: Callable[[str, float], object]
    ) -> None:
        self.case, self.dtype, self.report = case, dtype, report
        self.end = perf_counter() + seconds - min(DRAWING, seconds / 2)
        self.weights = sum(part.weight for part in [*BEFORE_TORCH, *PARTS])
        self.done = 0.0
        """Sum of the weights of the parts that are over."""
        self.records: list[Record] = []
        self.absences = Absences()

    def say(self, name: str, share: float = 0.0) -> None:
        self.report(name, (self.done + share) / self.weights)

    def measure(self, part: Part) -> None:
        workload, contestants, weight, loop = part
        name = between(workload.name, loop)
        self.say(f"timing {name}")
        left = (self.end - perf_counter()) * weight / (self.weights - self.done)
        costs = expected(workload, contestants, loop, self.records)
        room = free_memory() / np.dtype(self.dtype).itemsize
        chosen, missing = fitting(part, costs, max(FREE, left), room)
        if chosen:
            before = shared(workload) + sum(costs[each.name].before for each in chosen)
            found = measure(
                workload,
                CASES[self.case],
                self.dtype,
                chosen,
                loop,
                max(0.0, left - before),
                lambda share: self.say(f"timing {name}", share * weight),
                patient=False,
            )
            self.records += found.records
            missing |= found.missing
        self.absences.add(name, missing)
        self.done += weight


def needed() -> list[str]:
    """Names of the modules of those contestants that can take part at once."""
    there = (each for each in OTHERS if not (each.why_missing() or each.why_slow_to_start()))
    return [*dict.fromkeys(package for each in there for package in each.packages)]


def fitting(
    part: Part, costs: Mapping[str, Cost], seconds: float, room: float
) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants that fit into `seconds` and into `room`, and why others do not.

    `room` counts the elements that memory has room for. Our own step and the limit come first,
    then those that take the least time.
    """
    chosen: list[Contestant] = []
    missing: dict[str, str] = {}
    seconds -= shared(part.workload)
    room -= 2 * part.workload.elements
    for each in sorted(part.contestants, key=lambda each: (each not in OWN, sum(costs[each.name]))):
        taken = sum(costs[each.name])
        elements = 0 if each is LIMIT else COPIES * part.workload.elements
        if reason := each.why_missing():
            missing[each.name] = reason
        elif taken > seconds or elements > room:
            missing[each.name] = NO_TIME if taken > seconds else NO_MEMORY
            if each is DEFAULT:
                return [], {each.name: missing[each.name]}
        else:
            chosen.append(each)
            seconds -= taken
            room -= elements
    return sorted(chosen, key=part.contestants.index), missing


def free_memory(path: Path = Path("/proc/meminfo")) -> float:
    """Bytes of memory that are free: what Linux says, or half of the machine's."""
    try:
        lines = path.read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
