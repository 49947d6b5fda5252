"""What `fusedstep bench` measures: as many workloads and contestants as fit into its seconds.

The workloads share the seconds by their weights. A contestant goes without one that would take
it longer than is left for all, as far as the ones before let one know, and a workload is left
out where not even ours and the limit fit. Both are said, with what to do about it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

import fusedstep as fs
from fusedstep.benchmarks.contestants import Contestant
from fusedstep.benchmarks.contestants.deepspeed import DeepSpeed
from fusedstep.benchmarks.contestants.numpy import NumPy
from fusedstep.benchmarks.contestants.optax import Optax
from fusedstep.benchmarks.contestants.ours import Default, InArena, Limit, NewArrays, Ours
from fusedstep.benchmarks.contestants.torch import Torch
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import IN_LOOP, LEAST_TURNS, UNTIMED, measure, product
from fusedstep.benchmarks.problem import ADAMW, Update
from fusedstep.benchmarks.records import LIMIT, Record, Results
from fusedstep.benchmarks.show import OURS, between
from fusedstep.benchmarks.workloads import MANY, NETWORKS, Workload, equal
from fusedstep.threads import get_num_threads

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
    Part(equal(1, 100_000), [*OWN, Ours("fusedstep, one thread", threads=1), NumPy()], 2, "numpy"),
    *(
        Part(workload, [*OWN, *OTHERS], weight)
        for workload, weight in zip(NETWORKS, (1, 5, 8), strict=True)
    ),
]
"""From small to large, so that each lets one know what the next takes."""

LEAST = 3 + 2 * LEAST_TURNS
"""Steps of a contestant, at least."""

PRODUCTS = 3 + LEAST_TURNS * (IN_LOOP + IN_LOOP // UNTIMED)
"""Of a contestant in a loop, at least."""

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
    for package in needed():
        report(f"import {package}", 0.0)
        importlib.import_module(package)
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


def needed() -> list[str]:
    """The modules of the contestants who can take part at once."""
    there = (each for each in OTHERS if not (each.why_missing() or each.why_slow_to_start()))
    return [*dict.fromkeys(package for each in there for package in each.packages)]


def fitting(
    part: Part, records: Sequence[Record], seconds: float, itemsize: int
) -> tuple[list[Contestant], dict[str, str]]:
    """The contestants for whom there is time and memory, ours first; why others are left out."""
    chosen: list[Contestant] = []
    reasons: dict[str, str] = {}
    seconds -= PREPARING * part.workload.elements
    products = PRODUCTS * of_product(part.loop)
    room = free_memory() / (itemsize * part.workload.elements) - 2
    known = {each.name: expected(each.name, part, records) + products for each in part.contestants}
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
    before = [record for record in records if record.contestant == name and record.loop == "alone"]
    singles = sorted((record.elements, record.seconds) for record in before if record.tensors == 1)
    overheads = [
        (record.seconds - of_one(record.elements, singles)) / record.tensors
        for record in before
        if record.tensors > 1
    ]
    step = of_one(workload.elements, singles) + max(overheads, default=0.0) * workload.tensors
    return LEAST * max(step, 0.0) + STARTING.get(name, 0.0) * workload.tensors


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


def said(left_out: dict[tuple[str, str], list[str]], records: Sequence[Record]) -> dict[str, str]:
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
