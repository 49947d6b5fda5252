"""What `fusedstep bench` measures: as many workloads and contestants as fit into its seconds.

The workloads share the seconds by their weights. A contestant goes without one that would take
it longer than is left for all, as far as the ones before let one know, and a workload is left
out where not even ours and the limit fit. Both are said, with what to do about it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

import fusedstep as fs
from fusedstep.benchmarks.contestants import Contestant
from fusedstep.benchmarks.contestants.deepspeed import DeepSpeed
from fusedstep.benchmarks.contestants.numpy import NumPy
from fusedstep.benchmarks.contestants.optax import Optax
from fusedstep.benchmarks.contestants.ours import Default, InArena, Limit, NewArrays, Ours
from fusedstep.benchmarks.contestants.torch import Torch
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import LEAST_TURNS, measure
from fusedstep.benchmarks.problem import ADAMW, Update
from fusedstep.benchmarks.records import LIMIT, Record, Results
from fusedstep.benchmarks.show import OURS, between
from fusedstep.benchmarks.workloads import MANY, NETWORKS, Workload, equal

UPDATES = {
    "sgd": Update("sgd", fs.SGD, {}),
    "momentum": Update("momentum", fs.SGD, {"momentum": 0.9}),
    "nesterov": Update("nesterov", fs.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": Update("adagrad", fs.Adagrad, {}),
    "rmsprop": Update("rmsprop", fs.RMSprop, {}),
    "adam": Update("adam", fs.Adam, {}),
    "adamw": ADAMW,
}

OWN = [Default(OURS), Limit()]
MANY_OWN = [InArena("fusedstep arena"), NewArrays("fusedstep, new arrays")]
OTHERS = [
    Torch("torch fused", fused=True),
    Torch("torch foreach", foreach=True),
    Optax(),
    DeepSpeed(),
    NumPy(),
]
PACKAGES = ("torch", "optax", "jax", "deepspeed")
"""Of theirs, to say the versions of."""


class Part(NamedTuple):
    """One comparison."""

    workload: Workload
    contestants: Sequence[Contestant]
    weight: float
    loop: str = "alone"


PARTS = [
    *(Part(equal(1, n), [*OWN, *OTHERS], 1) for n in (1_000, 10_000, 100_000)),
    Part(equal(1, 1_000_000), [*OWN, *OTHERS], 1.5),
    Part(equal(1, 16_000_000), [*OWN, *OTHERS], 4),
    *(Part(workload, [*OWN, *MANY_OWN, *OTHERS], 4) for workload in reversed(MANY)),
    Part(
        equal(1, 100_000), [*OWN, Ours("fusedstep, one thread", threads=1), NumPy()], 2, "numpy"
    ),
    *(
        Part(workload, [*OWN, *OTHERS], weight)
        for workload, weight in zip(NETWORKS, (1, 5, 8), strict=True)
    ),
]
"""From small to large, so that each lets one know what the next takes."""

LEAST = 3 + 2 * LEAST_TURNS
"""Steps of a contestant, at least."""

PRODUCTS = 0.4
"""Seconds of a contestant's products in a loop, at least."""

PREPARING = 30e-9
"""Seconds to make the arrays of a workload, for each element."""

STARTING = {"optax": 0.04}
"""Seconds to compile a step, for each tensor."""

COPIES = 4
"""Arrays that a contestant has for each of the parameters', beside it and its gradient."""

FREE = 0.05
"""Seconds that any workload may take."""

DRAWING = 3.0
"""Seconds for the picture."""

NO_TIME = "it takes too long for this run; pass more --seconds"
NO_MEMORY = "it needs more memory than is free; free some"


def run(case: str, dtype: str, seconds: float, report: Callable[[str, float], object]) -> Results:
    """Measure what fits; `report` is told what is measured now, and the share that is done."""
    end = perf_counter() + seconds - min(DRAWING, seconds / 2)
    total = sum(part.weight for part in PARTS)
    done = 0.0
    records: list[Record] = []
    left_out: dict[tuple[str, str], list[str]] = {}
    for part in PARTS:
        name = between(part.workload.name, part.loop)
        report(name, done / total)
        allowed = max(FREE, (end - perf_counter()) * part.weight / (total - done))
        chosen, reasons = fitting(part, records, allowed, np.dtype(dtype).itemsize)
        if chosen:
            found = measure(
                part.workload,
                UPDATES[case],
                dtype,
                chosen,
                part.loop,
                allowed - preparing(part, chosen),
                lambda share: report(name, (done + share * part.weight) / total),  # noqa: B023
                patient=False,
            )
            records += found.records
            reasons |= found.missing
        for contestant, reason in reasons.items():
            left_out.setdefault((contestant, reason), []).append(name)
        done += part.weight
    return Results(machine(PACKAGES), said(left_out, records), records)


def fitting(
    part: Part, records: Sequence[Record], seconds: float, itemsize: int
) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants for whom there is time and memory, ours first; why others are left out."""
    chosen: list[Contestant] = []
    reasons: dict[str, str] = {}
    seconds -= PREPARING * part.workload.elements
    room = free_memory() / (itemsize * part.workload.elements) - 2
    known = {each.name: expected(each.name, part, records) for each in part.contestants}
    for each in sorted(part.contestants, key=lambda each: (each not in OWN, known[each.name])):
        if reason := each.why_missing():
            reasons[each.name] = reason
            continue
        seconds -= known[each.name]
        room -= 0 if each.name == LIMIT else COPIES
        if seconds < 0 or room < 0:
            why = NO_TIME if seconds < 0 else NO_MEMORY
            if each.name == OURS:
                return [], {OURS: why}
            reasons[each.name] = why
            seconds += known[each.name]
            room += COPIES
        else:
            chosen.append(each)
    return sorted(chosen, key=part.contestants.index), reasons


def expected(name: str, part: Part, records: Sequence[Record]) -> float:
    """Seconds that a contestant takes at least, as far as the workloads before let one know."""
    workload = part.workload
    seconds = STARTING.get(name, 0.0) * workload.tensors
    if part.loop != "alone":
        seconds += PRODUCTS
    before = [record for record in records if record.contestant == name and record.loop == "alone"]
    if alone := [record for record in before if record.tensors == 1]:
        largest = max(alone, key=lambda record: record.elements)
        element = largest.seconds / largest.elements
        tensors = [
            (record.seconds - element * record.elements) / record.tensors
            for record in before
            if record.tensors > 1
        ]
        step = element * workload.elements + max(0.0, *tensors, 0.0) * workload.tensors
        seconds += LEAST * step
    return seconds


def preparing(part: Part, chosen: Sequence[Contestant]) -> float:
    """Seconds before the first turn."""
    starting = sum(STARTING.get(each.name, 0.0) for each in chosen)
    return PREPARING * part.workload.elements + starting * part.workload.tensors


def free_memory(described: Path = Path("/proc/meminfo")) -> float:
    """Bytes that may be taken: what Linux says is there, or half of the machine's."""
    try:
        lines = described.read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def said(
    left_out: dict[tuple[str, str], list[str]], records: Sequence[Record]
) -> dict[str, str]:
    """Who is left out, and where if not everywhere; without ours there is no workload."""
    there = {record.contestant for record in records}
    missing: dict[str, str] = {}
    for (contestant, reason), workloads in left_out.items():
        where = ", ".join(workloads)
        if contestant == OURS:
            missing[where] = reason
        elif contestant in there:
            missing[f"{contestant} at {where}"] = reason
        else:
            missing.setdefault(contestant, reason)
    return missing
