"""What `fusedstep bench` measures: as many workloads and contestants as fit into its seconds.

The workloads share the seconds by their weights. A contestant goes without one that would take
it longer than is left for all, as far as the ones before let one know, and a workload is left
out where not even ours and the limit fit. Both are said, with what to do about it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

import fusedstep as fs
from fusedstep._backends.threads import get_num_threads
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
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import IN_LOOP, LEAST_TURNS, UNTIMED, measure, product
from fusedstep.benchmarks.problem import ADAMW, Update
from fusedstep.benchmarks.records import Record, Results
from fusedstep.benchmarks.show import between
from fusedstep.benchmarks.workloads import NETWORKS, Workload, equal

UPDATES = {
    "sgd": Update("sgd", fs.SGD, {}),
    "momentum": Update("momentum", fs.SGD, {"momentum": 0.9}),
    "nesterov": Update("nesterov", fs.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": Update("adagrad", fs.Adagrad, {}),
    "rmsprop": Update("rmsprop", fs.RMSprop, {}),
    "adam": Update("adam", fs.Adam, {}),
    "adamw": ADAMW,
}

OWN: list[Contestant] = [DEFAULT, LIMIT]
OTHERS: list[Contestant] = [FUSED, FOREACH, OPTAX, DEEPSPEED, NUMPY]

PACKAGES = ("torch", "optax", "jax", "deepspeed")
"""Of theirs, to say the versions of."""


class Part(NamedTuple):
    """One comparison."""

    workload: Workload
    contestants: Sequence[Contestant]
    weight: float
    loop: str = "alone"


BEFORE_TORCH = [Part(equal(1, 100_000), [*OWN, ONE_THREAD, NUMPY], 2.5, "numpy")]
"""Where torch is loaded our steps share its threads, which no loop of NumPy alone has."""

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
"""From small to large, so that each lets one know what the next takes."""

FIRST = 3
"""Steps of a contestant before its turns."""

LEAST = 2 * LEAST_TURNS
"""And in them, at least."""

COMMON = 22e-9
"""Seconds to make the numbers that all start from, for each element."""

PREPARING = 8e-9
"""Seconds until a contestant has its own, for each element."""

STARTING = {"optax": 0.04}
"""Seconds to compile a step, for each tensor."""

COPIES = 4
"""Arrays that a contestant has for each of the parameters', beside it and its gradient."""

FREE = 0.05
"""Seconds that any workload may take."""

DRAWING = 2.0
"""Seconds for the picture."""

NO_TIME = "it takes too long for this run; pass more --seconds"
NO_MEMORY = "it needs more memory than is free; free some"


class Cost(NamedTuple):
    """What a contestant takes for a part, in seconds."""

    before: float
    """Its turns."""
    turns: float
    """At least."""


def run(case: str, dtype: str, seconds: float, report: Callable[[str, float], object]) -> Results:
    """Measure what fits; `report` is told what is measured now, and the share that is done."""
    going = Run(case, dtype, seconds, report)
    for part in BEFORE_TORCH:
        going.measure(part)
    for package in needed():
        going.say(f"importing {package}")
        importlib.import_module(package)
    for part in PARTS:
        going.measure(part)
    records = sorted(going.records, key=lambda record: record.loop != "alone")
    return Results(machine(PACKAGES), said(going.left_out, records), records)


class Run:
    """How far it is, and what was found."""

    def __init__(
        self, case: str, dtype: str, seconds: float, report: Callable[[str, float], object]
    ) -> None:
        self.case, self.dtype, self.report = case, dtype, report
        self.end = perf_counter() + seconds - min(DRAWING, seconds / 2)
        self.weights = sum(part.weight for part in [*BEFORE_TORCH, *PARTS])
        self.done = 0.0
        """Of the weights."""
        self.records: list[Record] = []
        self.left_out: dict[tuple[str, str], list[str]] = {}
        """The workloads that a contestant is not in, and why."""

    def say(self, name: str, share: float = 0.0) -> None:
        self.report(name, (self.done + share) / self.weights)

    def measure(self, part: Part) -> None:
        name = between(part.workload.name, part.loop)
        self.say(f"timing {name}")
        left = (self.end - perf_counter()) * part.weight / (self.weights - self.done)
        costs = expected(part, self.records)
        itemsize = np.dtype(self.dtype).itemsize
        chosen, reasons = fitting(part, costs, max(FREE, left), free_memory() / itemsize)
        if chosen:
            before = common(part) + sum(costs[each.name].before for each in chosen)
            found = measure(
                part.workload,
                UPDATES[self.case],
                self.dtype,
                chosen,
                part.loop,
                max(0.0, left - before),
                lambda share: self.say(f"timing {name}", share * part.weight),
                patient=False,
            )
            self.records += found.records
            reasons |= found.missing
        for contestant, reason in reasons.items():
            self.left_out.setdefault((contestant, reason), []).append(name)
        self.done += part.weight


