"""The seconds that contestants will take for a workload, from what they took for others."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

from fusedstep._backends.threads import get_num_threads
from fusedstep.benchmarks.contestants import LIMIT
from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.measuring import product
from fusedstep.benchmarks.records import Record
from fusedstep.benchmarks.turns import IN_LOOP, LEAST_TURNS, UNTIMED
from fusedstep.benchmarks.workloads import Workload

FIRST = 3
"""Steps of a contestant before its turns."""

LEAST = 2 * LEAST_TURNS
"""Steps of a contestant in its turns, at least."""

SHARED = 22e-9
"""Seconds an element, to make the numbers that all contestants start from."""

COPYING = 8e-9
"""Seconds an element, until a contestant has arrays of its own."""

COMPILING = {"optax": 0.04}
"""Seconds a tensor, to compile a step; nothing for others."""


class Cost(NamedTuple):
    """The seconds that a contestant takes for one workload."""

    before: float
    """Seconds before its turns: copies, compilation, first steps."""

    turns: float
    """Seconds of its turns, at least."""


def shared(workload: Workload) -> float:
    """Seconds of what is done once for all contestants."""
    return SHARED * workload.elements


def expected(
    workload: Workload, contestants: Sequence[Contestant], loop: str, records: Sequence[Record]
) -> dict[str, Cost]:
    """The cost of each contestant, by name, as far as the `records` of other workloads tell."""
    multiply = product_seconds(loop)
    products = Cost(FIRST * multiply, LEAST_TURNS * (IN_LOOP + IN_LOOP // UNTIMED) * multiply)
    costs = {}
    for contestant in contestants:
        name = contestant.name
        step = expected_step(name, workload, records)
        compiling = COMPILING.get(name, 0.0) * workload.tensors
        copying = 0.0 if contestant is LIMIT else COPYING * workload.elements
        before = compiling + copying + FIRST * step
        costs[name] = Cost(before + products.before, LEAST * step + products.turns)
    return costs


def expected_step(name: str, workload: Workload, records: Sequence[Record]) -> float:
    """Seconds of a step: those of one tensor as large, and an overhead for each tensor."""
    known = [record for record in records if record.contestant == name and record.loop == "alone"]
    singles = sorted((record.elements, record.seconds) for record in known if record.tensors == 1)
    overheads = [
        (record.seconds - interpolated(record.elements, singles)) / record.tensors
        for record in known
        if record.tensors > 1
    ]
    return interpolated(workload.elements, singles) + max([0.0, *overheads]) * workload.tensors


def interpolated(elements: int, known: Sequence[tuple[int, float]]) -> float:
    """Seconds of a step of one tensor, on the line through those of the nearest known sizes."""
    if not known:
        return 0.0
    sizes, times = zip(*known, strict=True)
    seconds = float(np.interp(elements, sizes, times))
    if elements > sizes[-1] and len(known) > 1:
        slope = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
        seconds += max(slope, 0.0) * (elements - sizes[-1])
    return seconds


def product_seconds(loop: str) -> float:
    """Seconds of the matrix product of a loop."""
    if loop == "alone":
        return 0.0
    multiply = product(loop, get_num_threads())
    times = []
    for _ in range(4):
        start = perf_counter()
        multiply()
        times.append(perf_counter() - start)
    return min(times[1:])  # the first one wakes the library's threads