def needed() -> list[str]:
    """The modules of the contestants who can take part at once."""
    there = (each for each in OTHERS if not (each.why_missing() or each.why_slow_to_start()))
    return [*dict.fromkeys(package for each in there for package in each.packages)]


def fitting(
    part: Part, costs: Mapping[str, Cost], seconds: float, room: float
) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants for whom there is time, and room for their numbers; why others go without.

    Ours come first, then those who take the least.
    """
    chosen: list[Contestant] = []
    reasons: dict[str, str] = {}
    seconds -= common(part)
    room -= 2 * part.workload.elements
    for each in sorted(part.contestants, key=lambda each: (each not in OWN, sum(costs[each.name]))):
        taken = sum(costs[each.name])
        numbers = 0 if each is LIMIT else COPIES * part.workload.elements
        if reason := each.why_missing():
            reasons[each.name] = reason
        elif taken > seconds or numbers > room:
            reasons[each.name] = NO_TIME if taken > seconds else NO_MEMORY
            if each is DEFAULT:
                return [], {each.name: reasons[each.name]}
        else:
            chosen.append(each)
            seconds -= taken
            room -= numbers
    return sorted(chosen, key=part.contestants.index), reasons


def common(part: Part) -> float:
    """Seconds for what all contestants share."""
    return COMMON * part.workload.elements


def expected(part: Part, records: Sequence[Record]) -> dict[str, Cost]:
    """What each contestant takes, as far as the workloads before let one know."""
    product = of_product(part.loop)
    products = Cost(FIRST * product, LEAST_TURNS * (IN_LOOP + IN_LOOP // UNTIMED) * product)
    costs = {}
    for contestant in part.contestants:
        name = contestant.name
        step = expected_step(name, part.workload, records)
        starting = STARTING.get(name, 0.0) * part.workload.tensors
        arrays = 0.0 if contestant is LIMIT else PREPARING * part.workload.elements
        before = starting + arrays + FIRST * step
        costs[name] = Cost(before + products.before, LEAST * step + products.turns)
    return costs


def expected_step(name: str, workload: Workload, records: Sequence[Record]) -> float:
    """Seconds of a step: those of a tensor as large, and what each tensor takes by itself."""
    known = [record for record in records if record.contestant == name and record.loop == "alone"]
    singles = sorted((record.elements, record.seconds) for record in known if record.tensors == 1)
    overheads = [
        (record.seconds - of_one(record.elements, singles)) / record.tensors
        for record in known
        if record.tensors > 1
    ]
    return of_one(workload.elements, singles) + max([0.0, *overheads]) * workload.tensors


def of_product(loop: str) -> float:
    """Seconds of the matrix product of a loop."""
    if loop == "alone":
        return 0.0
    multiply = product(loop, get_num_threads())
    times = []
    for _ in range(4):  # the first wakes what helps
        start = perf_counter()
        multiply()
        times.append(perf_counter() - start)
    return min(times[1:])


def of_one(elements: int, known: Sequence[tuple[int, float]]) -> float:
    """Seconds of a step of one tensor, on the line through those of the nearest known sizes."""
    if not known:
        return 0.0
    sizes, times = zip(*known, strict=True)
    seconds = float(np.interp(elements, sizes, times))
    if elements > sizes[-1] and len(known) > 1:
        slope = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
        seconds += max(slope, 0.0) * (elements - sizes[-1])
    return seconds


def free_memory(described: Path = Path("/proc/meminfo")) -> float:
    """Bytes that may be taken: what Linux says is there, or half of the machine's."""
    try:
        lines = described.read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def said(left_out: dict[tuple[str, str], list[str]], records: Sequence[Record]) -> dict[str, str]:
    """Who is left out, and where if not everywhere; without ours there is no workload."""
    there = {record.contestant for record in records}
    missing: dict[str, str] = {}
    for (contestant, reason), workloads in left_out.items():
        where = ", ".join(workloads)
        if contestant == DEFAULT.name:
            missing[f"everyone at {where}"] = reason
        elif contestant in there:
            missing[f"{contestant} at {where}"] = reason
        else:
            missing.setdefault(contestant, reason)
    return missing
